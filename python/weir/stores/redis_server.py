"""One Redis or Valkey server: its connections, and a call to it within one deadline.

The client library opens connections in a background thread, so that no caller waits beyond its
deadline for a server, a resolver or a handshake. A connection that is ready too late is kept for
the next caller.
"""

from __future__ import annotations

import inspect
import os
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any

from .._clock import monotonic
from .._core import Decision, RedisCommand
from .base import end_of, is_readable, left_until
from .hosts import Resolver

#: Bytes to read from a socket at once; the reply for 32 limits has about 1,100.
_ROOM = 65536

#: Connections that are opened at the same time; further callers wait for one of them.
_DIALS = 64

#: Errors of a server that is not a master, or not yet: the connection has to be replaced.
WRONG_SERVER = ("READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS")

_ASKING = b"*1\r\n$6\r\nASKING\r\n"

Answer = Decision | bool | str


class Connection:
    """A connection of the client library, used by one caller at a time.

    A plain socket of the standard library is used directly. A TLS or gevent socket keeps
    the deadline by its own timeout.
    """

    __slots__ = ("_fd", "_pool", "_raw", "_sock", "_timeout", "_used")

    def __init__(self, pool: Any, raw: Any) -> None:
        self._pool, self._raw = pool, raw
        # A connection with a client-side cache wraps the real one.
        sock = self._sock = getattr(raw, "_conn", raw)._sock
        self._timeout = sock.gettimeout()
        self._fd = sock.fileno() if type(sock).__module__ == "socket" else -1
        self._used = False

    def exchange(
        self, command: RedisCommand, seconds: float | None, message: bytes | None = None
    ) -> Answer:
        """Send ``message``, or the command itself, and read the answer to the command.

        ConnectionAbortedError: the command was not sent in full, so the server did not execute it.
        ConnectionResetError: it was sent, and the server may have executed it.
        """
        if self._fd >= 0:
            return command.exchange(self._fd, seconds, message)
        if self._used and is_readable(self._sock):
            raise ConnectionAbortedError("the server closed the connection")
        end = end_of(seconds)
        self._used = True
        self._send(command if message is None else message, end)
        data = b""
        while True:
            self._sock.settimeout(left_until(end))
            more = self._sock.recv(_ROOM)
            if not more:
                raise ConnectionResetError("the server closed the connection")
            data += more
            answer = command.read(data)
            if answer is not None:
                return answer

    def _send(self, message: Any, end: float | None) -> None:
        left = memoryview(message)
        try:
            while left:  # sendall() of a TLS socket has its timeout for each record
                self._sock.settimeout(left_until(end))
                left = left[self._sock.send(left) :]
        except (ConnectionError, ssl.SSLEOFError) as error:
            raise ConnectionAbortedError("the server closed the connection") from error

    def run(self, message: bytes, end: float | None) -> None:
        """Send a command with a reply of one line, and discard the reply."""
        self._send(message, end)
        data = b""
        while not data.endswith(b"\n"):
            self._sock.settimeout(left_until(end))
            more = self._sock.recv(1)
            if not more:
                raise ConnectionResetError("the server closed the connection")
            data += more

    def is_closed(self) -> bool:
        """Whether the idle connection is of no more use."""
        return is_readable(self._sock)

    def give_back(self) -> None:
        """Return it to the pool unchanged."""
        self._sock.settimeout(self._timeout)
        self._pool.release(self._raw)

    def close(self) -> None:
        """Discard it. The pool counts a connection until it is returned."""
        for end in (self._raw.disconnect, partial(self._pool.release, self._raw)):
            with suppress(Exception):  # it is closed in any case
                end()


class _Dial:
    """A connection that is being opened."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.late = False
        self.connection: Connection | None = None
        self.error: BaseException | None = None


class Server:
    """The connections to one server, or to the server that the pool selects.

    :param pool: of the client library
    :param lent: the pool is shared, so each call borrows a connection and returns it
    :param on_eviction_policy: called once with the server's ``maxmemory-policy`` if it may drop
        counters
    """

    def __init__(
        self, pool: Any, lent: bool = False, on_eviction_policy: Callable[[str], None] | None = None
    ) -> None:
        self.pool = pool
        self._lent = lent
        self._on_eviction_policy = on_eviction_policy
        self.drop_connections()

    def drop_connections(self) -> None:
        """In a child of fork(): do not use the parent's connections."""
        self._idle: list[Connection] = []
        self._dials = threading.BoundedSemaphore(_DIALS)
        self._pid = os.getpid()

    # -- calls

    def request(
        self,
        command: RedisCommand,
        seconds: float | None,
        end: float | None,
        harmless: bool = False,
    ) -> Answer:
        """The reply; a str is an error of the server. Raises OSError, and the library's errors.

        seconds, end: the time left for the call, and its deadline.
        harmless: the command changes nothing, so it may be sent again even if the server may have
        executed it. Any other command is sent again only if the server cannot have done that.
        """
        if self._pid != os.getpid():
            self.drop_connections()
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._request_on_new_connection(command, end)
        try:
            answer = connection.exchange(command, seconds)
        except ConnectionAbortedError:
            # It was closed while it was idle: the server was restarted or replaced.
            connection.close()
            self.drop_idle()
            return self._request_on_new_connection(command, end)
        except (ConnectionResetError, BrokenPipeError):
            connection.close()
            self.drop_idle()
            if not harmless:
                raise
            return self._request_on_new_connection(command, end)
        except TimeoutError:
            connection.close()
            self.drop_idle()  # their server may not be a master any more
            raise
        except BaseException:
            connection.close()
            raise
        if answer.__class__ is Decision and not self._lent:
            self._idle.append(connection)
            return answer
        if isinstance(answer, str) and answer.startswith(WRONG_SERVER):
            connection.close()
            self.drop_idle()
            return self._request_on_new_connection(command, end)
        return self._settle(connection, command, answer, end)

    def _request_on_new_connection(self, command: RedisCommand, end: float | None) -> Answer:
        """The same over a new connection."""
        connection = self._connect(end)
        try:
            answer = connection.exchange(command, left_until(end))
        except BaseException:
            connection.close()
            raise
        return self._settle(connection, command, answer, end)

    def _settle(
        self, connection: Connection, command: RedisCommand, answer: Answer, end: float | None
    ) -> Answer:
        """Use the connection; send the script if the server does not have it."""
        if answer is False:
            try:
                answer = connection.exchange(command, left_until(end), command.whole())
            except BaseException:
                connection.close()
                raise
        if isinstance(answer, str) and answer.startswith(WRONG_SERVER):
            connection.close()
        else:
            self._keep(connection)
        return answer

    def request_migrating(self, command: RedisCommand, end: float | None) -> Answer:
        """Send the command to the node that the slot is being moved to, after ASKING."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect(end)
        else:
            if connection.is_closed():
                connection.close()
                self.drop_idle()
                connection = self._connect(end)
        try:
            for message in (None, command.whole()):
                connection.run(_ASKING, end)
                answer = connection.exchange(command, left_until(end), message)
                if answer is not False:
                    break
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        return answer

    def run(self, use: Callable[[Any], Any]) -> Any:
        """Call ``use`` with a connection of the library, without a deadline."""
        raw = get_connection(self.pool)
        try:
            return use(raw)
        except BaseException as error:
            with suppress(Exception):
                raw.disconnect()
            if isinstance(error, _NONSENSE):
                raise _nonsense(error) from error
            raise
        finally:
            self.pool.release(raw)

    # -- connections

    def _connect(self, end: float | None) -> Connection:
        if self._lent and getattr(self.pool, "_available_connections", None):
            return Connection(self.pool, get_connection(self.pool))
        if end is None:
            return self._dial()
        if not self._dials.acquire(timeout=left_until(end)):
            raise TimeoutError("no connection in time")
        dial = _Dial()
        try:
            threading.Thread(
                target=self._dial_for, args=(dial, os.getpid()), name="weir-dial", daemon=True
            ).start()
        except BaseException:
            self._dials.release()
            raise
        try:
            dial.done.wait(max(0.0, end - monotonic()))
        finally:  # a signal handler may raise here
            with dial.lock:
                dial.late = not dial.done.is_set()
        if dial.late:
            raise TimeoutError("no connection in time")
        if dial.error is not None:
            raise dial.error
        assert dial.connection is not None
        return dial.connection

    def _dial(self) -> Connection:
        raw = get_connection(self.pool)
        report, self._on_eviction_policy = self._on_eviction_policy, None
        if report is not None:
            try:
                policy = _evicts_by(raw)
            except BaseException as error:
                with suppress(Exception):
                    raw.disconnect()
                self.pool.release(raw)
                if not isinstance(error, Exception):
                    raise
                # This only serves a warning, so it is not repeated at the cost of a request.
                raw, policy = get_connection(self.pool), ""
            if policy:
                report(policy)
        return Connection(self.pool, raw)

    def _dial_for(self, dial: _Dial, pid: int) -> None:
        try:
            dial.connection = self._dial()
        except BaseException as error:
            dial.error = error
        with dial.lock:
            if not dial.late:
                dial.done.set()
            elif dial.connection is not None and self._pid == pid:
                self._keep(dial.connection)
        self._dials.release()

    def _keep(self, connection: Connection) -> None:
        """Keep it for the next caller."""
        if self._lent:
            connection.give_back()
        else:
            self._idle.append(connection)

    def drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close idle connections."""
        self.drop_idle()
        if not self._lent:
            self.pool.disconnect(inuse_connections=False)


#: What client libraries raise for unexpected replies.
_NONSENSE = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


def _nonsense(error: BaseException) -> OSError:
    return ConnectionError(f"the reply of the server is invalid: {type(error).__name__}: {error}")


def get_connection(pool: Any) -> Any:
    """A connection from the pool. Raises OSError, and the library's errors."""
    try:
        wanted = inspect.signature(pool.get_connection).parameters.get("command_name")
        if wanted is not None and wanted.default is wanted.empty:  # before redis-py 5.3
            return pool.get_connection("EVALSHA")
        return pool.get_connection()
    except _NONSENSE as error:
        raise _nonsense(error) from error


def _evicts_by(raw: Any) -> str:
    """The ``maxmemory-policy`` of a server that drops counters when it is full; else ""."""
    raw.send_command("INFO", "memory")
    try:
        info = raw.read_response()
    except Exception as error:
        if type(error).__name__ in ("ResponseError", "NoPermissionError"):
            return ""  # without the right to read it
        raise
    text = info if isinstance(info, str) else bytes(info).decode(errors="replace")
    found = dict(line.partition(":")[::2] for line in text.splitlines())
    policy = found.get("maxmemory_policy", "noeviction")
    return policy if policy != "noeviction" and found.get("maxmemory", "0") != "0" else ""


def within(seconds: float | None, work: Callable[[], Any]) -> Any:
    """Run ``work`` in a thread and return its result. Raises TimeoutError at the deadline."""
    if seconds is None:
        return work()
    done = threading.Event()
    result: list[Any] = [None, None]

    def run() -> None:
        try:
            result[0] = work()
        except BaseException as error:
            result[1] = error
        done.set()

    threading.Thread(target=run, name="weir-work", daemon=True).start()
    if not done.wait(seconds):
        raise TimeoutError("no answer in time")
    if result[1] is not None:
        raise result[1]
    return result[0]


# ------------------------------------------------------------------------- how the library connects


def prepare_pool(library: ModuleType, pool: Any, resolver: Resolver) -> None:
    """Make a pool resolve names in the background and check the host names of TLS servers."""
    connections = library.connection
    kind = pool.connection_class
    known = pool.connection_kwargs
    if issubclass(kind, connections.SSLConnection):
        spelt = str(known.get("ssl_cert_reqs", "required")).rpartition(".")[2].lower()
        spelt = {"0": "none", "1": "optional", "2": "required"}.get(spelt, spelt)
        known["ssl_cert_reqs"] = spelt.removeprefix("cert_")
        check = known.get("ssl_check_hostname")
        known["ssl_check_hostname"] = known["ssl_cert_reqs"] != "none" and (
            check is None or str(check).lower() not in ("", "0", "f", "false", "n", "no")
        )
    if issubclass(kind, connections.Connection):
        pool.connection_class = _resolving(connections.Connection, kind, resolver)


def _resolving(base: Any, kind: Any, resolver: Resolver) -> Any:
    """A subclass of ``kind`` that connects to the addresses that ``resolver`` has."""

    class Resolving(base):  # type: ignore[misc]
        host: Any

        def _connect(self) -> Any:
            name, error = self.host, None
            try:
                for address in resolver.addresses(name, self.socket_connect_timeout):
                    self.host = address
                    try:
                        return super()._connect()
                    except OSError as raised:
                        error = raised
            finally:
                self.host = name
            raise error or OSError(f"{name} has no address")

    if kind is base:
        return Resolving
    return type(kind.__name__, (kind, Resolving), {})
