"""embed.py ROWS SCRIPT HEADER: writes the script for Redis as a C array, with its SHA-1.

ROWS is include/weir/strategies.h. The script's line ``--@strategies`` is replaced by one branch for
each row, from src/strategy/<symbol>.lua; ``--@logs`` by src/strategy/log/log.lua. The file of a
strategy states how many bytes a counter has (``--@holds 16 26``: narrow, wide), and may include
others (``--@include level_found.lua``).

embed.py --symbols ROWS: prints the symbols of the rows, from which meson makes the list of sources.
"""

import hashlib
import re
import sys
from pathlib import Path

STRATEGY = Path(__file__).parents[1] / "strategy"
ROW = re.compile(r'^\s+X\((\w+), (\w+), "([\w-]+)",[\s\\]+"(\w\w)", (\w+), (\w+),', re.MULTILINE)
PLACE = "if slot {} plain then malformed('place ' .. slot) end\n"
FOREIGN = (
    "if value and #value ~= (wide and {wide} or {narrow}) then\n"
    "    error('weir: ' .. KEYS[slot] .. ' holds something that is not a counter', 0)\n"
    "end"
)

UNKNOWN = """\
        else
            malformed('unknown strategy ' .. kind)
        end
"""


def symbols(rows: Path) -> list[str]:
    """The symbol of every row, in the order of enum weir_strategy."""
    found = [match[2] for match in ROW.finditer(rows.read_text())]
    if not found or len(found) != rows.read_text().count("\n    X("):
        sys.exit(f"{rows}: a row does not have the form in the file's comment")
    return found


def indented(text: str, by: str) -> str:
    return "".join(by + line + "\n" if line else "\n" for line in text.rstrip().split("\n"))


def piece(symbol: str) -> str:
    """A strategy's branch, without the ``if`` around it."""
    path = STRATEGY / f"{symbol}.lua"
    if not path.exists():
        sys.exit(f"{path} is missing: what the strategy does on Redis")
    holds = re.search(r"^--@holds (a log|(\d+) (\d+))$", path.read_text(), re.MULTILINE)
    if not holds:
        sys.exit(f'{path}: has no length of a counter: "--@holds 16 26", or "--@holds a log"')
    if holds[1] == "a log":
        check = PLACE.format("<=").rstrip()
    else:
        check = PLACE.format(">") + FOREIGN.format(narrow=holds[2], wide=holds[3])
    text = path.read_text().replace(holds[0], check)
    return re.sub(
        r"^--@include (\S+)\n", lambda m: (STRATEGY / m[1]).read_text(), text, flags=re.MULTILINE
    )


def spliced(rows: Path, script: Path) -> str:
    branches = ""
    for kind, symbol in enumerate(symbols(rows)):
        word = "elseif" if kind else "if"
        branches += f"        {word} kind == {kind} then\n{indented(piece(symbol), ' ' * 12)}"
    text = script.read_text()
    for mark, by in (
        ("        --@strategies\n", branches + UNKNOWN),
        ("--@logs\n", (STRATEGY / "log" / "log.lua").read_text()),
    ):
        if text.count(mark) != 1:
            sys.exit(f"{script}: there must be one line {mark.strip()}")
        text = text.replace(mark, by)
    return text


def embed(rows: Path, source: Path, header: Path) -> None:
    script = spliced(rows, source).encode()
    lines = [
        ", ".join(
            (str(byte) if byte < 128 else f"'\\x{byte:02x}'")  # char: signed or not
            for byte in script[i : i + 20]
        )
        for i in range(0, len(script), 20)
    ]
    header.write_text(
        f"/* Made of {source.name} and the pieces of src/strategy by embed.py. */\n"
        f'#define WEIR_DECIDE_SHA1 "{hashlib.sha1(script, usedforsecurity=False).hexdigest()}"\n\n'
        "static const char weir_decide_lua[] = {\n"
        + "".join(f"    {line},\n" for line in lines)
        + "    0,\n};\n"
    )


if sys.argv[1] == "--symbols":
    print(*symbols(Path(sys.argv[2])), sep="\n")
else:
    embed(*map(Path, sys.argv[1:]))
