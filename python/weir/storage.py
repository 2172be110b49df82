"""Stores, from a URI or by name, and how to write one.

===============================  ==========================================================
``memory://``                    private to this process
``shm://name``                   shared by this host's processes of one user
``file:///path``                 a file that every process maps; survives them
``auto://``                      the workers of one server: ``shm://`` scoped to gunicorn's or
                                 uWSGI's master, ``memory://`` where there is none
===============================  ==========================================================

All take ``?keys=N&hits=N&rules=N`` or the options of the same names, ``shm://`` and ``file://``
also ``group=NAME`` (see :class:`weir.Table`).

A custom store is a class with the methods ``decide()`` and ``clear()`` of :class:`Storage`. It
works with every limiter:

>>> import time
>>> from weir import HIT, REFUND, Decision, Verdict, parse, strategies
>>> class DictStorage(Storage):
...     # Fixed windows of the clock, in a dict that only grows.
...     STORAGE_SCHEME = ("dict",)
...
...     def __init__(self, uri=None, **options):
...         super().__init__(uri, **options)
...         self.counts = {}
...
...     def decide(self, limits, keys, costs=None, mode=HIT, /):
...         now = time.time()
...         verdicts = []
...         for limit, key, cost in checks(limits, keys, costs):
...             window = now // limit.get_expiry()
...             name = (limit.full_key(key), window)
...             end = (window + 1) * limit.get_expiry()
...             left = limit.amount - self.counts.get(name, 0)
...             allowed = mode == REFUND or cost <= left
...             retry = 0.0 if allowed else end - now
...             verdicts.append(Verdict(allowed, limit.amount, left, end, retry, 0.0))
...             ...  # and charge, give back, or leave as it is
...         return Decision(verdicts, deciding(limits, verdicts), now)
...
...     def clear(self, limits, keys, /):
...         for limit, key, _ in checks(limits, keys):
...             self.counts.pop((limit.full_key(key), time.time() // limit.get_expiry()), None)
...
>>> storage = storage_from_string("dict://")
>>> strategies.FixedWindowRateLimiter(storage).hit(parse("10/minute"), "alice")
True
"""

from __future__ import annotations

from .stores.failover import FailoverStorage, Guarded
from .stores.registry import (  # noqa: F401
    SCHEMES,
    SIZES,
    Factory,
    Keys,
    MemoryStorage,
    Storage,
    StorageTypes,
    _open_table,
    checks,
    deciding,
    register,
    storage_from_string,
    with_sizes,
)

__all__ = [
    "SCHEMES",
    "FailoverStorage",
    "Guarded",
    "MemoryStorage",
    "Storage",
    "StorageTypes",
    "checks",
    "deciding",
    "register",
    "storage_from_string",
]
