"""Parses the times in logs and rules."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from .words import shown

#: The latest time that a decision supports, in seconds since the epoch.
LATEST = 2**62 / 1e9


class LineError(ValueError):
    """Why a line cannot be read."""


_NUMBER = re.compile(r"\d{1,19}(?:\.\d{1,12})?", re.ASCII)
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?"
    r" ?(Z|UTC|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)
_CLF = re.compile(r"(\d\d)/(\w{3})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})", re.ASCII)
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _zone(text: str | None) -> timezone:
    if text is None or text[0] not in "+-":
        return timezone.utc
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return timezone(-offset if text[0] == "-" else offset)


def _iso_time(match: re.Match[str]) -> float:
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    try:
        when = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=_zone(match[8]))
    except ValueError as error:
        raise LineError(f"not a valid time: {error}") from None
    micros = int((match[7] or "").ljust(6, "0")[:6])
    # In whole microseconds, which a float represents exactly enough until 2116.
    return ((when - _EPOCH) // timedelta(microseconds=1) + micros) / 1e6


def _from_clf(text: str) -> str:
    """``21/Nov/2026:10:00:00 +0000`` as ISO 8601; any other text as it is."""
    match = _CLF.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        return text
    day, month, year, clock, zone = match.groups()
    return f"{year}-{_MONTHS[month]:02}-{day}T{clock}{zone}"


def _whole(number: int) -> float:
    """Seconds; a number beyond the year 5138 is read as ms, µs or ns."""
    for size in (10**9, 10**6, 10**3):
        if number >= size * 10**8:
            return number / size
    return float(number)


def parse_time(text: str) -> float:
    """Seconds since the epoch; raises :class:`LineError`.

    >>> parse_time("1800000000.5"), parse_time("2027-01-15T08:00:00.5Z")
    (1800000000.5, 1800000000.5)
    >>> parse_time("1800000000500"), parse_time("2027-01-15 09:00:00,5 +0100")
    (1800000000.5, 1800000000.5)
    """
    if _NUMBER.fullmatch(text):
        seconds = float(text) if "." in text else _whole(int(text))
    else:
        match = _ISO.fullmatch(_from_clf(text))
        if match is None:
            raise LineError(f"{shown(text, 40)!r} is not a time")
        seconds = _iso_time(match)
    return _checked(seconds)


def _checked(seconds: float) -> float:
    if not 0 <= seconds < LATEST:
        raise LineError("a time must be between 1970 and 2116")
    return seconds


def leading_time(text: str) -> tuple[float, str] | None:
    """The ISO 8601 time that a text begins with, and the rest; ``None`` if there is none.

    >>> leading_time("2027-01-15 08:00:00 +0000 alice")
    (1800000000.0, 'alice')
    """
    match = _ISO.match(text)
    if match is None or not text[match.end() :][:1].isspace():
        return None
    return _checked(_iso_time(match)), text[match.end() :].strip()
