"""The connections of one process to a PostgreSQL server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import ceil
from typing import Any

from .._clock import monotonic
from ._pq import connection_class
from .postgresql_waits import server_options

__all__ = ["Connections", "Taken"]

#: Seconds after which the pool checks the age of a connection that is in constant use.
_IN_USE = 10.0

_IDLE = 0  # libpq's PQTRANS_IDLE


class Connections:
    """The pool of psycopg, and the connection that was used last.

    That one is not returned to the pool after each use: the pool takes a fifth of the time of a
    decision to take and hand out a connection, and hands out the one that was unused for longest,
    whose process at the server then has to warm up.
    """

    def __init__(
        self,
        psycopg: Any,
        pools: Any,
        uri: str,
        deadline: float | None,
        most: int,
        durable: bool = False,
    ) -> None:
        self._pool = pools.ConnectionPool(
            "postgresql://" + uri.partition("://")[2],
            connection_class=connection_class(psycopg),
            kwargs={
                "autocommit": True,
                "options": _options(deadline, durable),
                "application_name": "weir",
                **_connect_timeout(uri, deadline),
            },
            min_size=1,
            max_size=most,
            timeout=deadline or 3600.0,
            reconnect_timeout=0.5,
            max_waiting=0,
            open=False,
            name="weir",
        )
        #: The deadline that the limits of connections at the server are made for.
        self.deadline = deadline
        self._last: list[Any] = []
        self._lock = threading.Lock()
        #: Threads that wait for a connection from the pool.
        self._waiting = 0
        self._pool.open()

    def take(self, until: float | None) -> Any:
        """A connection whose server did not close it while it was idle."""
        connection = self._last_used() or self._from_pool(until)
        while connection.poll.poll(0):
            connection.close()
            self._pool.putconn(connection)
            connection = self._from_pool(until)
        return connection

    def _last_used(self) -> Any:
        try:
            return self._last.pop()
        except IndexError:
            return None

    def _from_pool(self, until: float | None) -> Any:
        with self._lock:
            self._waiting += 1
        try:
            connection = self._last_used()
            if connection is None:
                left = None if until is None else max(0.001, until - monotonic())
                connection = self._pool.getconn(left)
                connection.given = self.deadline
                connection.return_at = monotonic() + _IN_USE
            return connection
        finally:
            with self._lock:
                self._waiting -= 1

    def give_back(self, connection: Any) -> None:
        usable = connection.pgconn.transaction_status == _IDLE
        if not usable or self._last or monotonic() >= connection.return_at:
            self._pool.putconn(connection)
            return
        self._last.append(connection)
        # A thread that did not find it here may wait for the pool now.
        if self._waiting and (last := self._last_used()):
            self._pool.putconn(last)

    def close(self) -> None:
        last = self._last_used()
        if last is not None:
            self._pool.putconn(last)
        self._pool.close(timeout=1.0)


class Taken:
    """A connection for a block. ``recover`` is called if the block raises."""

    __slots__ = ("_connection", "_connections", "_recover", "_until")

    def __init__(
        self,
        connections: Connections,
        until: float | None,
        recover: Callable[[Any, BaseException], None],
    ) -> None:
        self._connections, self._until, self._recover = connections, until, recover

    def __enter__(self) -> Any:
        self._connection = connection = self._connections.take(self._until)
        connection.until = self._until
        return connection

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        connection = self._connection
        try:
            if error is not None:
                self._recover(connection, error)
        finally:
            connection.until = None
            self._connections.give_back(connection)


def _options(deadline: float | None, durable: bool) -> str:
    limits = {} if deadline is None else server_options(deadline)
    if deadline:  # of a client that has gone away
        limits["idle_in_transaction_session_timeout"] = int(deadline * 2000) + 1000
    return " ".join(
        [
            f"-c synchronous_commit={'on' if durable else 'off'}",
            "-c default_transaction_isolation=read\\ committed",
            "-c plan_cache_mode=force_generic_plan",
            "-c enable_seqscan=off",  # plans are reused although the table grows
            *(f"-c {name}={limit}" for name, limit in limits.items()),
        ]
    )


def _connect_timeout(uri: str, deadline: float | None) -> dict[str, int]:
    """An end for attempts that the pool makes in the background, in whole seconds from 2.

    Without it one that gets no answer would keep the pool from making another.
    """
    if deadline is None or "connect_timeout=" in uri:
        return {}
    return {"connect_timeout": max(2, ceil(deadline))}
