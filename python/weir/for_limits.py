"""A storage for programs that keep Flask-Limiter, slowapi or another user of ``limits``.

Importing this module registers Weir's tables with the ``limits`` package that is installed::

    import weir.for_limits

    limiter = Limiter(get_remote_address, app=app, storage_uri="weir+auto://")

===================================  ======================================================
``weir+auto://``                     the workers of one server, see ``auto://``
``weir+shm://name``                  this host's processes of one user
``weir+file:///path``                a file that every process maps; survives them
``async+weir+auto://`` and so on     the same for ``limits.aio``: decided inline, in microseconds
===================================  ======================================================

Fixed windows, moving windows and sliding window counters are exact over all processes that share
the table. A program of which only the settings can be changed is started by
``python -m weir.for_limits -m gunicorn …``, which imports this module first.
"""

from __future__ import annotations

import sys
from typing import Any

from .errors import ConfigurationError, StorageError

if any(type(finder).__module__ == "weir.compat" for finder in sys.meta_path):
    raise ConfigurationError(
        "weir.for_limits is for programs that keep the limits package, but weir.compat replaces it"
        " in this process: use the storages auto://, shm://name and file:///path instead"
    )

try:
    import limits.aio.storage
    import limits.errors
    import limits.storage
except ImportError as error:
    raise ConfigurationError(
        "weir.for_limits needs the package limits, which it is a storage for: pip install limits"
    ) from error

from .counters import Counters
from .storage import storage_from_string

__all__ = ["AsyncWeirStorage", "WeirStorage", "main"]

_SCHEMES = ("auto", "shm", "file")


def _open(uri: str | None, options: dict[str, Any]) -> Counters:
    """The counters of a table. uri: ``weir+shm://name``, with ``async+`` before it or not."""
    place = (uri or "weir+auto://").removeprefix("async+").removeprefix("weir+")
    try:
        return Counters(storage_from_string(place, **options))
    except ConfigurationError as error:
        raise limits.errors.ConfigurationError(str(error)) from error


class WeirStorage(
    limits.storage.Storage,
    limits.storage.MovingWindowSupport,
    limits.storage.SlidingWindowCounterSupport,
):
    """A table of Weir's as a storage of ``limits``.

    :param uri: ``weir+auto://``, ``weir+shm://name`` or ``weir+file:///path``, with ``?keys=N``
    :param wrap_exceptions: raise errors of the table as ``limits.errors.StorageError``
    :param options: ``keys``, ``hits`` and ``rules``, see :class:`weir.Table`
    """

    STORAGE_SCHEME = [f"weir+{scheme}" for scheme in _SCHEMES]  # noqa: RUF012  (as limits has it)

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self.counters = _open(uri, options)

    @property
    def base_exceptions(self) -> type[Exception]:
        return StorageError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self.counters.incr(key, expiry, amount)

    def get(self, key: str) -> int:
        return self.counters.get(key)

    def get_expiry(self, key: str) -> float:
        return self.counters.get_expiry(key)

    def check(self) -> bool:
        return self.counters.check()

    def reset(self) -> int | None:
        return self.counters.reset()

    def clear(self, key: str) -> None:
        self.counters.clear(key)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return self.counters.acquire_entry(key, limit, expiry, amount)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        return self.counters.get_moving_window(key, limit, expiry)

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        return self.counters.acquire_sliding_window_entry(key, limit, expiry, amount)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        return self.counters.get_sliding_window(key, expiry)

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        self.counters.clear_sliding_window(key, expiry)


class AsyncWeirStorage(
    limits.aio.storage.Storage,
    limits.aio.storage.MovingWindowSupport,
    limits.aio.storage.SlidingWindowCounterSupport,
):
    """The same for ``limits.aio``. A decision takes microseconds, so it is made at once."""

    STORAGE_SCHEME = [f"async+weir+{scheme}" for scheme in _SCHEMES]  # noqa: RUF012  (as limits has it)

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self.counters = _open(uri, options)

    @property
    def base_exceptions(self) -> type[Exception]:
        return StorageError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self.counters.incr(key, expiry, amount)

    async def get(self, key: str) -> int:
        return self.counters.get(key)

    async def get_expiry(self, key: str) -> float:
        return self.counters.get_expiry(key)

    async def check(self) -> bool:
        return self.counters.check()

    async def reset(self) -> int | None:
        return self.counters.reset()

    async def clear(self, key: str) -> None:
        self.counters.clear(key)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return self.counters.acquire_entry(key, limit, expiry, amount)

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        return self.counters.get_moving_window(key, limit, expiry)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        return self.counters.acquire_sliding_window_entry(key, limit, expiry, amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        return self.counters.get_sliding_window(key, expiry)

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        self.counters.clear_sliding_window(key, expiry)


def main(arguments: list[str] | None = None) -> None:
    """``python -m weir.for_limits [-m] program [arguments]``."""
    from .compat import run_program

    run_program("weir.for_limits", sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    # The same module under its own name, so that its classes are registered once.
    from weir.for_limits import main as run

    run()
