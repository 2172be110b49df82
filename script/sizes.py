"""Fails if a source file has more than 500 lines, or a Python or C function more than 50.

Source files are those that people edit: Python, C, Lua, scripts, pages and the manual. Data and
generated files are not included.

A docstring does not count as lines of its function. C files are formatted by clang-format, so a
function begins and ends in the first column of a line.

    python script/sizes.py [--write]

script/sizes.txt lists what is longer still, with its length. It can only shrink: a length above the
listed one fails, and so does an entry that is no longer needed. ``--write`` lowers and removes
entries; it adds none.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_MAX, FUNCTION_MAX = 500, 50

#: The first line of a C function or another declaration, and the name in it.
DECLARATION = re.compile(r"[A-Za-z_]")
NAME = re.compile(r"\b(?!__attribute__)(\w+)\(")

#: Patterns of the files that are checked, for git.
SOURCES = ["*.py", "*.pyi", "*.c", "*.h", "*.cpp", "*.rs", "*.java", "*.lua", "*.in", "*.js"]
SOURCES += ["*.css", "*.html", "*.md", "*.rst", "*.sh", "*.yml", "*.build", "script/*", ":!*.json"]

ROOT = Path(__file__).resolve().parent.parent
LISTED = Path(__file__).with_suffix(".txt")

Lengths = dict[str, int]


def sources() -> list[str]:
    """The source files of the repository, new ones included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--"]
    command += SOURCES
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in sorted(set(names.split("\n"))) if name and (ROOT / name).exists()]


def words_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of its docstring: a page of the manual, not code."""
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is None:
        return 0
    return (first.end_lineno or first.lineno) - first.lineno + 1


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    """Name and length of each function of a C file that clang-format has formatted."""
    lines = text.split("\n")
    start, opened = 0, False
    for number, line in enumerate(lines):
        if DECLARATION.match(line) and not line.endswith(":"):  # no label
            start, opened = number, False
        if not opened:
            head = " ".join(lines[start : number + 1])
            opened = line.endswith("{") and DECLARATION.match(head) is not None
            name = NAME.findall(head)
        elif line.startswith("}"):
            opened = False
            if line == "}" and name:
                yield name[0], number - start + 1


def too_long(name: str, text: str) -> Lengths:
    """The file and the functions in it that are too long, with their lengths."""
    found: Lengths = {}
    lines = text.count("\n")
    if lines > FILE_MAX:
        found[name] = lines
    if name.endswith((".c", ".h")):
        for function, length in c_functions(text):
            if length > FUNCTION_MAX:
                found[f"{name}:{function}"] = length
    if not name.endswith(".py"):
        return found

    def visit(node: ast.AST, path: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = path
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{path}.{child.name}" if path else child.name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (child.end_lineno or child.lineno) - child.lineno + 1 - words_of(child)
                if length > FUNCTION_MAX:
                    found[f"{name}:{inner}"] = length
            visit(child, inner)

    visit(ast.parse(text, name), "")
    return found


def listed() -> Lengths:
    """The exceptions that are still open."""
    entries = (line.split() for line in LISTED.read_text().splitlines() if line.strip())
    return {name: int(length) for length, name in entries}


def problems(found: Lengths, known: Lengths) -> list[str]:
    """What is wrong, a line each."""
    wrong = []
    for name, length in found.items():
        most = known.get(name, FUNCTION_MAX if ":" in name else FILE_MAX)
        if length > most:
            wrong.append(f"{name} has {length} lines, at most {most} are allowed: split it")
    for name, length in known.items():
        if name not in found:
            wrong.append(f"{name} is short enough: remove it from script/sizes.txt")
        elif found[name] < length:
            wrong.append(f"{name} has {found[name]} lines: lower {length} in script/sizes.txt")
    return wrong


def main() -> int:
    found: Lengths = {}
    for name in sources():
        found.update(too_long(name, (ROOT / name).read_text()))
    known = listed() if LISTED.exists() else {}
    if "--write" in sys.argv[1:]:
        kept = {n: min(length, found[n]) for n, length in known.items() if n in found}
        LISTED.write_text("".join(f"{length} {name}\n" for name, length in sorted(kept.items())))
        known = kept
    wrong = problems(found, known)
    print("\n".join(wrong) or f"{len(found)} listed exceptions are left")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
