"""Limiters by strategy, with the names of ``limits.strategies`` and some more.

One class for each: ``FixedWindowRateLimiter``, ``MovingWindowRateLimiter``,
``SlidingWindowCounterRateLimiter``, ``TokenBucketRateLimiter``, ``LeakyBucketRateLimiter``,
``CalendarWindowRateLimiter``.

>>> from weir import parse
>>> from weir.storage import MemoryStorage
>>> limiter = MovingWindowRateLimiter(MemoryStorage())
>>> limiter.hit(parse("1/minute"), "login", "alice")
True
>>> limiter.hit(parse("1/minute"), "login", "alice")
False
>>> limiter.get_window_stats(parse("1/minute"), "login", "alice").remaining
0

An item that sets its strategy (``"10/minute burst 20"`` is a token bucket) keeps it.

Differences from ``limits``:

- A denied hit charges nothing under any strategy (in ``limits``, its cost fills a fixed window).
- A moving window is half open: a hit leaves it exactly one period after it came (in ``limits``,
  just after that).
- A sliding window's weighted count is rounded up, so that no more than the limit is admitted.
- ``reset_time`` of an unused moving window is now (in ``limits``, a period from now).
- Limits of the same duration share one counter: 60 seconds and one minute, for example.
- Costs and amounts are ints and not below 0. An identifier whose text contains its address in
  memory is refused.
"""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from ._core import STRATEGIES as _ROWS
from ._core import RateLimiter
from .storage_methods import METHODS
from .stores.registry import StorageTypes

__all__ = ["STRATEGIES", "KnownStrategy", "RateLimiter"]

KnownStrategy = type[RateLimiter]

#: The words that replace the placeholders in a strategy's text when there is no limit.
_ANY_LIMIT = {
    "requests": "`amount` requests",
    "period": "one period",
    "most": "up to twice as many",
    "tokens": "`burst` tokens (default: `amount`)",
    "every": "period / amount",
    "wait": "`max_delay`",
    "calendar": "calendar period",
    "zone": "the zone `tz`",
}


def takes(name: str, option: str) -> bool:
    """Whether limits of a strategy may have ``burst``, ``max_delay`` or ``tz``."""
    return name in _ROWS and option in _ROWS[name][3]


def taking(option: str) -> str:
    """The strategy of a limit that has an option and names no strategy."""
    return next(name for name in _ROWS if takes(name, option))


def keeps_hits(name: str) -> bool:
    """Whether a strategy keeps each hit, and not a few numbers."""
    return name in _ROWS and _ROWS[name][4] == "log"


def described(name: str) -> str:
    """What a strategy does, for any limit."""
    return _ROWS[name][2].format(**_ANY_LIMIT)


def check_support(storage: object, name: str) -> None:
    """Refuse a storage written for ``limits`` that lacks what a strategy needs."""
    if getattr(storage, "counts_by_methods", False):
        needed = [method for method, strategy in METHODS.items() if strategy == name]
        if not needed or not all(hasattr(storage, method) for method in needed):
            raise NotImplementedError(
                f"a storage of type {type(storage).__name__} cannot count by {name}"
            )


class Watcher(Protocol):
    """An object that makes decisions without calling a limiter's methods."""

    def clear_plans(self) -> None:
        """A method of a limiter was replaced: check again whether to call the methods."""


#: The methods that tests replace to simulate a denial or an outage.
_REPLACED = ("hit", "test", "get_window_stats")

_watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()


def watch(watcher: Watcher) -> None:
    """Call ``watcher`` when a method of a limiter, or of its class, is replaced or restored."""
    _watchers.add(watcher)


def is_replaced(limiter: RateLimiter) -> bool:
    """Whether some of its methods were replaced.

    >>> from unittest import mock
    >>> from weir.storage import MemoryStorage
    >>> limiter = MovingWindowRateLimiter(MemoryStorage())
    >>> with mock.patch.object(MovingWindowRateLimiter, "hit"):
    ...     is_replaced(limiter)
    True
    >>> is_replaced(limiter)
    False
    """
    kind = type(limiter)
    return any(
        name in vars(limiter) or getattr(kind, name) is not getattr(RateLimiter, name)
        for name in _REPLACED
    )


def _changed(name: str) -> None:
    if name in _REPLACED:
        for watcher in list(_watchers):
            watcher.clear_plans()


class _Strategy(type):
    """The metaclass of limiters: notices when a method is replaced."""

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        _changed(name)

    def __delattr__(cls, name: str) -> None:
        super().__delattr__(name)
        _changed(name)


class _Replaceable(RateLimiter, metaclass=_Strategy):
    """A limiter whose methods can be replaced, by mocks for example; notices when they are."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        _changed(name)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        _changed(name)

    def __reduce__(self) -> Any:
        return _load_limiter, (type(self), self.storage, self.strategy), vars(self) or None


def _load_limiter(cls: type[RateLimiter], storage: StorageTypes, strategy: str) -> RateLimiter:
    """The limiter that was pickled or copied."""
    limiter = cls.__new__(cls)
    RateLimiter.__init__(limiter, storage, strategy)
    return limiter


def _limiter_of(name: str) -> KnownStrategy:
    """A class for one strategy."""

    def init(self: RateLimiter, storage: StorageTypes) -> None:
        check_support(storage, name)
        RateLimiter.__init__(self, storage, name)

    camel = "".join(part.capitalize() for part in name.split("-"))
    made: Any = _Strategy(
        f"{camel}RateLimiter",
        (_Replaceable,),
        {"__init__": init, "__module__": __name__, "__doc__": described(name)},
    )
    return made  # type: ignore[no-any-return]


#: The limiters by the names of their strategies.
STRATEGIES: dict[str, KnownStrategy] = {name: _limiter_of(name) for name in _ROWS}

#: Weir's own; what an application puts into STRATEGIES is not among them.
_BUILT_IN = dict(STRATEGIES)

globals().update({limiter.__name__: limiter for limiter in STRATEGIES.values()})
__all__ += [limiter.__name__ for limiter in STRATEGIES.values()]


def is_built_in(name: str) -> bool:
    """Whether a name in STRATEGIES still means what it means in Weir."""
    return name in _BUILT_IN and STRATEGIES.get(name) is _BUILT_IN[name]


def __getattr__(name: str) -> KnownStrategy:
    """For type checkers: every name that ends in RateLimiter is a limiter's class."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
