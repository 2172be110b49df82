"""Zones of calendar windows: ``tz="Europe/Berlin"``, ``tz="+05:30"``, or a ``tzinfo``.

The rules come from the system's tz database, by :mod:`zoneinfo`. libweir gets them as a list of
times and the offsets from these times on.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from ._core import _make_zone

#: libweir's times end in February 2116.
_FIRST, _LAST = datetime(1970, 1, 1), datetime(2116, 2, 1)

#: No zone changes its offset and changes it back within this time.
_STEP = timedelta(days=7)

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d\d))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

#: Zones by their names as given. They are never freed: see python/ext/zone.c.
_known: dict[str, Any] = {}


def zone_of(tz: str | tzinfo | None) -> Any:
    """The zone for libweir; ``None`` for UTC. Raises ``ValueError`` for an unknown one."""
    if tz is None:
        return None
    name = tz if isinstance(tz, str) else _name_of(tz)
    if name not in _known:
        made = _make(name)  # an unknown name is not kept
        _known[name] = made
    return _known[name]


def _name_of(zone: tzinfo) -> str:
    if isinstance(zone, ZoneInfo) and zone.key:
        return zone.key
    if isinstance(zone, timezone):
        return _text_of(zone.utcoffset(None))
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)  # dateutil has none; pytz has
    if isinstance(name, str):
        return name
    raise ValueError(f"tz must be the name of a zone, an offset or a ZoneInfo, not {zone!r}")


def _text_of(offset: timedelta) -> str:
    minutes, seconds = divmod(round(offset.total_seconds()), 60)
    if seconds:
        raise ValueError(f"tz: an offset of whole minutes, not {offset}")
    sign, minutes = "-" if minutes < 0 else "+", abs(minutes)
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"


def _make(name: str) -> Any:
    if name.upper() in ("UTC", "ETC/UTC", "Z", "GMT"):
        return None
    if found := _OFFSET.fullmatch(name):
        minutes = int(found[2]) * 60 + int(found[3] or 0)
        if minutes >= 24 * 60 or int(found[3] or 0) > 59:
            raise ValueError(f"tz: an offset below 24 hours, such as '+05:30', not {name!r}")
        offset = timedelta(minutes=-minutes if found[1] == "-" else minutes)
        if not offset:
            return None
        text = _text_of(offset)
        if text not in _known:
            _known[text] = _make_zone(text, [(0, int(offset.total_seconds()))])
        return _known[text]
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(_unknown(name)) from None
    return _make_zone(name, _offsets(zone))


def _unknown(name: str) -> str:
    if not available_timezones():
        return (
            f"tz {name[:80]!r}: this machine has no time zone database. Install the system's "
            "(Debian: apt-get install tzdata) or Python's (pip install tzdata)"
        )
    return (
        f"unknown tz {name[:80]!r}: use the name of a zone such as 'Europe/Berlin', or an offset "
        "such as '+05:30'. Names come from the system's tz database (Debian: tzdata) or from "
        "Python's package tzdata"
    )


def _offsets(zone: ZoneInfo) -> list[tuple[int, int]]:
    """The times at which the offset changes, in seconds, and the offsets from UTC."""

    def ahead(moment: datetime) -> int:
        offset = moment.replace(tzinfo=timezone.utc).astimezone(zone).utcoffset()
        assert offset is not None
        return round(offset.total_seconds())

    def second(moment: datetime) -> int:
        return round((moment.replace(tzinfo=timezone.utc) - _EPOCH).total_seconds())

    moment, offset = _FIRST, ahead(_FIRST)
    found = [(0, offset)]
    while moment < _LAST:
        following = moment + _STEP
        if ahead(following) != offset:
            low, high = second(moment), second(following)
            while high - low > 1:
                middle = (low + high) // 2
                if ahead(_FIRST + timedelta(seconds=middle)) == offset:
                    low = middle
                else:
                    high = middle
            # Not past `high`: there may be another change before the step's end.
            moment = _FIRST + timedelta(seconds=high)
            offset = ahead(moment)
            found.append((high, offset))
        else:
            moment = following
    return found
