"""README and docs, block by block: what they show is code, and can be run.

A fenced block is run by its language: ``python`` by Python, ``console`` by bash, ``c`` by a
compiler. An HTML comment right before it sets options:

    <!-- test: file app.py -->    the block is this file: other blocks of the page find it
    <!-- test: app -->            Python: runs after the page's app.py, in the same program
    <!-- test: server -->         console: runs in the background until the end of the page
    <!-- test: output -->         text: what the C program before it prints
    <!-- test: skip: reason -->   cannot be run
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]

#: Languages of blocks that are run, and of those that only show something.
RUN = {"python", "console", "c"}
SHOWN = {"text", "diff", "ini", "nginx", "json", "yaml"}

FENCE = re.compile(r"^(`{3,})(\S*)")
MARK = re.compile(r"^<!-- test: (\w+):? ?(.*?) -->$")


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str
    mark: str
    argument: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found = []
    mark = ("", "")
    lines = iter(enumerate(page.read_text().split("\n"), 1))
    for number, line in lines:
        if match := MARK.match(line):
            mark = (match[1], match[2])
        elif match := FENCE.match(line):
            fence, language = match[1], match[2]
            body = []
            for _, inner in lines:
                if inner == fence:
                    break
                body.append(inner + "\n")
            found.append(Block(page, number, language, "".join(body), *mark))
            mark = ("", "")
        elif line.strip():
            mark = ("", "")
    return found


def every_block() -> list[Block]:
    return [block for page in PAGES for block in blocks(page)]


def files(page: Path) -> dict[str, str]:
    """The files that a page shows, by their names."""
    return {block.argument: block.text for block in blocks(page) if block.mark == "file"}


class Command(NamedTuple):
    """A line of a console block, and what it prints; ``None``: the page does not show it."""

    line: str
    output: str | None


def commands(block: Block) -> list[Command]:
    found: list[Command] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Command(re.sub(r"\s+# .*", "", line[2:]), None))
        elif found:
            before = found[-1]
            found[-1] = Command(before.line, (before.output or "") + line + "\n")
    return found


def matches(expected: str, seen: str) -> bool:
    """Whether ``seen`` equals the text of the page, in which ``...`` stands for anything."""
    pattern = re.escape(expected.strip()).replace(re.escape("..."), ".*?")
    # Spaces at the ends of lines are not seen.
    seen = re.sub(r"[ \r]+$", "", seen, flags=re.MULTILINE).strip()
    return re.fullmatch(pattern, seen, re.DOTALL) is not None
