"""Limit items by the names that ``limits.limits`` gives them.

>>> RateLimitItemPerMinute(10)
10 per 1 minute
>>> RateLimitItemPerMinute(10, 2).key_for("alice")
'LIMITER/alice/10/2/minute'
>>> isinstance(RateLimitItemPerMinute(10), RateLimitItem)
True
"""

from __future__ import annotations

from typing import Any

from ._core import Granularity, Limit

__all__ = [
    "GRANULARITIES",
    "TIME_TYPES",
    "Granularity",
    "RateLimitItem",
    "RateLimitItemPerDay",
    "RateLimitItemPerHour",
    "RateLimitItemPerMinute",
    "RateLimitItemPerMonth",
    "RateLimitItemPerSecond",
    "RateLimitItemPerYear",
]

#: Every item is a :class:`weir.Limit`.
RateLimitItem = Limit

#: The units and how long they are. A month is 30 days and a year 12 of those.
TIME_TYPES: dict[str, Granularity] = {
    unit: Limit(1, 1, unit).GRANULARITY
    for unit in ("second", "minute", "hour", "day", "month", "year")
}


class _PerUnit(type):
    """Makes ``isinstance(item, RateLimitItemPerMinute)`` ask for the item's unit."""

    def __instancecheck__(cls, instance: Any) -> bool:
        unit = getattr(cls, "GRANULARITY", None)
        return isinstance(instance, Limit) and unit == instance.GRANULARITY


class _PerUnitItem(Limit, metaclass=_PerUnit):
    """A constructor that knows its unit. What it makes is a plain :class:`weir.Limit`."""

    def __new__(cls, amount: int, multiples: int | None = 1, namespace: str = "LIMITER") -> Any:
        unit: Granularity = vars(cls)["GRANULARITY"]
        return Limit(amount, multiples or 1, unit.name, namespace=namespace)


class RateLimitItemPerSecond(_PerUnitItem):
    """``amount`` hits per ``multiples`` seconds."""

    GRANULARITY = TIME_TYPES["second"]


class RateLimitItemPerMinute(_PerUnitItem):
    """``amount`` hits per ``multiples`` minutes."""

    GRANULARITY = TIME_TYPES["minute"]


class RateLimitItemPerHour(_PerUnitItem):
    """``amount`` hits per ``multiples`` hours."""

    GRANULARITY = TIME_TYPES["hour"]


class RateLimitItemPerDay(_PerUnitItem):
    """``amount`` hits per ``multiples`` days."""

    GRANULARITY = TIME_TYPES["day"]


class RateLimitItemPerMonth(_PerUnitItem):
    """``amount`` hits per ``multiples`` months."""

    GRANULARITY = TIME_TYPES["month"]


class RateLimitItemPerYear(_PerUnitItem):
    """``amount`` hits per ``multiples`` years."""

    GRANULARITY = TIME_TYPES["year"]


#: The constructors by their unit.
GRANULARITIES: dict[str, type[Limit]] = {
    "second": RateLimitItemPerSecond,
    "minute": RateLimitItemPerMinute,
    "hour": RateLimitItemPerHour,
    "day": RateLimitItemPerDay,
    "month": RateLimitItemPerMonth,
    "year": RateLimitItemPerYear,
}
