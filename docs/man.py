"""The man pages weir(1) and libweir(3), made from the manual and the headers.

    python docs/man.py weir.1 OUTPUT
    python docs/man.py libweir.3 OUTPUT

Needs nothing but Python: meson runs it when the library is installed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from header import FUNCTION, headers, sections

CLI = Path(__file__).resolve().parent / "cli.md"


def escape(text: str) -> str:
    """Text as roff prints it; a line that begins with a dot or a quote is escaped."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"[^\x00-\x7f]", lambda match: f"\\[u{ord(match[0]):04X}]", text)
    return re.sub(r"^(['.])", r"\\&\1", text, flags=re.MULTILINE)


def words(text: str) -> str:
    """A paragraph of Markdown: code and emphasis become bold and italic, links their text."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    out = []
    for piece in re.split(r"(`+[^`]+`+|\*\*[^*]+\*\*)", text):
        bare = piece.strip("`") if piece.startswith("`") else piece.strip("*")
        marked = piece.startswith(("`", "**"))
        out.append(f"\\fB{escape(bare)}\\fR" if marked else escape(piece))
    return "".join(out)


def example(lines: list[str]) -> Iterator[str]:
    yield from (".PP", ".EX", *(escape(line) or "\\&" for line in lines), ".EE")


def paragraph(lines: list[str], sets: bool = True) -> Iterator[str]:
    """Lines that belong together: a list item, or a paragraph."""
    text = " ".join(line.strip() for line in lines)
    item = re.match(r"([-*]|\d+\.) +(.*)", text)
    if item:
        text = item[2]
        yield from (".IP \\(bu 2",)
    else:
        yield ".PP"
    yield words(text) if sets else escape(text)


def markdown(text: str) -> Iterator[str]:
    """A page of the manual as roff. Tables and directives become examples."""
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    pending: list[str] = []
    fenced: list[str] | None = None
    fence = ""

    def flush() -> Iterator[str]:
        if pending and pending[0].startswith("|"):
            rows = [
                re.sub(r"[`*]|(?<=\])\([^)]*\)|[\[\]]", "", row)
                for row in pending
                if not re.match(r"^[|\s:-]+$", row)
            ]
            yield from example([row.strip("| ") for row in rows])
        elif pending:
            yield from paragraph(pending)
        pending.clear()

    for line in text.splitlines():
        if fenced is not None:
            if line.strip() == fence:
                yield from example(fenced)
                fenced = None
            else:
                fenced.append(line)
        elif match := re.match(r"^(`{3,}|~{3,})", line.strip()):
            yield from flush()
            fence, fenced = match[1], []
        elif match := re.match(r"^(#+) +(.*)", line):
            yield from flush()
            level = len(match[1])
            if level > 1:
                title = re.sub(r"[`*]", "", match[2])
                title = title.upper() if level == 2 else title
                yield f'.{"SH" if level == 2 else "SS"} "{escape(title)}"'
        elif not line.strip():
            yield from flush()
        elif re.match(r"^ *([-*]|\d+\.) ", line):
            yield from flush()
            pending.append(line)
        elif not re.match(r"^\(\w[\w-]*\)=$", line):
            pending.append(line)
    yield from flush()


def comment(text: str) -> Iterator[str]:
    """A header's comment: indented lines are examples or lists, others paragraphs."""
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.split("\n") if not re.match(r"^-{3,}", line.strip())]
        if not "".join(lines).strip():
            continue
        if all(line.startswith("    ") for line in lines):
            yield from example(lines)
            continue
        pending: list[str] = []
        for line in lines:
            if re.match(r"^ *- ", line) and pending:
                yield from paragraph(pending, sets=False)
                pending = []
            pending.append(line)
        yield from paragraph(pending, sets=False)


def head(name: str, section: int, title: str) -> list[str]:
    return [
        f'.TH {name.upper()} {section} "" "weir 0.1.0"',
        ".SH NAME",
        f"{name} \\- {title}",
    ]


def weir_1() -> list[str]:
    text = CLI.read_text()
    return [
        *head("weir", 1, "look at rate limits, and steer them"),
        ".SH SYNOPSIS",
        ".B weir",
        ".I command",
        r"[\fIoptions\fR]",
        ".SH DESCRIPTION",
        *markdown(text),
        ".SH SEE ALSO",
        ".BR libweir (3)",
    ]


def libweir_3() -> list[str]:
    page = [
        *head("libweir", 3, "rate limits, decided"),
        ".SH SYNOPSIS",
        ".EX",
        *(f"#include <weir/{path.name}>" for path in headers()),
        ".EE",
        ".PP",
        escape("cc program.c $(pkg-config --cflags --libs weir)"),
    ]
    for path in headers():
        page += [f'.SH "weir/{escape(path.name)}"']
        first = True
        for section in sections(path.read_text()):
            found = FUNCTION.findall(section.code)
            if not (found or (first and section.comment)):
                continue
            first = first and not section.comment
            for prototype in found:
                name = re.findall(r"(\w+)\(", prototype)[0]
                page += [f".SS {name}()"]
                page += example([line.strip() for line in f"{prototype};".splitlines()])
            page += comment(section.comment)
    return [*page, ".SH SEE ALSO", ".BR weir (1)"]


def main() -> None:
    page, output = sys.argv[1:]
    lines = {"weir.1": weir_1, "libweir.3": libweir_3}[page]()
    Path(output).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
