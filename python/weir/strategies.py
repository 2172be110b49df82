"""Limiters by strategy, with the names of ``limits.strategies`` and two more.

>>> from weir import parse
>>> from weir.storage import MemoryStorage
>>> limiter = MovingWindowRateLimiter(MemoryStorage())
>>> limiter.hit(parse("1/minute"), "login", "alice")
True
>>> limiter.hit(parse("1/minute"), "login", "alice")
False
>>> limiter.get_window_stats(parse("1/minute"), "login", "alice").remaining
0

An item that has a strategy of its own (``"10/minute burst 20"`` is a token bucket) keeps it.

Where ``limits`` answers otherwise:

- A denied hit charges nothing under any strategy (there, it fills a fixed window by its cost).
- A moving window is half open: a hit leaves exactly one period after it came (there, just after).
- A sliding window's weighted count is rounded up, so that no more than the limit is let through.
- ``reset_time`` of a moving window that nobody has used is now (there, a period from now).
- Limits of one length are one counter, however they are written: 60 seconds are a minute.
- Costs and amounts are ints and not below 0. An identifier whose text is its address in memory is
  refused.
"""

from __future__ import annotations

from ._core import RateLimiter
from ._storage import StorageTypes

__all__ = [
    "STRATEGIES",
    "FixedWindowRateLimiter",
    "KnownStrategy",
    "LeakyBucketRateLimiter",
    "MovingWindowRateLimiter",
    "RateLimiter",
    "SlidingWindowCounterRateLimiter",
    "TokenBucketRateLimiter",
]


class FixedWindowRateLimiter(RateLimiter):
    """Counts the hits of a window that opens with a key's first hit and lasts one period."""

    def __init__(self, storage: StorageTypes) -> None:
        super().__init__(storage, "fixed-window")


class MovingWindowRateLimiter(RateLimiter):
    """Never admits more than the limit in any period, wherever it begins."""

    def __init__(self, storage: StorageTypes) -> None:
        super().__init__(storage, "moving-window")


class SlidingWindowCounterRateLimiter(RateLimiter):
    """Weighs the last window's count by the share of it that a period back still covers."""

    def __init__(self, storage: StorageTypes) -> None:
        super().__init__(storage, "sliding-window-counter")


class TokenBucketRateLimiter(RateLimiter):
    """A bucket of ``burst`` tokens (default: the limit's amount), refilled evenly."""

    def __init__(self, storage: StorageTypes) -> None:
        super().__init__(storage, "token-bucket")


class LeakyBucketRateLimiter(RateLimiter):
    """Lets requests go evenly spaced; ``decide()`` tells how long one has to wait for its turn."""

    def __init__(self, storage: StorageTypes) -> None:
        super().__init__(storage, "leaky-bucket")


KnownStrategy = (
    type[FixedWindowRateLimiter]
    | type[MovingWindowRateLimiter]
    | type[SlidingWindowCounterRateLimiter]
    | type[TokenBucketRateLimiter]
    | type[LeakyBucketRateLimiter]
)

#: The limiters by the names of their strategies.
STRATEGIES: dict[str, KnownStrategy] = {
    "fixed-window": FixedWindowRateLimiter,
    "moving-window": MovingWindowRateLimiter,
    "sliding-window-counter": SlidingWindowCounterRateLimiter,
    "token-bucket": TokenBucketRateLimiter,
    "leaky-bucket": LeakyBucketRateLimiter,
}
