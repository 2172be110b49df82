"""Formats numbers, times and durations for people, and parses durations."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime, timezone
from fractions import Fraction

from .._core import UNITS
from .._text import printable

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)

#: The longest accepted duration, in seconds: about a hundred years.
LONGEST = 36500 * 86400

#: The units of periods, longest first. Months and years are shown in days.
_PERIODS = [(UNITS[name], name) for name in ("day", "hour", "minute", "second")]


def parse_duration(text: str) -> float | None:
    """Seconds; ``None`` for "forever" (or "for good").

    Raises ValueError with a text that lists the accepted forms.

    >>> [parse_duration(text) for text in ("90s", "15m", "1h30m", "forever")]
    [90.0, 900.0, 5400.0, None]
    """
    word = " ".join(text.lower().split())
    if word in ("for good", "forever", "good"):
        return None
    if not _DURATION.fullmatch(word):
        raise ValueError(f"{shown(text)!r} is not a duration: write 90s, 15m, 1h, 7d or forever")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(word))
    if not 0 < seconds <= LONGEST:
        raise ValueError(
            f"a duration must be more than 0 and at most 36500d, or forever; not {shown(text)}"
        )
    return seconds


def shown(text: object, most: int = 60) -> str:
    """A text from elsewhere, fit for a terminal; see :func:`weir._text.printable`."""
    return printable(text, most)


def count(number: float) -> str:
    """
    >>> count(14400)
    '14,400'
    """
    return f"{number:,}"


def some(number: int, what: str) -> str:
    """
    >>> some(1, "request"), some(1200, "request"), some(2, "hit of cost 1")
    ('1 request', '1,200 requests', '2 hits of cost 1')
    """
    word, space, rest = what.partition(" ")
    return f"{count(number)} {word}{'' if number == 1 else 's'}{space}{rest}"


def about(number: Fraction | float) -> str:
    """A number, rounded to its significant digits.

    >>> [about(n) for n in (14400, Fraction(5, 3), 0.1389)]
    ['14,400', '1.67', '0.139']
    """
    if number == int(number):
        return count(int(number))
    value = float(number)
    if value >= 100:
        return count(round(value))
    return f"{value:.3g}"


def span(seconds: float) -> str:
    """A duration, in its two largest units.

    >>> [span(n) for n in (0.25, 59, 90, 7200, 86400 * 3 + 3600 * 5 + 7, math.inf)]
    ['0.25 s', '59 s', '1 min 30 s', '2 h', '3 d 5 h', 'never']
    """
    if math.isinf(seconds):
        return "never"
    if seconds < 10:
        return f"{seconds:.3g} s"
    left = math.ceil(seconds)
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number:,} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def period(seconds: int) -> str:
    """The period of a limit.

    >>> [period(n) for n in (1, 60, 3600, 120, 90, 86400 * 7)]
    ['1 second', '1 minute', '1 hour', '2 minutes', '90 seconds', '7 days']
    """
    for size, unit in _PERIODS:
        if seconds % size == 0:
            return some(seconds // size, unit)
    raise AssertionError(seconds)


def moment(seconds: float) -> str:
    """A moment in the local time zone.

    >>> len(moment(0.0))
    19
    """
    if math.isinf(seconds):
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def iso(seconds: float) -> str:
    """A time in ISO 8601, in UTC.

    >>> iso(1.5)
    '1970-01-01T00:00:01.500000Z'
    """
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")
