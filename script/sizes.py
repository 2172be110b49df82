"""Fails if a source file has more than 500 lines, or a function more than 50.

Source files are those that people edit: Python, C, Lua, scripts, pages and the manual. Data and
generated files are not included.

Functions are measured in Python, C, Lua, JavaScript and shell. A docstring does not count as lines
of its function. C files are formatted by clang-format, so a function begins and ends in the first
column of a line. A C macro counts as a function: its #define and the lines that continue it. A
function in Lua, JavaScript or shell ends at the next closing line that is not indented more than
its first line; a function that is written in one line is not measured.

Some functions consist of other functions: in Lua make_logs() and make_big(), in JavaScript the
function around a module. In these languages, a function is therefore counted without the lines of
the named functions defined in it, which are measured themselves. Functions without a name, such as
callbacks, are measured, too, and count as lines of the function around them.

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

#: The first line of a C macro, and its name.
MACRO = re.compile(r" *# *define +(\w+)")

#: The beginnings of functions in other languages, and their names, if any. The body begins on the
#: next line; in Lua, it may begin on the same line. In JavaScript: ``function``, an arrow function
#: that is a variable, a method, others.
LUA_HEAD = re.compile(r"(?:\b([\w.]+) *= *)?\bfunction\b *([\w.:]*) *\([^()]*\)")
#: Strings and comments in Lua; the words that begin and end blocks.
LUA_TEXT = re.compile(r"""'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|--.*""")
LUA_WORD = re.compile(r"\b(?:(function|if|do|repeat)|(end|until))\b")
JS_HEAD = re.compile(
    r"""^[ ]*(?:
        (?:.*[ (])?(?:(\w+)[ ]*[=:][ ]*)?(?:async[ ]+)?function\b[ *]*(\w*)[ ]*PARAMETERS
        | (?:export[ ]+)?(?:const|let|var)[ ]+(\w+)[ ]*=[ ]*(?:async[ ]*)?(?:\w+|PARAMETERS)[ ]*=>
        | (?:(?:async|static|get|set)[ ]+)*(?!(?:if|for|while|switch|catch|with)\b)(\w+)PARAMETERS
        | .*=>
    )[ ]*\{[ ]*(?://.*)?$""".replace("PARAMETERS", r"\((?:.*|[^;{}]*)\)"),
    re.MULTILINE | re.VERBOSE,
)
SHELL_HEAD = re.compile(
    r"^ *(?:function +([\w-]+)(?: *\(\))?|([\w-]+) *\(\))\s*[{(] *(?:#.*)?$", re.MULTILINE
)
SHEBANG = re.compile(r"#!.*\b(?:ba|da)?sh\n")
HERE_DOCUMENT = re.compile(r"(?<!<)<<-? *(['\"]?)(\w+)\1.*\n(?:.*\n)*?\t*\2$", re.MULTILINE)
INDENT = re.compile(r" *")

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


def python_functions(node: ast.AST, path: str = "") -> Iterator[tuple[str, int]]:
    """Name and length of each function of a Python module."""
    for child in ast.iter_child_nodes(node):
        inner = path
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{path}.{child.name}" if path else child.name
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inner, (child.end_lineno or child.lineno) - child.lineno + 1 - words_of(child)
        yield from python_functions(child, inner)


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


def c_macros(text: str) -> Iterator[tuple[str, int]]:
    """Name and length of each macro of a C file: all lines but its last end with a backslash."""
    lines = text.split("\n")
    for start, line in enumerate(lines):
        if match := MACRO.match(line):
            end = start
            while end + 1 < len(lines) and lines[end].endswith("\\"):
                end += 1
            yield match[1], end - start + 1


def ends_in(rest: str) -> bool:
    """Whether a Lua function ends in the rest of the line on which its body begins."""
    depth = 1
    for opening, closing in LUA_WORD.findall(rest):
        depth += bool(opening) - bool(closing)
        if depth == 0:
            return True
    return False


def nested_functions(text: str, head: re.Pattern[str]) -> Iterator[tuple[str, int]]:
    """Name and length of each function of an indented file, without named functions in it."""
    lines = text.split("\n")
    found = []
    for match in head.finditer(text):
        if ends_in(text[match.end() :].partition("\n")[0]):
            continue
        start = text.count("\n", 0, match.start())
        indent = INDENT.match(lines[start])
        after = text.count("\n", 0, match.end()) + 1
        closing = re.compile(rf" {{0,{len(indent[0]) if indent else 0}}}(?:end\b|[}})])")
        ends = (n for n in range(after, len(lines)) if closing.match(lines[n]))
        name = next((group for group in match.groups() if group), "")
        found.append((name, start, next(ends, len(lines) - 1)))
    for name, start, end in found:
        own = set(range(start, end + 1))
        for inner, first, last in found:
            if inner and start < first and last <= end:
                own.difference_update(range(first, last + 1))
        yield name or f"line-{start + 1}", len(own)


def functions(name: str, text: str) -> Iterator[tuple[str, int]]:
    """Name and length of each function of a file."""
    if name.endswith(".py"):
        yield from python_functions(ast.parse(text, name))
    elif name.endswith((".c", ".h")):
        yield from c_functions(text)
        yield from c_macros(text)
    elif name.endswith(".lua"):
        yield from nested_functions(LUA_TEXT.sub("", text), LUA_HEAD)
    elif name.endswith(".js"):
        yield from nested_functions(text, JS_HEAD)
    elif name.endswith(".sh") or SHEBANG.match(text):
        # The text of a here-document is not indented: it must not look like the end of a function.
        text = HERE_DOCUMENT.sub(lambda match: "\n" * match[0].count("\n"), text)
        yield from nested_functions(text, SHELL_HEAD)


def too_long(name: str, text: str) -> Lengths:
    """The file and the functions in it that are too long, with their lengths."""
    found: Lengths = {}
    lines = text.count("\n")
    if lines > FILE_MAX:
        found[name] = lines
    for function, length in functions(name, text):
        if length > FUNCTION_MAX:
            found[f"{name}:{function}"] = length
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
