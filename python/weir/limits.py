"""Limit items with the names of ``limits.limits``, and custom item classes.

>>> RateLimitItemPerMinute(10)
10 per 1 minute
>>> RateLimitItemPerMinute(10, 2).key_for("alice")
'LIMITER/alice/10/2/minute'
>>> isinstance(RateLimitItemPerMinute(10), RateLimitItem)
True

When a class with a new unit is defined, the unit can be parsed:

>>> class PerWeek(RateLimitItem):
...     GRANULARITY = Granularity(604800, "week")
>>> from weir import parse
>>> parse("2/week"), parse("2/week").get_expiry()
(2 per 1 week, 604800)

A class may replace ``key_for()``: items of one amount and period whose keys are the same text share
a counter. It may replace ``get_expiry()`` by another number of whole seconds, which must be the
same each time: where the end of a window is a moment of the calendar, use the strategy
``calendar-window``. Both are called at each use of such an item.
"""

from __future__ import annotations

import copyreg
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from . import _core
from ._core import UNITS, Granularity, Limit, ParseError, join_key

__all__ = [
    "GRANULARITIES",
    "TIME_TYPES",
    "Granularity",
    "RateLimitItem",
    "RateLimitItemMeta",
    "RateLimitItemPerDay",
    "RateLimitItemPerHour",
    "RateLimitItemPerMinute",
    "RateLimitItemPerMonth",
    "RateLimitItemPerSecond",
    "RateLimitItemPerYear",
    "granularity_from_string",
    "safe_string",
    "split_key",
]

#: The units and how long they are. A month is 30 days and a year 12 of those.
TIME_TYPES: dict[str, Granularity] = {
    name: Granularity(seconds, name) for name, seconds in UNITS.items()
}

#: The units, longest first.
_UNITS = tuple(sorted(TIME_TYPES.values(), reverse=True))

#: The classes by the names of their units; the last class that is defined for a name is parsed.
GRANULARITIES: dict[str, type[RateLimitItem]] = {}

#: The longest period: 100 years of 360 days.
_LONGEST = 3_110_400_000


def in_units(seconds: int) -> tuple[int, str]:
    """A period as a number of the longest unit that divides it."""
    unit = next(unit for unit in _UNITS if seconds % unit.seconds == 0)
    return seconds // unit.seconds, unit.name


def _checked(name: str, granularity: Any) -> Granularity:
    if not isinstance(granularity, tuple) or len(granularity) != 2:
        raise TypeError(
            f"{name}.GRANULARITY must be Granularity(seconds, name), not {granularity!r}"
        )
    seconds, unit = granularity
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 < seconds <= _LONGEST:
        raise ValueError(
            f"{name}.GRANULARITY: seconds must be a whole number, 1 to {_LONGEST}, not {seconds!r}"
        )
    if not isinstance(unit, str) or not unit:
        raise TypeError(f"{name}.GRANULARITY: the name must be a text, not {unit!r}")
    return Granularity(seconds, unit)


class RateLimitItemMeta(type):
    """Registers a class that defines ``GRANULARITY``, so that it can be parsed."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], members: dict[str, Any], **kwargs: Any
    ) -> RateLimitItemMeta:
        members.setdefault("__slots__", ())
        if "GRANULARITY" in members:
            members["GRANULARITY"] = _checked(name, members["GRANULARITY"])
        made: Any = super().__new__(cls, name, bases, members, **kwargs)
        if "GRANULARITY" in members:
            GRANULARITIES[made.GRANULARITY.name] = made
        return made  # type: ignore[no-any-return]

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        if not isinstance(getattr(cls, "GRANULARITY", None), tuple):
            raise AttributeError(
                f"{cls.__name__} has no GRANULARITY: set it to Granularity(seconds, name)"
            )
        return super().__call__(*arguments, **named)


class RateLimitItem(Limit, metaclass=RateLimitItemMeta):
    """``amount`` hits per ``multiples`` units of the class; base of all items.

    :param amount: hits per period
    :param multiples: units per period; ``None`` or 0: one
    :param namespace: the first part of every key
    """

    GRANULARITY: ClassVar[Granularity]

    if TYPE_CHECKING:  # the extension reads the arguments

        def __init__(
            self, amount: int, multiples: int | None = 1, namespace: str = "LIMITER"
        ) -> None: ...

    @classmethod
    def check_granularity_string(cls, granularity_string: str) -> bool:
        """Whether a text is the unit's name, or its plural, in any case."""
        name = cls.GRANULARITY.name
        return granularity_string.lower() in (name, f"{name}s")

    def __reduce__(self) -> Any:
        if type(self) in _BUILT_IN:
            return super().__reduce__()
        return _restore_own, (
            type(self),
            self.amount,
            self.multiples,
            self.namespace,
            {
                "burst": self.burst,
                "strategy": self.strategy,
                "max_delay": self.max_delay,
                "tz": self.tz,
            },
            _attributes(self),
        )


class RateLimitItemPerYear(RateLimitItem):
    """``amount`` hits per ``multiples`` years."""

    GRANULARITY = TIME_TYPES["year"]


class RateLimitItemPerMonth(RateLimitItem):
    """``amount`` hits per ``multiples`` months."""

    GRANULARITY = TIME_TYPES["month"]


class RateLimitItemPerDay(RateLimitItem):
    """``amount`` hits per ``multiples`` days."""

    GRANULARITY = TIME_TYPES["day"]


class RateLimitItemPerHour(RateLimitItem):
    """``amount`` hits per ``multiples`` hours."""

    GRANULARITY = TIME_TYPES["hour"]


class RateLimitItemPerMinute(RateLimitItem):
    """``amount`` hits per ``multiples`` minutes."""

    GRANULARITY = TIME_TYPES["minute"]


class RateLimitItemPerSecond(RateLimitItem):
    """``amount`` hits per ``multiples`` seconds."""

    GRANULARITY = TIME_TYPES["second"]


_BUILT_IN: tuple[type[Limit], ...] = (
    RateLimitItemPerSecond,
    RateLimitItemPerMinute,
    RateLimitItemPerHour,
    RateLimitItemPerDay,
    RateLimitItemPerMonth,
    RateLimitItemPerYear,
)


def granularity_from_string(granularity_string: str) -> type[RateLimitItem]:
    """The class that is registered for a unit.

    :raises ValueError: if there is none

    >>> granularity_from_string("hours").__name__
    'RateLimitItemPerHour'
    """
    for granularity in GRANULARITIES.values():
        if granularity.check_granularity_string(granularity_string):
            return granularity
    raise ValueError(f"no granularity matched for {granularity_string}")


def safe_string(value: object) -> str:
    """A value as text, as ``limits`` has it in keys; bytes are decoded."""
    return value.decode() if isinstance(value, bytes) else str(value)


# ------------------------------------------------------------------------------------ custom units

_ONE = re.compile(
    r"\s*(\d+)\s*(?:/|per)\s*(\d+)?\s*([a-z]+?)\s*(?:\bburst\s+(\d+)\s*)?", re.IGNORECASE | re.ASCII
)

_T = TypeVar("_T", bound=Limit)


def _parse_one(text: str) -> Limit | None:
    """A limit whose unit is registered by an application, or one of Weir's own."""
    found = _ONE.fullmatch(text)
    if not found:
        return None
    amount, multiples, unit, burst = found.groups()
    for name, granularity in GRANULARITIES.items():
        if name not in TIME_TYPES and granularity.check_granularity_string(unit):
            break
    else:
        return None
    if 0 in (int(multiples or 1), int(burst or 1)):
        return None
    item: Limit = granularity(int(amount), int(multiples or 1))
    return item.replace(burst=int(burst)) if burst else item


def _parse_own(text: object) -> list[Limit] | None:
    """The limits in a text that the core cannot parse; ``None``: it has no custom unit either."""
    if not isinstance(text, str) or len(text) > 4096 or GRANULARITIES.keys() == TIME_TYPES.keys():
        return None
    parts = re.split("[;,|]", text)
    if len(parts) > _core.CHECKS_MAX:
        return None
    items = []
    for part in parts:
        item = _parse_one(part)
        if item is None:
            if len(parts) == 1:
                return None
            try:
                item = _core.parse(part)
            except ParseError:
                return None
        items.append(item)
    return items


# ---------------------------------------------------------------------------------- custom methods

#: The namespace of counters whose whole key is the result of key_for().
_WHOLE_KEYS = "="

#: The result of get_expiry() for items of each name, the latest last.
_EXPIRIES: dict[tuple[Any, ...], int] = {}

#: The number of names to keep; after that, the oldest is dropped and may have a new result.
_EXPIRIES_MOST = 10_000


def _expiry(item: Limit) -> int:
    """The result of the item's custom get_expiry(), which must not change."""
    kind = type(item).__qualname__
    seconds: Any = item.get_expiry()
    if isinstance(seconds, float) and seconds.is_integer():
        seconds = int(seconds)
    if type(seconds) is not int or not 0 < seconds <= _LONGEST:
        raise ValueError(
            f"{kind}.get_expiry() must be whole seconds, 1 to {_LONGEST}, not {seconds!r}"
        )
    name = (type(item), item.amount, item.multiples, item.namespace)
    known = _EXPIRIES.setdefault(name, seconds)
    if known != seconds:
        raise ValueError(
            f"{kind}.get_expiry() was {known} seconds and is {seconds} now: the counter would "
            "start at 0 after each change. Give items of other periods another amount, "
            "namespace or class; for windows that end with a day or month, use calendar-window"
        )
    if len(_EXPIRIES) > _EXPIRIES_MOST:
        del _EXPIRIES[next(iter(_EXPIRIES))]
    return seconds


def _plain_limit(item: Limit, namespace: str) -> Limit:
    """The plain limit that is equivalent to an item of a custom class."""
    seconds = item.get_expiry() if type(item).get_expiry is Limit.get_expiry else _expiry(item)
    return Limit(
        item.amount,
        *in_units(seconds),
        burst=item.burst,
        strategy=item.strategy,
        max_delay=item.max_delay,
        tz=item.tz,
        namespace=namespace,
    )


def plain_item(item: Limit) -> Limit:
    """The plain limit that is equivalent to an item of a custom class, for every client.

    For checks that are prepared before the client is known.

    :raises TypeError: if the class replaces ``key_for()``, which needs the client
    """
    kind = type(item)
    if kind.key_for is not Limit.key_for:
        raise TypeError(
            f"{kind.__qualname__} replaces key_for(), which a Flask limiter does not call: give the"
            " limit a key_func and a scope instead, or use the item with weir.strategies"
        )
    return item if kind.get_expiry is Limit.get_expiry else _plain_limit(item, item.namespace)


def _own_key(item: Limit, identifiers: Sequence[object]) -> str:
    """The result of the item's custom key_for()."""
    key: Any = item.key_for(*identifiers)
    if isinstance(key, bytes):
        key = key.decode(errors="backslashreplace")
    if not isinstance(key, str):
        kind = type(item).__qualname__
        raise TypeError(f"{kind}.key_for() must return a text, not {type(key).__name__}")
    return key


def _plain_key(item: Limit, identifiers: Sequence[object]) -> tuple[str, tuple[object, ...]]:
    """Namespace and identifiers of the counter that the item's custom key_for() returns.

    If the key begins with the item's namespace, its first part is the client, as in other keys:
    rules and lists of clients include it.
    """
    key = _own_key(item, identifiers)
    namespace, slash, rest = key.partition("/")
    if slash and namespace == item.namespace:
        return namespace, split_key(rest)
    return _WHOLE_KEYS, (key,)


def _plain(item: Limit, identifiers: tuple[object, ...]) -> tuple[Limit, tuple[object, ...]]:
    """The plain limit and identifiers that are equivalent to these."""
    namespace = item.namespace
    if type(item).key_for is not Limit.key_for:
        namespace, identifiers = _plain_key(item, identifiers)
    return _plain_limit(item, namespace), identifiers


def _plain_joined(item: Limit, key: str | bytes) -> tuple[Limit, str | bytes]:
    """The same for a joined key."""
    namespace = item.namespace
    if type(item).key_for is not Limit.key_for:
        namespace, identifiers = _plain_key(item, split_key(key))
        key = join_key(*identifiers)
    return _plain_limit(item, namespace), key


_ESCAPE = re.compile(rb"%([0-9A-F]{2})")


def split_key(key: str | bytes) -> tuple[str | bytes, ...]:
    """The identifiers in a joined key: the inverse of :func:`weir.join_key`.

    >>> split_key("alice/view%2F1/7")
    ('alice', 'view/1', '7')
    """
    joined = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    if not joined:
        return ()
    if joined == b"%":
        return ("",)
    parts: list[str | bytes] = []
    for part in joined.split(b"/"):
        plain = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), part)
        try:
            parts.append(plain.decode())
        except UnicodeDecodeError:
            parts.append(plain)
    return tuple(parts)


# ------------------------------------------------------------------------------------------ copies


def _attributes(item: Limit) -> dict[str, Any]:
    """The attributes that a custom class adds to the limit."""
    kept = dict(getattr(item, "__dict__", ()))
    for name in copyreg._slotnames(type(item)):  # type: ignore[attr-defined]
        if hasattr(item, name):
            kept[name] = getattr(item, name)
    return kept


def _copy_attributes(source: Limit, target: Limit) -> None:
    for name, value in _attributes(source).items():
        setattr(target, name, value)


def _restore_own(
    cls: type[_T],
    amount: int,
    multiples: int,
    namespace: str,
    options: dict[str, Any],
    attributes: dict[str, Any],
) -> _T:
    made: Any = cls
    item = made.__new__(cls, amount, multiples, namespace)
    Limit.__init__(item, amount, multiples, namespace)  # in case __new__ did not set them
    for name, value in attributes.items():
        setattr(item, name, value)
    given = {name: value for name, value in options.items() if value is not None}
    return item.replace(**given) if given else item  # type: ignore[no-any-return]


_core._set_items(_BUILT_IN, GRANULARITIES, (_parse_own, _copy_attributes, _plain, _plain_joined))
