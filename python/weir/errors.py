"""The errors of Weir. A denial is not an error: it is a verdict.

Two kinds of errors mean that a store could not decide:

* :class:`StoreAwayError`: the server or the connection to it cannot be used: refused, timed out,
  out of memory, loading, read-only. ``error.is_outage`` is true. The policy about stores that are
  away applies (``open``, ``closed``, ``local``, ``swallow_errors``).
* :class:`KeyRefusedError`: this request cannot be decided, because of its own key or cost: a key
  of another type, a counter that others keep changing, a log that is full. ``error.is_outage`` is
  false. One client can cause it for itself, so it does not mean that the store is away: the
  request is refused under every policy, and the next request uses the store.

:func:`is_outage` distinguishes them, for any exception.
"""

from __future__ import annotations

import contextvars
import warnings

from ._core import ParseError, StorageError, TableError, WeirError
from ._text import LINE_MAX, printable

__all__ = [
    "ConcurrentUpdateError",
    "ConfigurationError",
    "KeyRefusedError",
    "ParseError",
    "StorageError",
    "StoreAwayError",
    "TableError",
    "WeirError",
    "WeirWarning",
    "is_outage",
]


class ConfigurationError(WeirError, ValueError):
    """A storage, strategy or option that does not exist."""


class StoreAwayError(StorageError):
    """No request can use the store. ``is_outage`` is true."""


class KeyRefusedError(StorageError):
    """The store cannot decide about this key, or this cost. ``is_outage`` is false."""

    is_outage = False


class ConcurrentUpdateError(KeyRefusedError):
    """Each attempt to change a counter collided with others; the name is the one in ``limits``."""

    def __init__(self, key: str, attempts: int) -> None:
        super().__init__(f"Unable to update {key} after {attempts} retries")


def is_outage(error: BaseException) -> bool:
    """Whether an error of a store means that the store itself is away.

    An error of the system is one (``OSError``: connections, deadlines), as is a
    :class:`StorageError` whose ``is_outage`` is not false; ``ValueError``, ``TypeError`` and the
    like concern the arguments of the request.

    >>> is_outage(ConnectionRefusedError()), is_outage(ValueError("cost must be 0 to 2**63-1"))
    (True, False)
    """
    if isinstance(error, WeirError):
        return error.is_outage
    return isinstance(error, OSError)


class WeirWarning(UserWarning):
    """Something works, but probably not as meant; the text says what to write instead."""


_held: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar(
    "weir warnings", default=None
)


def warn(message: str, *, stacklevel: int = 2) -> None:
    """Issue a :class:`WeirWarning` that points at the caller's caller."""
    message = printable(message, LINE_MAX)
    held = _held.get()
    if held is None:
        warnings.warn(message, WeirWarning, stacklevel=stacklevel + 1)
    else:
        held.append(message)


class WarnAfterwards:
    """A block whose calls of :func:`warn` are issued when it ends: ``with WarnAfterwards(), lock``.

    A warning may run code of the application, which may call us again or wait for other threads. So
    none is issued while a lock is held. Blocks inside others leave their warnings to the outermost.
    """

    _token: contextvars.Token[list[str] | None] | None

    def __enter__(self) -> None:
        self._token = _held.set([]) if _held.get() is None else None

    def __exit__(self, *error: object) -> None:
        if self._token is None:
            return
        messages = _held.get() or []
        _held.reset(self._token)
        for message in messages:
            warnings.warn(message, WeirWarning, stacklevel=3)
