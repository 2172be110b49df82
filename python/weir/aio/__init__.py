"""Limits for programs that use asyncio: the names of ``limits.aio``.

>>> import asyncio
>>> from weir import parse
>>> from weir.aio.strategies import MovingWindowRateLimiter
>>> from weir.aio.storage import storage_from_string
>>> async def main():
...     limiter = MovingWindowRateLimiter(storage_from_string("async+memory://?keys=1000"))
...     return [await limiter.hit(parse("1/minute"), "alice") for _ in range(2)]
>>> asyncio.run(main())
[True, False]

A table decides in microseconds, so it is called directly. Redis and Valkey are called through
``redis.asyncio`` and ``valkey.asyncio``, other stores in a thread.
"""

from __future__ import annotations

from . import storage, strategies

__all__ = ["storage", "strategies"]
