"""Makes the linker's version script of libweir.so: ``symbols.py exports.txt libweir.map``.

Each line of the list is a function, and the first version of Weir that has it, 0.1 if none is
given. Programs linked against an older libweir.so keep working; one that needs a newer function
reports that when it starts.
"""

import sys
from pathlib import Path


def main() -> None:
    versions: dict[tuple[int, ...], list[str]] = {}
    for line in Path(sys.argv[1]).read_text().splitlines():
        name, _, since = line.partition(" ")
        if name:
            version = tuple(int(part) for part in (since or "0.1").split("."))
            versions.setdefault(version, []).append(name)
    text, before = "", ""
    for version in sorted(versions):
        node = "WEIR_" + ".".join(map(str, version))
        names = "".join(f"        {name};\n" for name in sorted(versions[version]))
        everything_else = "" if before else "    local:\n        *;\n"
        text += f"{node} {{\n    global:\n{names}{everything_else}}}{before};\n"
        before = f" {node}"
    Path(sys.argv[2]).write_text(text)


main()
