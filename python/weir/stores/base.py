"""What the stores on other machines share: the clock, deadlines, errors, client libraries."""

from __future__ import annotations

import functools
import importlib
import select
import sys
from types import ModuleType
from typing import Any

from .._clock import monotonic
from ..errors import ConfigurationError, KeyRefusedError, StorageError, StoreAwayError

#: Seconds that a call may take unless ``socket_timeout`` says otherwise.
DEADLINE = 0.25


def replaces_flask_limiter() -> bool:
    """Whether Weir is in the place of Flask-Limiter and limits here (:mod:`weir.compat`)."""
    return any(type(finder).__module__ == "weir.compat" for finder in sys.meta_path)


def end_of(seconds: float | None) -> float | None:
    """The moment until which a call that begins now may take; ``None``: as long as it likes."""
    return None if seconds is None else monotonic() + seconds


def left_until(end: float | None) -> float | None:
    """Seconds that are left of a call. TimeoutError: none are."""
    if end is None:
        return None
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def need(module: str, package: str, scheme: str) -> ModuleType:
    """Import a client library, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"{scheme}:// needs the package {package}: pip install {package}"
        ) from error


def seconds(value: Any, name: str) -> float | None:
    """A deadline that is one; ``None``: there is none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ConfigurationError(f"{name} must be seconds above 0, or None, not {value!r}")
    return float(value)


def is_readable(sock: Any) -> bool:
    """Whether a socket has something to read at this moment, be it the end."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def also(kind: Any, client: Any) -> type[StorageError]:
    """``kind`` that is an error of the client library, too: programs catch these by their names.

    Some libraries let errors of the system through (``ConnectionRefusedError``).
    """
    if client.__module__.partition(".")[0] in CLIENTS or issubclass(client, OSError):
        return joined(kind, client)
    return kind  # type: ignore[no-any-return]


@functools.cache
def joined(kind: Any, client: Any) -> type[StorageError]:
    """``kind`` that is an error of the class ``client``, too, where that is possible."""
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
    except TypeError:  # it is made in a way that cannot be joined
        return kind  # type: ignore[no-any-return]


#: The libraries whose errors a failure is an instance of, too.
CLIENTS = ("redis", "valkey", "pymemcache", "fakeredis", "psycopg", "pymongo")


def failure(
    store: str,
    error: BaseException | str,
    text: str = "",
    refused: bool = False,
    client: Any = None,
) -> StorageError:
    """The error to raise when ``store``, an address that may be shown, could not decide.

    text: what to say of ``error`` instead of its own words.
    refused: because of the key or the cost that was asked about, not because of the store.
    client: the class of the client library's error that it is, too; by default that of ``error``.
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
