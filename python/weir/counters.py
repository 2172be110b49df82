"""The storage interface of ``limits``, over the stores of Weir: counters by the text of their keys.

>>> from weir import Table
>>> counters = Counters(Table("memory://?keys=1000"))
>>> [counters.incr("LIMITER/alice/2/1/minute", 60) for _ in range(3)]
[1, 2, 3]
>>> counters.get("LIMITER/alice/2/1/minute")
2

A key that ends as those of items do, ``…/amount/multiples/unit``, is the very counter that a
limiter uses for the item, under its own name in statistics and in ``weir top``. A hit that
a limiter would refuse returns a number above the amount and charges nothing. Any other key counts
without a bound; its period or limit is stored beside it for all processes that share the store.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache, partial
from typing import Any
from weakref import WeakKeyDictionary

from ._core import HIT, REFUND, TEST, Decision, Limit, StorageError, Verdict
from .limits import GRANULARITIES, TIME_TYPES, in_units, split_key

__all__ = ["Counters", "Counts", "StorageInterface"]

#: ``namespace/identifiers/amount/multiples/unit``
_ITEM = re.compile(r"([^/!][^/]*)(?:/(.*))?/(\d{1,18})/(\d{1,10})/([^/\d]+)", re.DOTALL)

#: The bound of counters that have none; remote stores keep numbers as doubles.
_UNBOUNDED = 2**50

_CENTURY = (100, "year")

#: The namespaces of other keys, and of the values stored beside them.
_BARE = "key"
_BESIDE = "!key"


def _whole(seconds: float) -> int:
    """A period of whole seconds, at least one."""
    return max(1, int(seconds) + (int(seconds) < seconds))


@lru_cache(maxsize=4096)
def _limit(amount: int, seconds: int, strategy: str, namespace: str) -> Limit:
    return Limit(amount, *in_units(seconds), strategy=strategy, namespace=namespace)


class _Key:
    """The parts of a key: the counter, and for an item also its amount and period."""

    __slots__ = ("amount", "joined", "namespace", "seconds")

    def __init__(self, text: str) -> None:
        self.namespace, self.joined = _BARE, text
        self.amount = self.seconds = 0
        found = _ITEM.fullmatch(text)
        if found is None:
            return
        namespace, joined, amount, multiples, name = found.groups()
        unit: Any = TIME_TYPES.get(name) or getattr(GRANULARITIES.get(name), "GRANULARITY", None)
        named = split_key(namespace)[0]
        if unit is None or not isinstance(named, str) or not int(multiples) > 0:
            return
        seconds = unit.seconds * int(multiples)
        if seconds <= 3_110_400_000:
            self.namespace, self.joined = named, joined or ""
            self.amount, self.seconds = int(amount), seconds

    def limit(self, strategy: str) -> Limit:
        """The limit of the item whose key this is."""
        return _limit(self.amount, self.seconds, strategy, self.namespace)


class Counters:
    """Counters of a store, by key.

    :param store: a :class:`weir.Table` or another store of Weir's
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        # A subclass whose methods decide calls us from within these.
        native = getattr(type(store), "_native_decide", None)
        self._decide = store.decide if native is None else partial(native, store)
        native = getattr(type(store), "_native_clear", None)
        self._clear = store.clear if native is None else partial(native, store)

    def _verdict(self, limit: Limit, key: str, cost: int, mode: int) -> Verdict:
        decision: Decision = self._decide([limit], [key], [cost], mode)
        return decision[0]

    # -- numbers that are kept beside the counters of bare keys

    def _beside(self, what: str, key: str) -> int:
        limit = _limit(_UNBOUNDED, 3_110_400_000, "fixed-window", f"{_BESIDE}-{what}")
        return limit.amount - self._verdict(limit, key, 0, TEST).remaining

    def _put_beside(self, what: str, key: str, number: int) -> None:
        if number and len(known_here := _beside_here(self._store)) < _REMEMBERED:
            known_here.add((what, key))
        limit = _limit(_UNBOUNDED, 3_110_400_000, "fixed-window", f"{_BESIDE}-{what}")
        known = limit.amount - self._verdict(limit, key, 0, TEST).remaining
        if known > number:
            self._verdict(limit, key, known - number, REFUND)
        elif known < number:
            self._verdict(limit, key, number - known, HIT)

    def _window(self, key: str, expiry: float | None = None) -> tuple[Limit, str] | None:
        """The counter of a key; None: there is none, and no expiry is given to make one with.

        As with ``limits``, the expiry of a window that is open stays as it was.
        """
        named = _Key(key)
        if named.seconds and expiry in (None, named.seconds):
            return named.limit("fixed-window"), named.joined
        kept = self._beside("expiry", key)
        if kept:
            open_one = _limit(_UNBOUNDED, kept, "fixed-window", _BARE)
            if expiry is None or self._verdict(open_one, key, 0, TEST).remaining < _UNBOUNDED:
                return open_one, key
        if expiry is None:
            return None
        seconds = _whole(expiry)
        if seconds != kept:
            self._put_beside("expiry", key, seconds)
        return _limit(_UNBOUNDED, seconds, "fixed-window", _BARE), key

    # -- fixed windows

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add ``amount``; what the counter would be then."""
        window = self._window(key, expiry)
        assert window is not None
        verdict = self._verdict(*window, amount, HIT)
        used = window[0].amount - verdict.remaining
        return used if verdict.allowed else used + amount

    def decr(self, key: str, amount: int = 1) -> int:
        """Subtract ``amount``, not below 0. Returns the new value."""
        window = self._window(key)
        if window is None:
            return 0
        return window[0].amount - self._verdict(*window, amount, REFUND).remaining

    def get(self, key: str) -> int:
        window = self._window(key)
        return 0 if window is None else window[0].amount - self._verdict(*window, 0, TEST).remaining

    def get_expiry(self, key: str) -> float:
        """When the window ends, in seconds since the epoch; now, if none is open."""
        window = self._window(key)
        return time.time() if window is None else self._verdict(*window, 0, TEST).reset_at

    def clear(self, key: str) -> None:
        """Delete the counters of a key."""
        named = _Key(key)
        if named.seconds:
            limits = [named.limit(name) for name in ("fixed-window", "moving-window")]
            limits += [named.limit("sliding-window-counter")]
            self._clear(limits, [named.joined] * len(limits))
        window = self._window(key) if named.seconds == 0 or self._beside("expiry", key) else None
        if window is not None:
            self._clear([window[0]], [window[1]])
        for strategy in ("moving-window", "sliding-window-counter"):
            kept = self._beside(strategy, key)
            expiry = self._beside(f"{strategy}-expiry", key)
            if kept and expiry:
                self._clear([_limit(kept - 1, expiry, strategy, _BARE)], [key])

    # -- the other strategies

    def _other(
        self, key: str, strategy: str, limit: int | None, expiry: float, write: bool = False
    ) -> tuple[Limit, str] | None:
        """The counter of a strategy, by limit and expiry."""
        named = _Key(key)
        seconds = _whole(expiry)
        if named.seconds == seconds and limit in (None, named.amount):
            return named.limit(strategy), named.joined
        if limit is None:
            kept = self._beside(strategy, key)
            return (_limit(kept - 1, seconds, strategy, _BARE), key) if kept else None
        if write:
            self._put_beside(strategy, key, limit + 1)
            self._put_beside(f"{strategy}-expiry", key, seconds)
        return _limit(limit, seconds, strategy, _BARE), key

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Whether ``amount`` entries were added to a moving window of ``limit``."""
        counter = self._other(key, "moving-window", limit, expiry, write=True)
        assert counter is not None
        return self._verdict(*counter, amount, HIT).allowed

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest entry came, or now, and how many there are."""
        counter = self._other(key, "moving-window", limit, expiry)
        assert counter is not None
        verdict = self._verdict(*counter, 0, TEST)
        used = limit - verdict.remaining
        return (verdict.reset_at - _whole(expiry), used) if used else (time.time(), 0)

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Whether ``amount`` was added to a sliding window counter of ``limit``."""
        counter = self._other(key, "sliding-window-counter", limit, expiry, write=True)
        assert counter is not None
        return self._verdict(*counter, amount, HIT).allowed

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """(0, 0.0, the weighted count, seconds until it shrinks).

        The weighted count stands where ``limits`` has that of the current window alone: what is
        made of the four numbers is the same.
        """
        counter = self._other(key, "sliding-window-counter", None, expiry)
        if counter is None:
            return 0, 0.0, 0, 0.0
        now = time.time()
        verdict = self._verdict(*counter, 0, TEST)
        left = max(0.0, min(verdict.reset_at - now, _whole(expiry) - 1e-6))
        return 0, 0.0, counter[0].amount - verdict.remaining, left

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        counter = self._other(key, "sliding-window-counter", None, expiry)
        if counter is not None:
            self._clear([counter[0]], [counter[1]])

    # -- the whole

    def check(self) -> bool:
        return bool(self._store.check())

    def count(self) -> int:
        """The number of counters; 0 if it is unknown."""
        if not hasattr(self._store, "info"):
            return 0
        written = _beside_here(self._store)
        written &= {pair for pair in written if self._beside(*pair) > 0}
        return max(0, int(self._store.info()["keys"]) - len(written))

    def reset(self) -> int:
        """Delete all counters. Returns their number."""
        count = self.count()
        return int(self._store.reset() or count)


#: The values beside counters that this process has written, by store, so that they can be left
#: out when counters are counted.
_written: WeakKeyDictionary[Any, set[tuple[str, str]]] = WeakKeyDictionary()
_REMEMBERED = 10_000


def _beside_here(store: Any) -> set[tuple[str, str]]:
    return _written.setdefault(store, set())


class Counts:
    """What ``storage.storage`` is to users of ``limits``: a store's counters by their keys.

    A table keeps hashes of keys, so the keys themselves cannot be listed.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def __getitem__(self, key: str) -> int:
        return self._counters.get(key)

    def get(self, key: str, default: int | None = None) -> int | None:
        return self._counters.get(key) or default

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._counters.get(key) > 0

    def pop(self, key: str, default: int | None = None) -> int | None:
        count = self._counters.get(key) or default
        self._counters.clear(key)
        return count

    def clear(self) -> None:
        self._counters.reset()

    def __len__(self) -> int:
        return self._counters.count()

    def __iter__(self) -> Any:
        raise TypeError(
            "a table does not store keys, so its counters cannot be listed; look them up by key"
        )


class StorageInterface:
    """The documented methods of a storage of ``limits``, for a store that has ``decide()``."""

    __slots__ = ()

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """The exceptions that these methods raise during an outage."""
        return StorageError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to the counter of a key. Returns the value that it would have."""
        return Counters(self).incr(key, expiry, amount)

    def decr(self, key: str, amount: int = 1) -> int:
        """Subtract, not below 0. Returns the new value."""
        return Counters(self).decr(key, amount)

    def get(self, key: str) -> int:
        """The counter of a key."""
        return Counters(self).get(key)

    def get_expiry(self, key: str) -> float:
        """When the window of a key ends; now, if none is open."""
        return Counters(self).get_expiry(key)

    def clear_key(self, key: str) -> None:
        """Remove the counters of a key: ``clear(key)`` calls this."""
        Counters(self).clear(key)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Whether there was room in a moving window."""
        return Counters(self).acquire_entry(key, limit, expiry, amount)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest entry came, and how many there are."""
        return Counters(self).get_moving_window(key, limit, expiry)

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Whether there was room in a sliding window counter."""
        return Counters(self).acquire_sliding_window_entry(key, limit, expiry, amount)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """See :meth:`Counters.get_sliding_window`."""
        return Counters(self).get_sliding_window(key, expiry)

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        Counters(self).clear_sliding_window(key, expiry)
