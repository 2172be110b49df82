"""How long a call of the store for PostgreSQL waits, and the meaning of its errors.

A row's lock concerns the requests of one client. The server ends the wait for it before the
deadline of the call, so its error arrives in time and is not mistaken for a silent server.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from .._clock import monotonic

__all__ = [
    "Call",
    "TurnTimeoutError",
    "Turns",
    "acquired",
    "is_early",
    "is_of_a_key",
    "local",
    "long_options",
    "server_options",
]

#: Shares of a call's remaining time: for the server's wait for one lock, and for one statement. The
#: rest is for the reply to arrive.
_LOCK, _STATEMENT = 0.6, 0.7

#: The share of the deadline that must remain so that a connection's own limits end in time.
_EARLY = 0.8

#: Seconds for what concerns many rows, such as a reset.
LONG = 30.0

#: Classes of SQLSTATE for errors of one row or of its value: invalid data, constraints, triggers,
#: conflicts, size limits. All others are about the server, the connection, the rights of the user,
#: or the functions.
_OF_A_KEY = ("22", "23", "27", "38", "39", "40", "44", "54", "P0")

#: lock_not_available; query_canceled, by a timeout or an administrator.
LOCKED, CANCELED = "55P03", "57014"


def is_of_a_key(state: str | None) -> bool:
    """Whether an error with this SQLSTATE is about the request's rows and not about the server.

    >>> is_of_a_key("55P03"), is_of_a_key("40001"), is_of_a_key("P0001")
    (True, True, True)
    >>> is_of_a_key("53300"), is_of_a_key("25006"), is_of_a_key("57P01"), is_of_a_key(None)
    (False, False, False, False)
    """
    return state is not None and (state in (LOCKED, CANCELED) or state[:2] in _OF_A_KEY)


def server_options(seconds: float) -> dict[str, int]:
    """The server's limits, in milliseconds, for a statement whose client waits ``seconds``."""
    return {
        "lock_timeout": max(1, int(seconds * _LOCK * 1000)),
        "statement_timeout": max(1, int(seconds * _STATEMENT * 1000)),
    }


def long_options(durable: bool, limited: bool) -> dict[str, Any]:
    """The settings for a transaction about many rows, whose commit is on the server's disk.

    durable: the connection has this setting already. limited: there is a deadline.
    """
    settings: dict[str, Any] = {} if durable else {"synchronous_commit": "local"}
    return settings | server_options(LONG) if limited else settings


def local(settings: Mapping[str, Any]) -> str:
    """Statements that change settings of the server until the transaction ends."""
    return "".join(f"SET LOCAL {name} = {value}; " for name, value in settings.items())


def is_early(until: float | None, deadline: float | None, now: float) -> bool:
    """Whether the limits of a connection that was opened with ``deadline`` end before ``until``."""
    if until is None or deadline is None:
        return until is None
    return until - now >= deadline * _EARLY


def acquired(lock: threading.Lock, until: float | None) -> bool:
    """Acquire a lock. False: that was not possible by ``until``, in monotonic seconds."""
    return lock.acquire(timeout=-1 if until is None else max(0.0, until - monotonic()))


class Call(threading.local):
    """The call of this thread."""

    #: Its deadline; ``None``: there is no call, or no deadline.
    until: float | None = None
    began = 0.0
    #: Whether it has waited for another thread with the same counter.
    waited = False
    #: Whether the server has answered.
    answered = False
    #: Whether the lock that it waited for is that of the whole table.
    table_locked = False
    #: Whether it is about more than the counters of one request.
    of_all = False

    def begin(self, until: float | None) -> None:
        self.until, self.began = until, monotonic()
        self.waited = self.answered = self.table_locked = False


class TurnTimeoutError(TimeoutError):
    """Other threads have used the same counter until the deadline."""


class _Waiting:
    """A thread that waits for counters."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.granted = False
        self.ready = threading.Lock()
        self.ready.acquire()


class Turns:
    """Makes threads that use the same counter take turns, first come, first served. At the server
    they would conflict, and repeat their decisions."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._waiting: list[_Waiting] = []
        self._lock = threading.Lock()

    def take(self, names: Sequence[str], until: float | None) -> bool:
        """Take counters until :meth:`leave`. Returns whether it has waited for another thread.

        Raises TurnTimeoutError at ``until``.
        """
        with self._lock:
            if not self._waiting and self._taken.isdisjoint(names):
                self._taken.update(names)
                return False
        waiting = _Waiting(names)
        try:
            with self._lock:
                self._waiting.append(waiting)
                self._grant()
                if waiting.granted:
                    return False
            if acquired(waiting.ready, until):
                return True
            raise TurnTimeoutError
        except BaseException:
            with self._lock:
                if waiting.granted:
                    self._taken.difference_update(names)
                elif waiting in self._waiting:
                    self._waiting.remove(waiting)
                self._grant()
            raise

    def leave(self, names: Sequence[str]) -> None:
        with self._lock:
            self._taken.difference_update(names)
            if self._waiting:
                self._grant()

    def _grant(self) -> None:
        """Wake threads whose counters no thread uses and no earlier thread waits for."""
        earlier: set[str] = set()
        still: list[_Waiting] = []
        for waiting in self._waiting:
            free = self._taken.isdisjoint(waiting.names)
            if free and earlier.isdisjoint(waiting.names):
                self._taken.update(waiting.names)
                waiting.granted = True
                waiting.ready.release()
            else:
                earlier.update(waiting.names)
                still.append(waiting)
        self._waiting = still
