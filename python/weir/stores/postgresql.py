"""PostgreSQL: ``postgresql://user:password@host:5432/database``, for applications without Redis.

A decision is one call of a function that the store creates on request (``weir store init``, or
``create=True``). The client steps its cached states of the counters, and the function writes the
result if the stored states are still the cached ones; otherwise it returns the stored states. That
is one round trip, or two if another process has changed a counter since. If other processes keep
changing it, the counters are locked, stepped, and written, in two round trips.

The server's clock is used: each reply contains its time, and a decision made with a time that was
off by more than :data:`TOLERANCE` is repeated.

The options of the URI are those of libpq. Connections come from the pool of psycopg.
"""

from __future__ import annotations

import inspect
import re
import select
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, frexp
from typing import Any

from .._clock import monotonic
from .._core import Decision, StateRequest, join_key
from ..errors import ConfigurationError, StorageError
from ._pq import BYTES, FLOAT, TEXT, Statement, array, read_array, read_float, write_float
from .base import DEADLINE, end_of, failure, need, seconds
from .hosts import check_uri
from .postgresql_schema import ALONE, LOCK, RESET, SWAP, TOLERANCE, WRITE, schema
from .state import Change, StateStorage

__all__ = ["TOLERANCE", "PostgreSQLStorage"]

#: How often a decision is repeated after conflicts before it locks.
_GUESSES = 2

#: Bounds of the cached states: counters, bytes in total, and bytes of one state.
_GUESSED, _GUESSED_BYTES, _LONGEST = 20_000, 2**24, 2**16

#: After a conflict, the name is locked at once for this many decisions.
_CONTENDED = 50

#: For a counter that is not changed.
_AT_ONCE = write_float(0.0)

#: Connections that a forked child inherited. They belong to the parent and are not closed.
_inherited: list[Any] = []


class _Guesses:
    """The last known value of a name on the server."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._contended: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, names: Sequence[str]) -> list[bytes | None]:
        return [self._values.get(name) for name in names]

    def learn(self, name: str, value: bytes | None) -> None:
        values = self._values
        with self._lock:
            self._bytes -= len(values.pop(name, b""))
            if value is None or len(value) > _LONGEST:
                return
            values[name] = value
            self._bytes += len(value)
            while len(values) > _GUESSED or self._bytes > _GUESSED_BYTES:
                self._bytes -= len(values.popitem(last=False)[1])

    def overtaken(self, names: Sequence[str]) -> None:
        with self._lock:
            for name in names:
                self._contended[name] = _CONTENDED
                if len(self._contended) > _GUESSED:
                    self._contended.popitem(last=False)

    def contended(self, names: Sequence[str]) -> bool:
        if not self._contended:
            return False
        with self._lock:
            found = [name for name in names if name in self._contended]
            for name in found:
                self._contended[name] -= 1
                if self._contended[name] <= 0:
                    del self._contended[name]
        return bool(found)


class _Turns:
    """Makes threads that use the same counter take turns. At the server they would conflict, and
    repeat their decisions."""

    def __init__(self) -> None:
        self._locks = [threading.Lock() for _ in range(1024)]

    @contextmanager
    def of(self, names: Sequence[str], until: float | None) -> Iterator[None]:
        held: list[threading.Lock] = []
        try:
            for number in sorted({hash(name) % len(self._locks) for name in names}):
                lock = self._locks[number]
                if not lock.acquire(timeout=-1 if until is None else max(0.0, until - monotonic())):
                    raise TimeoutError
                held.append(lock)
            yield
        finally:
            for lock in held:
                lock.release()


class PostgreSQLStorage(StateStorage):
    """Counters in a table of a database, changed by one function.

    :param uri: ``postgresql://…`` as libpq reads it
    :param key_prefix: the first part of all names
    :param remember_denials: seconds for which a denial may be repeated from memory; 0: never
    :param socket_timeout: the deadline of a call in seconds
    :param max_connections: of this process
    :param table: the table's name; the functions' names begin with it
    :param create: create what is missing when the store is first used, as ``weir store init`` does
    """

    def __init__(
        self,
        uri: str = "postgresql://",
        key_prefix: str | bytes = "weir",
        remember_denials: float = 60.0,
        socket_timeout: float | None = DEADLINE,
        max_connections: int = 16,
        table: str = "weir_states",
        create: bool = False,
        wrap_exceptions: bool = True,
        **options: Any,
    ) -> None:
        check_uri(uri)
        super().__init__(uri, key_prefix, remember_denials, **options)
        self._psycopg = need("psycopg", "psycopg[binary,pool]", "postgresql")
        self._pools = need("psycopg_pool", "psycopg[binary,pool]", "postgresql")
        if "timeout" not in inspect.signature(self._psycopg.Connection.wait).parameters:
            raise ConfigurationError("postgresql:// needs psycopg 3.3 or newer")
        self.deadline = seconds(socket_timeout, "socket_timeout")
        if not table.replace("_", "a").isalnum() or not table.isascii() or len(table) > 40:
            raise ConfigurationError("table: at most 40 letters, digits and _")
        self._table = table.lower()
        self._max = max(1, int(max_connections))
        self._create = create
        self._swap = Statement("weir_swap", SWAP.format(table=self._table), 5)
        self._read, self._write, self._reset = (
            text.format(table=self._table) for text in (LOCK, WRITE, RESET)
        )
        self._guesses, self._turns = _Guesses(), _Turns()
        #: The deadline of the call of this thread.
        self._calls = threading.local()
        self._ahead: float | None = None
        self._pool: Any = None
        self._opening, self._creating = threading.Lock(), threading.Lock()

    # -- connections

    def after_fork(self) -> None:
        if self._pool is not None:
            _inherited.append(self._pool)
        self._pool, self._guesses, self._turns = None, _Guesses(), _Turns()
        self._opening, self._creating = threading.Lock(), threading.Lock()

    def _opened(self) -> Any:
        self.notice_fork()
        with self._opening:
            if self._pool is None:
                options = " ".join(
                    [
                        "-c synchronous_commit=off",
                        "-c default_transaction_isolation=read\\ committed",
                        "-c plan_cache_mode=force_generic_plan",
                        "-c enable_seqscan=off",  # plans are reused although the table grows
                        # Ends statements whose client has given up.
                        *(
                            f"-c {name}={int(self.deadline * 2000) + 1000}"
                            for name in ("statement_timeout", "idle_in_transaction_session_timeout")
                            if self.deadline
                        ),
                    ]
                )
                self._pool = self._pools.ConnectionPool(
                    "postgresql://" + (self.uri or "").partition("://")[2],
                    connection_class=_connection_class(self._psycopg),
                    kwargs={
                        "autocommit": True,
                        "options": options,
                        "application_name": "weir",
                        **self._connect_timeout(),
                    },
                    min_size=1,
                    max_size=self._max,
                    timeout=self.deadline or 3600.0,
                    reconnect_timeout=0.5,
                    max_waiting=0,
                    open=False,
                    name="weir",
                )
                self._pool.open()
        return self._pool

    def _connect_timeout(self) -> dict[str, int]:
        """An end for attempts that the pool makes in the background, in whole seconds from 2.

        Without it one that gets no answer would keep the pool from making another.
        """
        if self.deadline is None or "connect_timeout=" in (self.uri or ""):
            return {}
        return {"connect_timeout": max(2, ceil(self.deadline))}

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """A connection for the exclusive use of this thread, within the deadline of the call."""
        until = getattr(self._calls, "until", None) or end_of(self.deadline)
        pool = self._opened()
        connection = self._take(pool, until)
        try:
            connection.until = until
            yield connection
        except BaseException as error:
            if not isinstance(error, self._psycopg.Error) or connection.broken:
                connection.close()  # replies may still arrive on it
            elif not connection.closed and connection.pgconn.transaction_status != 0:
                connection.close()
            raise
        finally:
            connection.until = None
            pool.putconn(connection)

    def _take(self, pool: Any, until: float | None) -> Any:
        """A connection whose server did not close it while it was idle."""
        while True:
            left = None if until is None else max(0.001, until - monotonic())
            connection = pool.getconn(left)
            if not connection.poll.poll(0):
                return connection
            connection.close()
            pool.putconn(connection)

    def failed(self, error: BaseException) -> BaseException:
        errors = self._psycopg.errors
        if isinstance(error, errors._WaitTimeout | self._pools.PoolTimeout | TimeoutError):
            return failure(self.name, error, f"no answer within {self.deadline:g} s")
        missing = isinstance(error, errors.UndefinedFunction | errors.UndefinedTable)
        if missing and self._table in str(error).split("\n")[0]:
            command = f"weir store init --store {self.name}"
            return failure(
                self.name, error, f"the table or its functions are missing: run `{command}` once"
            )
        if isinstance(error, self._psycopg.Error | self._pools.TooManyRequests | OSError):
            text = " ".join(str(error).split())
            return failure(self.name, error, text or type(error).__name__)
        return super().failed(error)

    # -- decisions

    def attempt(self, request: StateRequest) -> Decision:
        until = self._calls.until = end_of(self.deadline)
        try:
            if self._create:
                self._create_once()
            with self._turns.of(request.names, until):
                if not self._guesses.contended(request.names):
                    for _ in range(_GUESSES):
                        decision = self._guess(request)
                        if decision is not None:
                            return decision
                    self._guesses.overtaken(request.names)
                return self._step(request)
        except Exception as error:
            raise self.failed(error) from error
        finally:
            self._calls.until = None

    def _create_once(self) -> None:
        with self._creating:
            if self._create:
                self.init()
            self._create = False

    def _guess(self, request: StateRequest) -> Decision | None:
        """Decide with the cached states, in one round trip. ``None`` if they were out of date."""
        names = request.names
        moved, given = self._clock
        was = self._guesses.of(names)
        following: list[bytes | None] = [None] * len(names)
        expires = [_AT_ONCE] * len(names)
        decision, expected = None, 0.0  # no valid time: the function returns the stored states
        if given or self._ahead is not None:
            now = self.moment(monotonic() + (self._ahead or 0.0))
            decision, changes = request.decide(was, now)
            expected = now - moved
            ahead = self.ahead_of(now)
            for place, value, expires_at in changes:
                following[place] = value or b""
                expires[place] = write_float(_rounded(expires_at, now) + ahead)
        parameters = (
            array(TEXT, [name.encode() for name in names]),
            array(BYTES, was),
            array(BYTES, following),
            array(FLOAT, expires),
            None if given else write_float(expected),
        )
        with self._connection() as connection:
            sent = monotonic()
            theirs, *there = read_array(self._swap.run(connection, parameters).get_value(0, 0))
            self._ahead = read_float(theirs or b"") - (sent + monotonic()) / 2
        for name, value in zip(names, there or following, strict=True):
            if there or value is not None:
                self._guesses.learn(name, value)
        return None if there else decision

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with self._connection() as connection:
            yield connection
            if connection.pgconn.transaction_status != 0:
                connection.execute("COMMIT")

    def read(self, transaction: Any, names: Sequence[str]) -> dict[str, bytes]:
        cursor = self._psycopg.ClientCursor(transaction)
        cursor.execute(f"BEGIN; {self._read}", (list(names),))  # one round trip
        cursor.nextset()
        transaction.theirs, values = cursor.fetchone()
        there = {name: bytes(value) for name, value in zip(names, values, strict=True)}
        for name, value in there.items():
            self._guesses.learn(name, value)
        return there

    def now(self, transaction: Any) -> float:
        return float(transaction.theirs)

    def write(self, transaction: Any, changes: Sequence[Change]) -> None:
        cursor = self._psycopg.ClientCursor(transaction)
        now = self.moment(self.now(transaction))
        names = [change.name for change in changes]
        values = [change.value or b"" for change in changes]
        expires = [_rounded(change.expires_at, now) for change in changes]
        cursor.execute(f"{self._write}; COMMIT", (names, values, expires))
        for name, value in zip(names, values, strict=True):
            self._guesses.learn(name, value)

    # -- the rest

    def init(self) -> None:
        """Create the table and its functions, or update the functions."""
        with self.translating_errors(), self._connection() as connection:
            connection.until = None if self.deadline is None else monotonic() + 30.0
            with connection.transaction():
                connection.execute(ALONE)
                connection.execute(schema(self._table))

    def init_text(self) -> str:
        """The SQL that :meth:`init` would run."""
        return schema(self._table)

    def reset_of(self, own: str, _: object) -> None:
        """Forget the counters of one application of weir.flask, by its ``key_prefix``."""
        if not own:
            self.reset()
            return
        prefix, own = self._prefix.decode(), re.sub(r"([\\%_])", r"\\\1", join_key(own))
        with self.translating_errors(), self._connection() as connection:
            connection.until = None if self.deadline is None else monotonic() + 30.0
            connection.execute(
                f"DELETE FROM {self._table} WHERE name >= %s AND name < %s AND name LIKE %s",
                (f"{prefix}:", f"{prefix};", f"%:{{%/{own}}}/%"),
            )
        self._guesses = _Guesses()
        self._denials.clear()

    def reset(self) -> None:
        """Delete all counters with this prefix."""
        with self.translating_errors(), self._connection() as connection:
            connection.until = None if self.deadline is None else monotonic() + 30.0
            first, end = f"{self._prefix.decode()}:", f"{self._prefix.decode()};"
            while connection.execute(self._reset, (first, end)).rowcount:
                connection.until = None if self.deadline is None else monotonic() + 30.0
        self._guesses = _Guesses()
        self._denials.clear()

    def check(self) -> bool:
        try:
            with self.translating_errors(), self._connection() as connection:
                connection.execute(f"SELECT 1 FROM {self._table} LIMIT 1")
        except StorageError:
            return False
        return True

    def close(self) -> None:
        """Close all connections."""
        with self._opening:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(timeout=1.0)


def _rounded(expires_at: float, now: float) -> float:
    """Round up, by less than a quarter of the time left, so that most hits keep the column."""
    step = 2.0 ** (frexp(max(expires_at - now, 1.0))[1] - 3)
    return ceil(expires_at / step) * step


_classes: dict[type, type] = {}


def _connection_class(psycopg: Any) -> Any:
    """Connections whose waits end at the deadline of the whole call."""
    base: Any = psycopg.Connection
    if base not in _classes:

        class Connection(base):  # type: ignore[misc, unused-ignore]
            until: float | None = None
            theirs = 0.0

            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                self.prepared: set[bytes] = set()
                self.poll = select.poll()
                self.poll.register(self.pgconn.socket, select.POLLIN)

            def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
                if self.until is not None:
                    options["timeout"] = max(0.001, self.until - monotonic())
                return super().wait(gen, *arguments, **options)

            def fail(self, result: Any) -> None:
                raise psycopg.errors.error_from_result(result)

        _classes[base] = Connection
    return _classes[base]
