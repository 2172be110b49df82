"""Output: tables that are readable in a pipe, too, and JSON.

rich draws on a terminal; without it, or in a pipe, columns are padded with spaces.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

from .._text import printable, printable_lines

try:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text
except ImportError:  # plain columns, then
    Console = None  # type: ignore[assignment, misc]

_NUMBER = re.compile(r"[\d,]+(\.\d+)?( (s|min|h|d|%))?( \d+ (s|min|h))?|never", re.ASCII)

#: Characters of a cell, and of a line.
CELL_MAX, LINE_MAX = 200, 4096

#: The error of commands that need rich.
NEED_RICH = "this needs rich: pip install rich"

#: A cell: its text, or text and style.
Cell = str | tuple[str, str]

STYLES = {"good": "green", "bad": "red", "warn": "yellow", "dim": "bright_black", "head": "bold"}
_RICH = {**STYLES, "dim": "dim"}


def has_rich() -> bool:
    """Whether rich is installed."""
    return Console is not None


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def styled(text: str, style: str = "") -> str:
    """The text in a colour, if it goes to a terminal."""
    if not style:
        return text
    if style == "head":
        return click.style(text, bold=True)
    return click.style(text, fg=STYLES[style])


def say(text: str = "", style: str = "") -> None:
    """A line on standard output; what cannot be printed is escaped."""
    click.echo(styled(printable(text, LINE_MAX), style))


def say_styled(text: str) -> None:
    """A line that is made of :func:`styled` parts."""
    click.echo(text)


def hint(text: str) -> None:
    """A text on standard error; what cannot be printed is escaped."""
    click.echo(printable_lines(text, LINE_MAX), err=True)


def _parts(cell: Cell, most: int = CELL_MAX) -> tuple[str, str]:
    """Text and style of a cell. The text may come from anywhere, so it is escaped and cut."""
    text, style = (cell, "") if isinstance(cell, str) else cell
    return printable(text, most), style


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def numeric(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[bool]:
    """Which columns hold numbers only."""
    return [
        bool(rows) and all(_is_number(_parts(row[i])[0]) or not _parts(row[i])[0] for row in rows)
        for i in range(len(columns))
    ]


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    title: str | None = None,
    most: int = CELL_MAX,
) -> None:
    """Rows below the names of their columns; numbers to the right. most: characters of a cell."""
    right = numeric(columns, rows)
    if has_rich() and is_terminal():
        Console(highlight=False).print(rich_table(columns, rows, title, right, most))
    else:
        _plain(columns, rows, title, right, most)


def rich_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    title: str | None = None,
    right: Sequence[bool] | None = None,
    most: int = CELL_MAX,
) -> RichTable:
    """The same as an object of rich's."""
    drawn = RichTable(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    drawn.show_header = any(columns)
    for i, name in enumerate(columns):
        drawn.add_column(name, justify="right" if right and right[i] else "left", overflow="fold")
    for row in rows:
        texts = [_parts(cell, most) for cell in row]
        drawn.add_row(*(Text(text, _RICH.get(style, "")) for text, style in texts))
    return drawn


def _plain(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    title: str | None,
    right: Sequence[bool],
    most: int,
) -> None:
    texts = [[_parts(cell, most)[0] for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]

    def line(cells: Sequence[Cell]) -> str:
        padded = []
        last = len(cells) - 1
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            text, style = _parts(cell, most)
            if right[i]:
                text = text.rjust(width)
            elif i < last:
                text = text.ljust(width)
            padded.append(styled(text, style))
        return "  ".join(padded).rstrip()

    columns = [printable(name, CELL_MAX) for name in columns]
    if title:
        say(title, "head")
    if any(columns):
        say_styled(line([(name, "dim") for name in columns]))
    for row in rows:
        say_styled(line(row))


def as_json(value: Any) -> str:
    """One line of JSON. Infinity and NaN become null."""
    return json.dumps(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def say_json(value: Any) -> None:
    """One line of JSON on standard output, at once."""
    click.echo(as_json(value))
    sys.stdout.flush()
