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
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

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
from .storage import StorageTypes, storage_from_string

__all__ = ["AsyncWeirStorage", "WeirStorage", "main"]

_SCHEMES = ("auto", "shm", "file")


P = ParamSpec("P")
R = TypeVar("R")


def _open(uri: str | None, options: dict[str, Any]) -> StorageTypes:
    """The store of a URI: ``weir+shm://name``, with ``async+`` before it or not."""
    place = (uri or "weir+auto://").removeprefix("async+").removeprefix("weir+")
    try:
        return storage_from_string(place, **options)
    except ConfigurationError as error:
        raise limits.errors.ConfigurationError(str(error)) from error


class WeirStorage(
    Counters,
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

    base_exceptions = StorageError

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any
    ) -> None:
        limits.storage.Storage.__init__(self, uri, wrap_exceptions=wrap_exceptions)
        Counters.__init__(self, _open(uri, options))


def _inline(method: Callable[Concatenate[Counters, P], R]) -> Callable[..., Coroutine[Any, Any, R]]:
    """A coroutine function that calls a method of the counters without waiting."""

    @wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(self.counters, *args, **kwargs)

    return call


class AsyncWeirStorage(
    limits.aio.storage.Storage,
    limits.aio.storage.MovingWindowSupport,
    limits.aio.storage.SlidingWindowCounterSupport,
):
    """The same for ``limits.aio``. A decision takes microseconds, so it is made at once."""

    STORAGE_SCHEME = [f"async+weir+{scheme}" for scheme in _SCHEMES]  # noqa: RUF012  (as limits has it)

    base_exceptions = StorageError

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self.counters = Counters(_open(uri, options))

    incr = _inline(Counters.incr)
    get = _inline(Counters.get)
    get_expiry = _inline(Counters.get_expiry)
    check = _inline(Counters.check)
    reset = _inline(Counters.reset)
    clear = _inline(Counters.clear)
    acquire_entry = _inline(Counters.acquire_entry)
    get_moving_window = _inline(Counters.get_moving_window)
    acquire_sliding_window_entry = _inline(Counters.acquire_sliding_window_entry)
    get_sliding_window = _inline(Counters.get_sliding_window)
    clear_sliding_window = _inline(Counters.clear_sliding_window)


def main(arguments: list[str] | None = None) -> None:
    """``python -m weir.for_limits [-m] program [arguments]``."""
    from .compat import run_program

    run_program("weir.for_limits", sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    # The same module under its own name, so that its classes are registered once.
    from weir.for_limits import main as run

    run()
