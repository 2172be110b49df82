"""One Memcached server: its connections, and calls to it within one deadline.

The client library gets a replacement for the module ``socket``, so that each wait on a socket is
bounded by the time left for the current call of the thread.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from .._clock import monotonic, true_time
from .._core import memcached_read
from ..errors import StorageError, is_outage
from .base import end_of, failure, is_readable, left_until, raise_translated
from .hosts import Resolver

T = TypeVar("T")

#: Operations on a counter that the server increments (``enum weir_memcached_what``).
CHARGE, PEEK, GIVE_BACK, UNDO = range(4)

#: Kinds of replies (``enum weir_memcached_kind``).
COUNT, NONE, END, ERROR = range(4)

#: How often a state is fetched and stepped after conflicts before this is an error.
TRIES = 64

#: Memcached takes a longer time to live for a time since the epoch.
MONTH = 2_592_000

#: The latest expiry that Memcached accepts; later values stay until they are evicted.
LATEST = 2**31 - 1


class RefusedError(Exception):
    """A request cannot be decided because of its key or the value stored for it."""


class Errors(NamedTuple):
    """The exceptions of the client library, and the deadline for error texts."""

    client: type[Exception]
    closed: type[Exception]
    of_a_key: tuple[type[Exception], ...]
    deadline: float


# ------------------------------------------------------------------------------------ the deadline

_call = threading.local()


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Bound all calls of this thread in the block together by ``seconds``."""
    _call.end = end_of(seconds)
    try:
        yield
    finally:
        _call.end = None


def is_late() -> bool:
    """Whether the deadline of the call has passed."""
    end = getattr(_call, "end", None)
    return end is not None and monotonic() >= end


def _left() -> float | None:
    return left_until(getattr(_call, "end", None))


def _hurry(sock: Any) -> None:
    """Set a socket's timeout to the time left for the call; outside of a call, keep it."""
    if getattr(_call, "end", None) is not None:
        sock.settimeout(_left())


class NotSentError(ConnectionAbortedError):
    """The connection ended before a command was sent in full: the server has not executed it."""


def _hurried(base: Any) -> Any:
    """A class of sockets like ``base``, whose waits are those of a call here."""

    class Socket(base):  # type: ignore[misc]
        #: Whether a command was sent in full since this was last reset.
        sent = False

        def connect(self, address: Any) -> None:
            _hurry(self)
            super().connect(address)

        def do_handshake(self, *args: Any) -> None:  # TLS: called by connect()
            _hurry(self)
            super().do_handshake(*args)

        def recv(self, *args: Any) -> Any:
            _hurry(self)
            return super().recv(*args)

        def send(self, *args: Any, **options: Any) -> int:  # by sendall() of TLS and of gevent
            _hurry(self)
            return cast(int, super().send(*args, **options))

        def sendall(self, *args: Any) -> None:
            _hurry(self)
            try:
                super().sendall(*args)
            except (ConnectionError, ssl.SSLEOFError) as error:
                raise NotSentError("the server closed the connection") from error
            self.sent = True

    return Socket


class SocketModule:
    """The module ``socket``, with name resolution and waits bounded by the current call."""

    def __init__(self) -> None:
        self._resolver = Resolver()
        # Looked up at each call, because gevent may replace it.
        self.socket = _hurried(socket.socket)

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    def getaddrinfo(self, host: str, *args: Any) -> list[Any]:
        """As in the standard library, but names are resolved in the background.

        pymemcache connects to the first address only. So of several, one that accepts a connection
        comes first: ``localhost`` may be ::1 and 127.0.0.1 while the server listens on one of them.
        """
        found: list[Any] = []
        for address in self._resolver.addresses(host, _left()):
            found += socket.getaddrinfo(address, *args)
        for i, (family, kind, protocol, _, address) in enumerate(found[:-1]):
            left = _left()
            with socket.socket(family, kind, protocol) as probe, contextlib.suppress(OSError):
                probe.settimeout(1.0 if left is None else left / (len(found) - i))
                probe.connect(address)
                return found[i:]
        return found[-1:]


class _TlsContext:
    """A ``tls_context``, whose sockets wait no longer than a call here: the handshake, too."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._socket = _hurried(context.sslsocket_class)

    def wrap_socket(self, sock: Any, **options: Any) -> Any:
        return self._socket._create(sock=sock, context=self._context, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def hurried_tls(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a client of pymemcache's, whose ``tls_context`` keeps our deadlines."""
    context = options.get("tls_context")
    return options if context is None else {**options, "tls_context": _TlsContext(context)}


# ---------------------------------------------------------------------------------- what is counted


class Reply(NamedTuple):
    """An item that the server increments."""

    number: int
    left: int  # seconds until it expires, rounded up; -1: not known
    cas: int
    there: bool


class Node:
    """One server and its idle connections."""

    def __init__(
        self, address: tuple[str, int] | str, make_client: Callable[[Any], Any], errors: Errors
    ) -> None:
        self.address = address
        self._make_client = make_client
        self.errors = errors
        self._idle: list[Any] = []
        #: When the last call failed, in monotonic seconds; 0.0: it succeeded.
        self.failed_at = 0.0
        #: Whether the server supports meta commands; ``None``: unknown.
        self.meta: bool | None = None
        if isinstance(address, str):
            place = address
        else:
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            place = f"{host}:{address[1]}"
        self.name = f"memcached://{place}"

    def drop_connections(self) -> None:
        self._idle = []

    def close(self) -> None:
        idle, self._idle = self._idle, []
        for client in idle:
            client.close()

    def use(self, call: Callable[[Any], T], harmless: bool = False) -> T:
        """Call ``call`` with a client of pymemcache that no other caller uses meanwhile.

        harmless: it changes nothing on the server, so it may be done again after a connection
        ended. Otherwise it is done again only if no command was sent in full.
        """
        try:
            client = self._idle.pop()
        except IndexError:
            return self._use_new_connection(call)
        sock = client.sock
        if sock is None or is_readable(sock):  # it was closed while idle
            client.close()
            self.close()
            return self._use_new_connection(call)
        sock.sent = False
        try:
            answer = call(client)
        except StorageError:  # first: it is an error of the client library, too
            client.close()
            raise
        except (ConnectionError, self.errors.closed) as error:
            client.close()
            if sock.sent and not harmless:
                raise_translated(self.failure(error), error)
            self.close()
            return self._use_new_connection(call)
        except BaseException as error:
            client.close()
            raise_translated(self.failure(error), error)
        self.failed_at = 0.0
        self._idle.append(client)
        return answer

    def _use_new_connection(self, call: Callable[[Any], T]) -> T:
        client = self._make_client(self.address)
        try:
            if self.meta is None:
                self.meta = _version(client.version()) >= (1, 6)
            answer = call(client)
        except BaseException as error:
            client.close()
            raise_translated(self.failure(error), error)
        self.failed_at = 0.0
        self._idle.append(client)
        return answer

    def failure(self, error: BaseException) -> BaseException:
        """The error to raise for ``error``, which a call to this server has raised."""
        if isinstance(error, StorageError):
            return error
        if isinstance(error, RefusedError):
            return failure(self.name, error, refused=True)
        raised: BaseException = error
        if isinstance(error, TimeoutError):
            raised = failure(self.name, error, f"no answer within {self.errors.deadline:g} s")
        elif isinstance(error, self.errors.closed):
            raised = failure(self.name, error, "the server closed the connection")
        elif isinstance(error, OSError | ValueError | self.errors.client):
            refused = isinstance(error, self.errors.of_a_key) or "too large" in str(error)
            raised = failure(self.name, error, refused=refused)
        if is_outage(raised):
            self.failed_at = monotonic()
        return raised

    def exchange(self, commands: Sequence[bytes], harmless: bool = False) -> list[Reply]:
        """Send several meta commands at once."""
        return self.use(partial(_exchange, commands=commands), harmless)


def _version(text: bytes) -> tuple[int, ...]:
    numbers = text.split(b".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())


def _exchange(client: Any, commands: Sequence[bytes]) -> list[Reply]:
    if client.sock is None:
        client.version()  # connects
    client.sock.sendall(b"".join(commands) + b"mn\r\n")
    data, at = b"", 0
    replies: list[Reply] = []
    error = ""
    while True:
        try:
            reply = memcached_read(data, at)
        except ValueError:
            if data.startswith(b"VA ", at):
                raise RefusedError("a name holds something that is not a counter") from None
            raise
        if reply is None:
            more = client.sock.recv(65536)
            if not more:
                raise ConnectionResetError("the server closed the connection")
            data += more
            continue
        kind, at, count, left, cas, text = reply
        if kind == END:
            break
        if kind == ERROR:
            error = error or text
        replies.append(Reply(count, left, cas, kind == COUNT))
    if error:
        raise RefusedError(error) if error.startswith("CLIENT_ERROR") else ValueError(error)
    if len(replies) != len(commands):
        raise ValueError("the reply of the server is invalid")
    return replies


def connected(_: Any) -> None:
    """Connect, and find out the server's version."""


def ping(client: Any) -> bytes:
    return cast(bytes, client.version())


def fetch(client: Any, name: bytes) -> tuple[bytes | None, bytes | None]:
    """A value and its token for compare-and-swap."""
    value, cas = client.gets(name)
    return value, cas


def store(client: Any, name: bytes, value: bytes, cas: bytes | None, seconds: int) -> bool:
    """Store a value by compare-and-swap. An empty value deletes the item."""
    if seconds > MONTH:
        seconds += int(true_time()) + 1
    expire = 0 if seconds > LATEST else seconds
    if cas is None:
        return bool(client.add(name, value, expire=expire, noreply=False))
    if value:
        return bool(client.cas(name, value, cas, expire=expire, noreply=False))
    return bool(client.cas(name, b"-", cas, expire=-1, noreply=False))  # gone at once


def delete(client: Any, name: bytes) -> None:
    client.delete(name, noreply=False)


def add(client: Any, name: bytes, number: int, seconds: int) -> bool:
    """Store a number, unless there is an item."""
    return store(client, name, b"%d" % number, None, seconds)


def increase(client: Any, name: bytes, by: int) -> int | None:
    """Add to a number; return the sum, or ``None`` if there is no item."""
    return cast("int | None", client.incr(name, by, noreply=False))


def is_number(text: bytes) -> bool:
    return len(text) <= 20 and text.isdigit()
