"""Fails if a Python file has more than 500 lines, or a function more than 50 besides its docstring.

    python script/sizes.py [--write]

script/sizes.txt lists what is longer still, with its length. It can only shrink: a length above the
listed one fails, and so does an entry that is no longer needed. ``--write`` lowers and removes
entries; it adds none.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

FILE_MAX, FUNCTION_MAX = 500, 50

ROOT = Path(__file__).resolve().parent.parent
LISTED = Path(__file__).with_suffix(".txt")

Lengths = dict[str, int]


def python_files() -> list[str]:
    """The Python files of the repository, new ones included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.py"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in sorted(set(names.split("\n"))) if name and (ROOT / name).exists()]


def words_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of its docstring: a page of the manual, not code."""
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is None:
        return 0
    return (first.end_lineno or first.lineno) - first.lineno + 1


def too_long(name: str, text: str) -> Lengths:
    """The file and the functions in it that are too long, with their lengths."""
    found: Lengths = {}
    lines = text.count("\n")
    if lines > FILE_MAX:
        found[name] = lines

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
    for name in python_files():
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
