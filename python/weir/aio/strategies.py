"""Limiters with coroutines: the names of ``limits.aio.strategies``, and two more."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from .. import _core
from .._core import HIT, REFUND, TEST, Limit, Verdict, WindowStats, join_key
from .._core import STRATEGIES as ROWS
from ..strategies import described
from .storage import LocalStorage, StoreStorage

__all__ = [
    "STRATEGIES",
    "FixedWindowRateLimiter",
    "MovingWindowRateLimiter",
    "RateLimiter",
    "SlidingWindowCounterRateLimiter",
]


def _replaces(storage: Any, *names: str) -> bool:
    """Whether the class of a storage has its own methods of one of these names."""
    return any(
        next(kind for kind in type(storage).__mro__ if name in vars(kind)).__module__
        != StoreStorage.__module__
        for name in names
    )


class RateLimiter:
    """One strategy over one store.

    :param storage: of :mod:`weir.aio.storage`, or one with the coroutines of ``limits``
    """

    strategy: ClassVar[str] = "fixed-window"

    #: The coroutines that a custom storage needs for it.
    _needs: ClassVar[tuple[str, ...]] = ("incr", "get", "get_expiry")

    def __init__(self, storage: Any) -> None:
        if not isinstance(storage, StoreStorage) and not all(
            hasattr(storage, name) for name in self._needs
        ):
            raise NotImplementedError(
                f"a storage of type {type(storage).__name__} cannot count by {self.strategy}"
            )
        self.storage = storage
        #: Whether the storage decides. If not, the strategy uses its coroutines, as limits does.
        self._decides = isinstance(storage, StoreStorage) and not _replaces(storage, *self._needs)
        self._removes = self._decides and not _replaces(storage, "clear", "clear_sliding_window")
        self._inline = self._direct()

    def _direct(self) -> Any:
        """A table is called directly: it answers faster than a switch of tasks."""
        local = isinstance(self.storage, LocalStorage) and not _replaces(self.storage, "decide")
        if local and self._decides:
            return _core.RateLimiter(self.storage.store, self.strategy)
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_inline"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._inline = self._direct()

    async def _verdict(
        self, item: Limit, identifiers: tuple[object, ...], cost: int, mode: int
    ) -> Verdict:
        if self._inline is not None:
            verdict: Verdict = self._inline.decide(item, *identifiers, cost=cost, mode=mode)
            return verdict
        limit = item if item.strategy else item.replace(strategy=self.strategy)
        return (await self.storage.decide(limit, join_key(*identifiers), cost, mode))[0]  # type: ignore[no-any-return]

    async def hit(self, item: Limit, *identifiers: object, cost: int = 1) -> bool:
        """Charge ``cost`` if there is room; return whether it was charged."""
        if self._inline is not None:
            return self._inline.hit(item, *identifiers, cost=cost)  # type: ignore[no-any-return]
        if self._decides:
            return (await self._verdict(item, identifiers, cost, HIT)).allowed
        return await self._hit(item, item.key_for(*identifiers), cost)

    async def test(self, item: Limit, *identifiers: object, cost: int = 1) -> bool:
        """Whether there is room for ``cost``; nothing is charged."""
        if self._decides:
            return (await self._verdict(item, identifiers, cost, TEST)).allowed
        return await self._used(item, item.key_for(*identifiers)) + cost <= item.amount

    async def decide(
        self, item: Limit, *identifiers: object, cost: int = 1, mode: int = HIT
    ) -> Verdict:
        """Like :meth:`hit`, but return the whole verdict; for Weir's own stores."""
        return await self._verdict(item, identifiers, cost, mode)

    async def refund(self, item: Limit, *identifiers: object, cost: int = 1) -> None:
        """Give back ``cost``, at most what is used; for Weir's own stores."""
        await self._verdict(item, identifiers, cost, REFUND)

    async def get_window_stats(self, item: Limit, *identifiers: object) -> WindowStats:
        """When the window resets, and the hits that remain."""
        if self._decides:
            verdict = await self._verdict(item, identifiers, 0, TEST)
            return WindowStats(verdict.reset_at, verdict.remaining)
        key = item.key_for(*identifiers)
        used = await self._used(item, key)
        return WindowStats(await self._reset(item, key), max(0, item.amount - used))

    async def clear(self, item: Limit, *identifiers: object) -> None:
        """Delete this counter."""
        if self._removes:
            limit = item if item.strategy else item.replace(strategy=self.strategy)
            await self.storage.remove(limit, join_key(*identifiers))
        else:
            await self._clear(item, item.key_for(*identifiers))

    # -- with the coroutines of limits: of a custom storage, or of a subclass that replaces some

    async def _hit(self, item: Limit, key: str, cost: int) -> bool:
        used: int = await self.storage.incr(key, item.get_expiry(), amount=cost)
        return used <= item.amount

    async def _used(self, item: Limit, key: str) -> int:
        used: int = await self.storage.get(key)
        return used

    async def _reset(self, item: Limit, key: str) -> float:
        reset: float = await self.storage.get_expiry(key)
        return reset

    async def _clear(self, item: Limit, key: str) -> None:
        await self.storage.clear(key)


class FixedWindowRateLimiter(RateLimiter):
    """Counts the hits of a window that opens with a key's first hit and lasts one period."""


class MovingWindowRateLimiter(RateLimiter):
    """Never admits more than the limit in any interval of one period."""

    strategy = "moving-window"
    _needs = ("acquire_entry", "get_moving_window")

    async def _hit(self, item: Limit, key: str, cost: int) -> bool:
        return bool(
            await self.storage.acquire_entry(key, item.amount, item.get_expiry(), amount=cost)
        )

    async def _used(self, item: Limit, key: str) -> int:
        used: int = (await self.storage.get_moving_window(key, item.amount, item.get_expiry()))[1]
        return used

    async def _reset(self, item: Limit, key: str) -> float:
        window = await self.storage.get_moving_window(key, item.amount, item.get_expiry())
        reset: float = window[0] + item.get_expiry()
        return reset


class SlidingWindowCounterRateLimiter(RateLimiter):
    """Weights the count of the previous window by its share of the last period."""

    strategy = "sliding-window-counter"
    _needs = ("acquire_sliding_window_entry", "get_sliding_window")

    async def _hit(self, item: Limit, key: str, cost: int) -> bool:
        expiry = item.get_expiry()
        return bool(
            await self.storage.acquire_sliding_window_entry(key, item.amount, expiry, amount=cost)
        )

    async def _used(self, item: Limit, key: str) -> int:
        expiry = item.get_expiry()
        before, left, current, _ = await self.storage.get_sliding_window(key, expiry)
        return int(before * left / expiry + current)

    async def _reset(self, item: Limit, key: str) -> float:
        expiry = item.get_expiry()
        before, left, current, ends = await self.storage.get_sliding_window(key, expiry)
        waits = [left % (expiry / before)] if before else []
        waits += [ends % expiry] if current else []
        return time.time() + min(waits, default=0.0)

    async def _clear(self, item: Limit, key: str) -> None:
        await self.storage.clear_sliding_window(key, item.get_expiry())


def _limiter_of(name: str) -> type[RateLimiter]:
    """A strategy that only Weir's own stores have."""
    return type(
        "".join(part.capitalize() for part in name.split("-")) + "RateLimiter",
        (RateLimiter,),
        {
            "strategy": name,
            "_needs": ("decide",),
            "__module__": __name__,
            "__doc__": described(name),
        },
    )


_OF_LIMITS = (FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter)

#: The limiters by the names of their strategies.
STRATEGIES: dict[str, type[RateLimiter]] = {kind.strategy: kind for kind in _OF_LIMITS}
STRATEGIES.update({name: _limiter_of(name) for name in ROWS if name not in STRATEGIES})

globals().update({limiter.__name__: limiter for limiter in STRATEGIES.values()})
__all__ += [limiter.__name__ for limiter in STRATEGIES.values() if limiter not in _OF_LIMITS]
