"""Limits as arguments: read, or refused with the place pointed at."""

from __future__ import annotations

from collections.abc import Sequence

from .._core import Limit, parse_many
from ..errors import ParseError
from ..strategies import takes
from .errors import Unreadable
from .words import shown

#: Characters shown on each side of the place that cannot be read.
_AROUND = 34


def read_limits(text: str, strategy: str | None = None, tz: str | None = None) -> list[Limit]:
    """The limits of a text; ends the command if it cannot be read.

    strategy, tz: of limits without a strategy.
    """
    text = text.encode("utf-8", "backslashreplace").decode()  # bytes that were no UTF-8
    try:
        return parse_many(text, strategy=strategy, tz=tz)
    except ParseError as error:
        raise Unreadable(f"{error}{pointed_at(text, error.column)}") from None
    except ValueError as error:
        raise Unreadable(f"--tz: {error}") from None


def pointed_at(text: str, column: int) -> str:
    """The text with a caret under the place: two lines, or none without a place.

    column: of the text's UTF-8, from 1; 0: none.
    """
    if not column:
        return ""
    at = len(text.encode()[: column - 1].decode(errors="replace"))
    start = max(0, at - _AROUND)
    before, behind = shown(text[start:at], 200), shown(text[at : at + _AROUND], 200)
    if start:
        before = "…" + before
    if at + _AROUND < len(text):
        behind += "…"
    return f"\n    {before}{behind}\n    {' ' * len(before)}^"


def with_strategy(limit: Limit, strategy: str | None, max_delay: float | None = None) -> Limit:
    """The limit under a strategy; one that has its own (``burst``) keeps it."""
    if limit.strategy is None:
        limit = limit.replace(strategy=strategy or "fixed-window")
    if max_delay is not None and takes(limit.strategy or "", "max_delay"):
        try:
            limit = limit.replace(max_delay=max_delay)
        except ValueError as error:
            raise Unreadable(f"--max-delay: {error}") from None
    return limit


def normalized(limits: Sequence[Limit]) -> str:
    """The text that reads back as the same limits."""
    return "; ".join(map(str, limits))
