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
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, frexp
from typing import Any

from .._clock import monotonic
from .._core import Decision, StateRequest
from ..errors import ConfigurationError, StorageError
from .base import DEADLINE, end_of, failure, need, raise_translated, seconds
from .hosts import check_uri
from .postgresql_connections import Connections, Taken
from .postgresql_creation import ALONE, create, script
from .postgresql_guesses import Guesses
from .postgresql_schema import (
    FREE,
    LOCK,
    NOTE,
    NOTES,
    OF_NONE,
    OF_ONE,
    RESET,
    TOLERANCE,
    WRITE,
    schema,
)
from .postgresql_swap import Swap
from .postgresql_waits import (
    CANCELED,
    LOCKED,
    LONG,
    Call,
    Turns,
    TurnTimeoutError,
    acquired,
    is_early,
    is_of_a_key,
    local,
    long_options,
    server_options,
)
from .state import TRIES, Change, StateStorage
from .tenants import KNOWN_TTL, OwnPrefixes

__all__ = ["TOLERANCE", "PostgreSQLStorage"]

#: How often a decision is repeated after conflicts before it locks.
_GUESSES = 2

#: Connections that a forked child inherited. They belong to the parent and are not closed.
_inherited: list[Any] = []


class PostgreSQLStorage(StateStorage):
    """Counters in a table of a database, changed by one function.

    :param uri: ``postgresql://…`` as libpq reads it
    :param key_prefix: the first part of all names
    :param remember_denials: seconds for which a denial may be repeated from memory; 0: never
    :param socket_timeout: the deadline of a call in seconds
    :param max_connections: of this process
    :param table: the table's name; the functions' names begin with it
    :param durable: answer when a hit is on the server's disk, so that a crash loses none
    :param create: create what is missing, within the deadline of a call: when the store is first
        used, and after an error that says so
    """

    def __init__(
        self,
        uri: str = "postgresql://",
        key_prefix: str | bytes = "weir",
        remember_denials: float = 60.0,
        socket_timeout: float | None = DEADLINE,
        max_connections: int = 16,
        table: str = "weir_states",
        durable: bool = False,
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
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,39}", table):
            raise ConfigurationError(
                f"table: a letter or _, then letters, digits and _; at most 40, not {table!r}"
            )
        self._table = table.lower()
        self._max = max(1, int(max_connections))
        self._durable, self._create = durable, create
        #: Whether the table or a function may be missing, and is to be created.
        self._incomplete = create
        self._swap = Swap(self._table)
        self._read, self._write = (text.format(table=self._table) for text in (LOCK, WRITE))
        self._prefixes = OwnPrefixes(self._prefix.decode())
        self._guesses, self._turns = Guesses(), Turns()
        self._call = Call()
        #: When the server was last found silent, in monotonic seconds.
        self._silent_at = 0.0
        self._ahead: float | None = None
        self._connections: Connections | None = None
        self._opening, self._creating = threading.Lock(), threading.Lock()

    # -- connections

    def after_fork(self) -> None:
        if self._connections is not None:
            _inherited.append(self._connections)
        self._connections, self._guesses, self._turns = None, Guesses(), Turns()
        self._opening, self._creating = threading.Lock(), threading.Lock()

    def _opened(self) -> Connections:
        with self._opening:
            if self._connections is None:
                self._connections = Connections(
                    self._psycopg,
                    self._pools,
                    self.uri or "",
                    self.deadline,
                    self._max,
                    self._durable,
                )
        return self._connections

    def _connection(self) -> Taken:
        """A connection for the exclusive use of this thread, within the deadline of the call.

        With ``create``, what is missing is created first.
        """
        self.notice_fork()
        until = self._until()
        if self._incomplete:
            self._create_once(until)
        return self._take(until)

    def _until(self) -> float | None:
        """The deadline of the call of this thread; it begins now if it is not a decision."""
        if self._call.until is not None:
            return self._call.until
        self._call.begin(None)
        return end_of(self.deadline)

    def _take(self, until: float | None) -> Taken:
        return Taken(self._connections or self._opened(), until, self._recover)

    def _recover(self, connection: Any, error: Any) -> None:
        """Make a connection usable again after an error of the server, or close it.

        After a lock timeout, find out whether a row is locked or the whole table.
        """
        if not isinstance(error, self._psycopg.Error):
            connection.close()  # replies may still arrive on it
        if connection.closed:
            return
        status = connection.pgconn.transaction_status
        idle, in_error = 0, 3  # libpq's PQTRANS_IDLE and PQTRANS_INERROR
        if connection.broken or status not in (idle, in_error):
            connection.close()
            return
        statements = ["ROLLBACK"] if status == in_error else []
        waited = error.sqlstate in (LOCKED, CANCELED)
        if waited and not self._call.of_all:
            statements += ["BEGIN", FREE.format(table=self._table), "ROLLBACK"]
        if not statements:
            return
        try:
            self._psycopg.ClientCursor(connection).execute("; ".join(statements))  # one round trip
        except Exception as second:
            # No second attempt: a server that was too slow once is too slow now.
            state = getattr(second, "sqlstate", None)
            self._call.table_locked = state == LOCKED
            self._call.answered = state is not None or error.sqlstate == LOCKED
            connection.close()
        else:
            self._call.answered = True

    def failed(self, error: BaseException) -> BaseException:
        if isinstance(error, StorageError):  # of the creation, which has translated it
            return error
        errors = self._psycopg.errors
        if isinstance(error, errors._WaitTimeout | self._pools.PoolTimeout | TimeoutError):
            refused = self._is_own_delay(error)
            text = f"no answer within {self.deadline:g} s"
            if isinstance(error, TurnTimeoutError) and refused:
                text = "other requests have used the same counter until the deadline"
            return failure(self.name, error, text, refused=refused)
        state = getattr(error, "sqlstate", None)
        if state in (LOCKED, CANCELED) and not self._call.of_all:
            return self._lock_timeout_error(error)
        missing = isinstance(error, errors.UndefinedFunction | errors.UndefinedTable)
        if missing and self._table in str(error).split("\n")[0]:
            text = (
                "the table or its functions are missing: run `weir store init --store URI` once, "
                "with the URI of the application, including user and password"
            )
            if self._create:
                self._incomplete = True
                text = "the table or its functions are missing; the next call creates them"
            return failure(self.name, error, text)
        if isinstance(error, self._psycopg.Error | self._pools.TooManyRequests | OSError):
            text = " ".join(str(error).split())
            if state == "42501" and "schema" in text:  # insufficient_privilege
                text += (
                    "; an administrator can GRANT CREATE ON SCHEMA to the user, or run the output "
                    "of `weir store init --store URI --print`"
                )
            refused = is_of_a_key(state) and not self._call.of_all
            return failure(self.name, error, text or type(error).__name__, refused=refused)
        return super().failed(error)

    def _is_own_delay(self, error: BaseException) -> bool:
        """Whether a call has reached its deadline because of its own counters.

        It has if the server answered meanwhile, or if others used these counters first, unless
        the server was silent to them, too.
        """
        call = self._call
        if call.of_all or isinstance(error, self._pools.PoolTimeout):
            return False
        if isinstance(error, TurnTimeoutError) or call.waited or call.answered:
            return call.began > self._silent_at
        self._silent_at = monotonic()
        return False

    def _lock_timeout_error(self, error: BaseException) -> BaseException:
        """The error for a statement that the server has ended because it had to wait."""
        if self._call.table_locked:
            text = f"the table {self._table} is locked by another session"
            return failure(self.name, error, text)
        if not self._call.answered:
            self._silent_at = monotonic()
            return failure(self.name, error, f"no answer within {self.deadline:g} s")
        text = f"no answer within {self.deadline:g} s: another session has locked a counter's row"
        if self.deadline is None or getattr(error, "sqlstate", None) == CANCELED:
            text = " ".join(str(error).split())
        return failure(self.name, error, text, refused=True)

    # -- decisions

    def attempt(self, request: StateRequest) -> Decision:
        call, names = self._call, request.names
        call.begin(end_of(self.deadline))
        try:
            if self._incomplete:  # here, since nobody waits for the names yet
                self._create_once(call.until)
            self._prefixes.note(self._write_notes)
            call.waited = self._turns.take(names, call.until)
            try:
                return self._decide(request)
            finally:
                self._turns.leave(names)
        except Exception as error:
            raise_translated(self.failed(error), error)
        finally:
            call.until = None

    def _decide(self, request: StateRequest) -> Decision:
        """Decide, again if the server has chosen this transaction to end a conflict."""
        errors = self._psycopg.errors
        for left in reversed(range(TRIES)):
            try:
                return self._decide_once(request)
            except (errors.SerializationFailure, errors.DeadlockDetected):
                until = self._call.until
                if not left or (until is not None and monotonic() >= until):
                    raise
        raise AssertionError

    def _decide_once(self, request: StateRequest) -> Decision:
        if not self._guesses.contended(request.names):
            for _ in range(_GUESSES):
                decision = self._guess(request)
                if decision is not None:
                    return decision
            if is_early(self._call.until, self._opened().deadline, monotonic()):
                self._guesses.overtaken(request.names)
        return self._step(request)

    def _guess(self, request: StateRequest) -> Decision | None:
        """Decide with the cached states, in one round trip.

        ``None`` if they were out of date, or if the connection's limits end after the deadline.
        """
        names = request.names
        moved, given = self._clock
        was = self._guesses.of(names)
        following: list[bytes | None] = [None] * len(names)
        expires = [0.0] * len(names)
        decision, expected = None, 0.0  # no valid time: the function returns the stored states
        if given or self._ahead is not None:
            now = self.moment(monotonic() + (self._ahead or 0.0))
            decision, changes = request.decide(was, now)
            expected = now - moved
            ahead = self.ahead_of(now)
            for place, value, expires_at in changes:
                following[place] = value or b""
                expires[place] = _rounded(expires_at, now) + ahead
        encoded = [name.encode() for name in names]
        with self._connection() as connection:
            self._swap.prepare(connection, was, following)
            sent = monotonic()
            if not is_early(connection.until, connection.given, sent):
                return None
            theirs, there = self._swap.run(
                connection, encoded, was, following, expires, None if given else expected
            )
            self._ahead = theirs - (sent + monotonic()) / 2
        self._call.answered = True
        if there is None:
            self._guesses.update(names, following)
            return decision
        self._guesses.update(names, there, drop=True)
        return None

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with self._connection() as connection:
            yield connection
            if connection.pgconn.transaction_status != 0:
                connection.execute("COMMIT")

    def read(self, transaction: Any, names: Sequence[str]) -> dict[str, bytes]:
        cursor = self._psycopg.ClientCursor(transaction)
        bounds = ""
        if not is_early(transaction.until, transaction.given, monotonic()):
            bounds = local(server_options(max(0.0, transaction.until - monotonic())))
        cursor.execute(f"BEGIN; {bounds}{self._read}", (list(names),))  # one round trip
        while cursor.description is None:
            cursor.nextset()
        transaction.theirs, values = cursor.fetchone()
        self._call.answered = True
        there = {name: bytes(value) for name, value in zip(names, values, strict=True)}
        self._guesses.update(names, list(there.values()))
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
        self._guesses.update(names, values)

    # -- what the database needs

    def _create_once(self, until: float | None) -> None:
        """Create what is missing, or wait while another thread does. Both end at the deadline."""
        if not acquired(self._creating, until):
            raise TimeoutError
        was, self._call.of_all = self._call.of_all, True
        try:
            if self._incomplete:
                with self._take(until) as connection:
                    cursor = self._psycopg.ClientCursor(connection)
                    create(cursor, self._table, until, self._durable)
                self._incomplete = False
        except Exception as error:
            if self.deadline is None or getattr(error, "sqlstate", None) != LOCKED:
                raise_translated(self.failed(error), error)
            text = (
                f"no answer within {self.deadline:g} s: another session creates the table "
                f"{self._table}, or has locked it"
            )
            raise failure(self.name, error, text) from error
        finally:
            self._call.of_all = was
            self._creating.release()

    def init(self) -> None:
        """Create the table and its functions, or update the functions."""
        self.notice_fork()
        with self._at_length(complete=False) as connection:
            connection.execute(ALONE)
            connection.execute(script(self._table))
        self._incomplete = False

    def init_text(self) -> str:
        """The SQL that :meth:`init` would run."""
        return schema(self._table)

    # -- the rest

    @contextmanager
    def _at_length(self, complete: bool = True) -> Iterator[Any]:
        """A connection in a transaction about many rows, which may take longer than a decision.

        The commit is on the server's disk when the block ends. With ``complete`` and ``create``,
        what is missing is created first.
        """
        was, self._call.of_all = self._call.of_all, True
        settings = long_options(self._durable, self.deadline is not None)
        try:
            with (
                self.translating_errors(),
                self._connection() if complete else self._take(self._until()) as connection,
            ):
                connection.until = None if self.deadline is None else monotonic() + LONG
                with connection.transaction():
                    if settings:
                        self._psycopg.ClientCursor(connection).execute(local(settings))
                    yield connection
        finally:
            self._call.of_all = was

    def note_prefix(self, own: str) -> None:
        """An application of this process has the ``key_prefix`` ``own``."""
        self._prefixes.add(own)

    def _write_notes(self, names: list[str]) -> None:
        with self._connection() as connection:
            cursor = self._psycopg.ClientCursor(connection)
            for name in names:
                cursor.execute(NOTE.format(table=self._table, seconds=KNOWN_TTL), (name,))

    def reset_of(self, own: str, _: object) -> None:
        """Delete the counters of one application of weir.flask, by its ``key_prefix``.

        Without one: those of no application that has one.
        """
        prefixes = self._prefixes
        if own:
            self._delete(OF_ONE, [prefixes.skipped + 1, prefixes.part_of(own)])
            return
        with self._at_length() as connection:
            found = connection.execute(
                NOTES.format(table=self._table), (prefixes.first, prefixes.end)
            ).fetchall()
        parts = prefixes.parts(name for (name,) in found)
        if parts:
            self._delete(OF_NONE, [prefixes.skipped + 1, [*parts, ""]])
        else:
            self.reset()

    def reset(self) -> None:
        """Delete all counters with this prefix."""
        self._delete("", [])

    def _delete(self, condition: str, arguments: list[Any]) -> None:
        prefix = self._prefix.decode()
        statement = RESET.format(table=self._table, condition=condition)
        first, end = f"{prefix}:", f"{prefix};"
        while first:
            with self._at_length() as connection:
                removed = connection.execute(statement, (first, end, *arguments)).fetchall()
            first = max((name for (name,) in removed), default="")  # names are ASCII
        self._guesses = Guesses()
        self._denials.clear()

    def check(self) -> bool:
        try:
            with self.translating_errors(), self._connection() as connection:
                connection.execute(f'SELECT 1 FROM "{self._table}" LIMIT 1')
        except StorageError:
            return False
        return True

    def close(self) -> None:
        """Close all connections."""
        with self._opening:
            connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()


def _rounded(expires_at: float, now: float) -> float:
    """Round up, by less than a quarter of the time left, so that most hits keep the column."""
    step = 2.0 ** (frexp(max(expires_at - now, 1.0))[1] - 3)
    return ceil(expires_at / step) * step
