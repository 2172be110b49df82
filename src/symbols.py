"""Makes a linker's version script: ``symbols.py exports.txt WEIR libweir.map``.

Each line of the list is a function, and the first version of Weir that has it; in the library, its
symbol carries ``WEIR_`` and that version. Programs linked against an older library keep working;
one that needs a newer function reports that when it starts.
"""

import re
import sys
from pathlib import Path


def main(listed: str, prefix: str, output: str) -> None:
    versions: dict[tuple[int, ...], list[str]] = {}
    for line in Path(listed).read_text().splitlines():
        if not re.fullmatch(r"\w+ \d+(\.\d+)+", line):
            sys.exit(f"{listed}: {line!r} is not a function and a version, such as weir_name 0.2")
        name, since = line.split()
        version = tuple(int(part) for part in since.split("."))
        versions.setdefault(version, []).append(name)
    text, before = "", ""
    for version in sorted(versions):
        node = f"{prefix}_" + ".".join(map(str, version))
        names = "".join(f"        {name};\n" for name in sorted(versions[version]))
        everything_else = "" if before else "    local:\n        *;\n"
        text += f"{node} {{\n    global:\n{names}{everything_else}}}{before};\n"
        before = f" {node}"
    Path(output).write_text(text)


main(*sys.argv[1:])
