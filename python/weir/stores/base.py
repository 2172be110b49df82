"""Common parts of the remote stores: deadlines, errors, client libraries."""

from __future__ import annotations

import functools
import importlib
import select
import sys
from types import ModuleType
from typing import Any, NoReturn

from .._clock import monotonic
from ..errors import ConfigurationError, KeyRefusedError, StorageError, StoreAwayError

#: The default of ``socket_timeout``: seconds that a call may take.
DEADLINE = 0.25


def replaces_flask_limiter() -> bool:
    """Whether this process uses :mod:`weir.compat` in place of Flask-Limiter."""
    return any(type(finder).__module__ == "weir.compat" for finder in sys.meta_path)


def end_of(seconds: float | None) -> float | None:
    """The deadline of a call that begins now, in monotonic seconds; ``None``: no deadline."""
    return None if seconds is None else monotonic() + seconds


def left_until(end: float | None) -> float | None:
    """Seconds until the deadline ``end``. Raises TimeoutError if it has passed."""
    if end is None:
        return None
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def need(module: str, package: str, scheme: str) -> ModuleType:
    """Import a client library. The error says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        quoted = f"'{package}'" if "[" in package else package  # a pattern for some shells
        raise ConfigurationError(
            f"{scheme}:// needs the package {package}: pip install {quoted}"
        ) from error


def seconds(value: Any, name: str) -> float | None:
    """Validate a deadline in seconds; ``None``: no deadline."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ConfigurationError(f"{name} must be seconds above 0, or None, not {value!r}")
    return float(value)


def is_readable(sock: Any) -> bool:
    """Whether a socket is readable now; end of file counts."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def also(kind: Any, client: Any) -> type[StorageError]:
    """A class that is both ``kind`` and the client library's error: programs can catch either.

    Some libraries pass on errors of the system (``ConnectionRefusedError``).
    """
    if client.__module__.partition(".")[0] in CLIENTS or issubclass(client, OSError):
        return joined(kind, client)
    return kind  # type: ignore[no-any-return]


@functools.cache
def joined(kind: Any, client: Any) -> type[StorageError]:
    """A class that is both ``kind`` and ``client``, or ``kind`` if they cannot be combined."""
    if issubclass(kind, client):
        return kind  # type: ignore[no-any-return]
    members = {
        "__module__": kind.__module__,
        "__init__": StorageError.__init__,
        "__str__": Exception.__str__,
        "__repr__": Exception.__repr__,
    }
    try:
        return type(kind.__name__, (kind, client), members)
    except TypeError:  # the layouts of the classes conflict
        return kind  # type: ignore[no-any-return]


def raise_translated(translated: BaseException, error: BaseException) -> NoReturn:
    """Raise ``translated``, with the caught ``error`` as its cause.

    If both are the same object, its cause stays as it is: no error may be its own cause.
    """
    if translated is error:
        raise error
    raise translated from error


#: The libraries whose error classes are combined with Weir's.
CLIENTS = ("redis", "valkey", "pymemcache", "fakeredis", "psycopg", "pymongo")


def failure(
    store: str,
    error: BaseException | str,
    text: str = "",
    refused: bool = False,
    client: Any = None,
) -> StorageError:
    """The error to raise when a store could not decide.

    store: its address, without password. text: replaces the text of ``error``.
    refused: the key or cost of the request is the reason, not an outage.
    client: the client library's class that the error also has; by default that of ``error``.
    """
    text = text or str(error) or type(error).__name__
    kind: Any = KeyRefusedError if refused else StoreAwayError
    if isinstance(error, Exception):
        kind = also(kind, client or type(error))
    failed: StorageError = kind(f"{store}: {text}")
    if isinstance(failed, type(error)):
        vars(failed).update(vars(error))
    failed.storage_error = error if isinstance(error, Exception) else None
    return failed
