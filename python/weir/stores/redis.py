"""Redis and Valkey: one script call for a whole decision, on the server's clock.

==================================================  ===========================================
``redis://user:password@host:6379/0``               one server; ``rediss://`` by TLS
``redis+unix:///run/redis.sock?db=0``               one server, by a socket file
``redis+sentinel://host:26379,host:26379/service``  the master that the sentinels name
``redis+cluster://host:6379,host:6379``             a Cluster
==================================================  ===========================================

The same with ``valkey``, by valkey-py (TLS: ``valkeys://``). Options are handed on to redis-py or
valkey-py, except ``connection_pool`` (one of theirs to use), ``key_prefix`` and
``remember_denials``.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any, NoReturn, cast

from .._core import (
    HIT,
    REDIS_SCRIPT,
    REFUND,
    TEST,
    Decision,
    Limit,
    RedisCodec,
    RedisCommand,
    Verdict,
)
from .._storage import Storage, deciding
from ..errors import ConfigurationError, StorageError
from ._common import (
    DEADLINE,
    Hosts,
    check_uri,
    failure,
    is_readable,
    monotonic,
    need,
    scheme_of,
    seconds,
    shown,
)
from ._denials import Denials

__all__ = ["RedisClusterStorage", "RedisSentinelStorage", "RedisStorage"]

logger = logging.getLogger("weir")

#: Bytes asked of a socket at once; the answer to 32 limits has some 1,100.
_ROOM = 65536

#: Connections are as many as there are callers at the same moment; redis-py would stop at 100.
_UNBOUNDED = 2**31

#: Answers of a server that is no master, or not yet: the connection leads to the wrong place.
_WRONG_SERVER = ("READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS")


class _Gone(Exception):  # noqa: N818
    """The connection was closed by the other side."""


class _Lane:
    """A connection of the client library that one caller at a time has to himself.

    Where its socket is the standard library's, bytes go through it directly, and the kernel keeps
    the deadline. A TLS or gevent socket keeps it itself, and so does one that is only lent.
    """

    __slots__ = ("_connection", "_pool", "_sock", "_timeout", "receive", "send")

    def __init__(self, pool: Any, deadline: float | None, lent: bool) -> None:
        try:
            connection = pool.get_connection()
        except TypeError:  # before redis-py 5.3
            connection = pool.get_connection("EVALSHA")
        self._pool, self._connection = pool, connection
        # Of a connection that caches what it reads, the one behind it.
        sock = self._sock = getattr(connection, "_conn", connection)._sock
        self._timeout = sock.gettimeout()
        if type(sock).__module__ == "socket" and not lent:
            sock.settimeout(None)
            timeval = struct.pack("ll", *_timeval(deadline))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        else:
            sock.settimeout(deadline)
        self.send: Callable[[RedisCommand | bytes], object] = sock.sendall
        self.receive: Callable[[int], bytes] = sock.recv

    def ask(self, message: RedisCommand | bytes, command: RedisCommand) -> Decision | bool | str:
        """Send ``message``, and read the answer to ``command`` from what comes."""
        self.send(message)
        data = self.receive(_ROOM)
        answer = command.read(data)
        while answer is None:
            more = self.receive(_ROOM)
            if not more:
                raise _Gone("the server closed the connection")
            data += more
            answer = command.read(data)
        return answer

    def was_closed(self) -> bool:
        """Whether anything came while nobody asked: most likely, the end."""
        return is_readable(self._sock)

    def give_back(self) -> None:
        """To the pool, as it was."""
        self._sock.settimeout(self._timeout)
        self._pool.release(self._connection)

    def close(self) -> None:
        """The pool counts it until it is given back."""
        for end in (self._connection.disconnect, partial(self._pool.release, self._connection)):
            with suppress(Exception):  # it is gone, whatever that says
                end()


def _timeval(seconds: float | None) -> tuple[int, int]:
    """As setsockopt() takes it; 0, 0: for ever."""
    if seconds is None:
        return 0, 0
    return int(seconds), max(1, int(seconds % 1 * 1e6))


def _library(uri: str) -> ModuleType:
    """redis-py, or valkey-py for the schemes that say so."""
    package = "valkey" if uri.startswith("valkey") else "redis"
    return need(package, package, scheme_of(uri))


def _client_class(library: ModuleType) -> Any:
    return getattr(library, "Valkey", None) or library.Redis


def _errors(library: ModuleType) -> tuple[type[Exception], ...]:
    """What a client that could not ask raises. Those of a whole Cluster are none of the base's."""
    found = library.exceptions
    base = getattr(found, "ValkeyError", None) or found.RedisError
    cluster = getattr(found, "ValkeyClusterException", None) or found.RedisClusterException
    return OSError, ValueError, base, cluster


def _no_retries(library: ModuleType) -> Any:
    """Retries would outlive the deadline: what to do instead is the limiter's policy."""
    retry = need(f"{library.__name__}.retry", library.__name__, library.__name__)
    backoff = need(f"{library.__name__}.backoff", library.__name__, library.__name__)
    return retry.Retry(backoff.NoBackoff(), 0)


def _with_deadline(options: dict[str, Any], library: ModuleType, **defaults: Any) -> dict[str, Any]:
    timeout = seconds(options.get("socket_timeout", DEADLINE), "socket_timeout")
    return {
        **defaults,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": _no_retries(library),
        **options,
    }


class _Remembering(Storage):
    """What all Redis stores share: commands, remembered denials, errors."""

    LOOKS = True

    times_itself = True

    def __init__(
        self,
        uri: str | None,
        key_prefix: str | bytes,
        remember_denials: float,
        options: dict[str, Any],
    ) -> None:
        super().__init__(uri, **options)
        check_uri(uri or "")
        self.name = shown(uri or "redis://")
        prefix = key_prefix if isinstance(key_prefix, bytes) else key_prefix.encode()
        try:
            self._codec = RedisCodec(prefix)
        except ValueError as error:
            raise ConfigurationError(f"key_prefix: {error}") from None
        self._remember = seconds(remember_denials or None, "remember_denials") or 0.0
        self._denials = Denials(self._remember)

    def set_clock(self, seconds: float = 0.0, given: bool = False) -> None:
        """For tests: move the server's clock by so many seconds, or set it to this moment.

        Only for what is asked through this store from now on. No denial is remembered while the
        moment is given: other time than that has no meaning.
        """
        self._codec.set_clock(seconds, given)
        self._denials.clear()
        self._denials.seconds = 0.0 if given else self._remember

    def forget_denials(self) -> None:
        """Ask again for what was denied."""
        self._denials.clear()

    def decide(
        self,
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        command = self._codec.decide(limits, keys, costs, mode)
        denials = self._denials
        if denials.entries and mode <= TEST:
            known = denials.get(bytes(command))
            if known is not None:
                return known
        asked_at = monotonic()
        decision = cast(Decision, self._ask(command, mode == REFUND))
        if self.observe is not None:
            self.observe(monotonic() - asked_at)
        if mode == REFUND:
            denials.forget(_names(command))
        elif not decision.allowed and mode <= TEST and denials.seconds > 0:
            denials.remember(bytes(command), _names(command), asked_at, decision)
        return decision

    def clear(self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /) -> None:
        command = self._codec.clear(limits, keys)
        try:
            self._ask(command)
        finally:
            self._denials.forget(_names(command))

    def _ask(self, command: RedisCommand, once: bool = False) -> Decision | bool:
        """once: what may have been done is not asked again; it would be given back twice."""
        raise NotImplementedError

    def _pattern(self) -> bytes:
        """The names of all counters, for SCAN."""
        return re.sub(rb"[*?\[\]\\^-]", rb"\\\g<0>", self._codec.prefix) + b":[fmstl][wb]:{*"


def _names(command: RedisCommand) -> list[bytes]:
    arguments = command.arguments()
    return arguments[1:] if arguments[0] == b"DEL" else arguments[3:-1]


def _without_clients(error: str) -> str:
    """Who was asked and what came of it, without the settings of each."""
    return re.sub(r"<\w+\.client\..*?\)>\)> - ", "", error)


def _readable(error: str) -> str:
    """The server's text without where in the script it was raised."""
    return error.partition(" script: ")[0].removeprefix("ERR ")


class RedisStorage(_Remembering):
    """One server, or whichever server the client library leads to.

    :param uri: see the module
    :param connection_pool: a pool of redis-py's or valkey-py's. Others may use it as well, so each
     check borrows a connection and gives it back, which takes longer than to keep one
    :param key_prefix: the first part of all names
    :param remember_denials: seconds for which a denial may be told again without asking; 0: never
    :param options: for the client library. ``socket_timeout`` is the deadline of a call: 250 ms,
     unless it says otherwise, here, in the URI or in the pool; ``None``: no deadline

    >>> storage = RedisStorage("redis://127.0.0.1:6379/0")  # connects when first asked
    >>> storage.name
    'redis://127.0.0.1:6379/0'
    """

    def __init__(
        self,
        uri: str = "redis://127.0.0.1:6379",
        connection_pool: Any = None,
        key_prefix: str | bytes = "weir",
        remember_denials: float = 60.0,
        wrap_exceptions: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(uri, key_prefix, remember_denials, options)
        self._library = _library(uri)
        self._pid = os.getpid()
        self._idle: list[_Lane] = []
        self._lent = connection_pool is not None
        if connection_pool is not None:
            self._client = _client_class(self._library)(connection_pool=connection_pool)
            self.name = _pool_name(connection_pool, self.name)
        else:
            self._client = self._open_client(uri, options)
        self._pool = self._client.connection_pool
        known = self._pool.connection_kwargs
        self._deadline = seconds(known.get("socket_timeout", DEADLINE), "socket_timeout")
        seconds(known.get("socket_connect_timeout"), "socket_connect_timeout")
        try:
            self._pool.connection_class(**known)  # does not connect
        except TypeError as error:
            raise ConfigurationError(f"{self.name}: {error}") from None

    def _open_client(self, uri: str, options: dict[str, Any]) -> Any:
        scheme, _, rest = uri.partition("://")
        url = f"unix://{rest}" if scheme.endswith("+unix") else uri
        database = rest.partition("?")[0].partition("/")[2].strip("/")
        if url is uri and database and not database.isdecimal():
            raise ConfigurationError(f"{self.name}: {database!r} is no number of a database")
        try:
            return _client_class(self._library).from_url(
                url, **_with_deadline(options, self._library, max_connections=_UNBOUNDED)
            )
        except ValueError as error:
            raise ConfigurationError(f"{self.name}: {error}") from None

    @property
    def client(self) -> Any:
        """The client of redis-py or valkey-py."""
        return self._client

    # -- connections

    def _after_fork(self) -> None:
        """In a child: the parent's connections stay the parent's."""
        self._idle = []
        self._denials = Denials(self._remember)
        self._pid = os.getpid()

    def _keep(self, lane: _Lane) -> None:
        """For the next caller."""
        if self._lent:
            lane.give_back()
        else:
            self._idle.append(lane)

    def _ask(self, command: RedisCommand, once: bool = False) -> Decision | bool:
        if self._pid != os.getpid():
            self._after_fork()
        try:
            lane = self._idle.pop()
        except IndexError:
            return self._ask_anew(command)
        if once and lane.was_closed():
            lane.close()
            return self._ask_anew(command)
        try:
            answer = lane.ask(command, command)
        except (_Gone, ConnectionResetError, BrokenPipeError) as error:
            if once:
                lane.close()
                self._fail(error)
            # It was closed while nobody used it: the server was restarted, or is another one now.
            lane.close()
            self._drop_idle()
            return self._ask_anew(command)
        except BaseException as error:
            lane.close()
            self._fail(error)
        if answer.__class__ is Decision:
            self._idle.append(lane)
            return answer
        if isinstance(answer, str) and answer.startswith(_WRONG_SERVER):
            lane.close()
            self._drop_idle()
            return self._ask_anew(command)
        return self._settle(lane, command, answer)

    def _ask_anew(self, command: RedisCommand) -> Decision | bool:
        """By a new connection."""
        lane = None
        try:
            lane = _Lane(self._pool, self._deadline, self._lent)
            answer = lane.ask(command, command)
        except BaseException as error:
            if lane is not None:
                lane.close()
            self._fail(error)
        return self._settle(lane, command, answer)

    def _settle(
        self, lane: _Lane, command: RedisCommand, answer: Decision | bool | str
    ) -> Decision | bool:
        """Give the connection back, and make a decision of an answer that may be none."""
        if answer is False:  # the server has forgotten the script, or never knew it
            try:
                answer = lane.ask(command.whole(), command)
            except BaseException as error:
                lane.close()
                self._fail(error)
        if isinstance(answer, str):
            if answer.startswith(_WRONG_SERVER):
                lane.close()
            else:
                self._keep(lane)
            raise failure(self.name, _readable(answer))
        self._keep(lane)
        if answer is False:
            raise failure(self.name, "the server does not keep the script")
        return answer

    def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for lane in idle:
            lane.close()

    def _fail(self, error: BaseException) -> NoReturn:
        """Raise what became of a call, as the error of this store if it is one."""
        if isinstance(error, BlockingIOError | TimeoutError | self._library.TimeoutError):
            raise failure(self.name, error, f"no answer within {self._deadline:g} s") from error
        if isinstance(error, (*_errors(self._library), _Gone)):
            raise failure(self.name, error, _without_clients(str(error))) from error
        raise error

    # -- the whole store

    def check(self) -> bool:
        """Whether the server answers, within the deadline."""
        limit = Limit(1, 1, "second", strategy="fixed-window")
        try:
            self._ask(self._codec.decide([limit], "check", [0], TEST))
        except StorageError:
            return False
        return True

    def reset(self) -> int:  # type: ignore[override]
        """Delete all counters with this prefix, some hundred at a time; how many there were."""
        self._denials.clear()
        self._drop_idle()  # the pool may have no other for this
        try:
            return sum(_delete(self._client, self._pattern()))
        except _errors(self._library) as error:
            raise failure(self.name, error, _without_clients(str(error))) from error

    def close(self) -> None:
        """Close the connections that are idle."""
        self._drop_idle()
        if not self._lent:
            self._pool.disconnect(inuse_connections=False)


def _delete(client: Any, pattern: bytes) -> Iterator[int]:
    names: list[bytes] = []
    for name in client.scan_iter(match=pattern, count=500):
        names.append(name)
        if len(names) == 500:
            yield client.unlink(*names)
            names = []
    if names:
        yield client.unlink(*names)


def _pool_name(pool: Any, name: str) -> str:
    """Where a pool leads to."""
    known = pool.connection_kwargs
    scheme = scheme_of(name)
    if known.get("path"):
        return f"{scheme}+unix://{known['path']}"
    host, port = known.get("host", "localhost"), known.get("port", 6379)
    return f"{scheme}://{host}:{port}/{known.get('db') or 0}"


class RedisSentinelStorage(RedisStorage):
    """The master of a service that sentinels watch.

    :param service_name: if the URI does not name it
    :param sentinel_kwargs: options of the connections to the sentinels
    """

    def __init__(
        self,
        uri: str,
        service_name: str | None = None,
        sentinel_kwargs: dict[str, Any] | None = None,
        use_replicas: bool = False,
        **options: Any,
    ) -> None:
        self._service = service_name
        self._sentinel_options = sentinel_kwargs or {}
        super().__init__(uri, **options)

    def _open_client(self, uri: str, options: dict[str, Any]) -> Any:
        hosts = Hosts(uri, 26379)
        service = hosts.path.strip("/") or self._service
        if not service or not hosts.addresses:
            raise ConfigurationError(
                f"{self.name}: needs sentinels and a service: host:26379/service"
            )
        options = _with_deadline(options, self._library, max_connections=_UNBOUNDED)
        credentials = {
            name: value
            for name, value in (("username", hosts.username), ("password", hosts.password))
            if value is not None
        }
        timeout = options["socket_timeout"]
        sentinels = need(
            f"{self._library.__name__}.sentinel", self._library.__name__, scheme_of(uri)
        )
        sentinel = sentinels.Sentinel(
            hosts.addresses,
            sentinel_kwargs={
                # Together they get no more time than one server.
                "socket_timeout": timeout and timeout / len(hosts.addresses),
                "socket_connect_timeout": timeout and timeout / len(hosts.addresses),
                "retry": _no_retries(self._library),
                **credentials,
                **self._sentinel_options,
            },
            **{**credentials, **options},
        )
        return sentinel.master_for(service)


class RedisClusterStorage(_Remembering):
    """A Cluster. The limits of one client share a slot and are decided in one trip.

    Limits of several slots are charged slot after slot, in the order of the slots, and given back
    if a later one denies or cannot be asked.
    """

    def __init__(
        self,
        uri: str,
        key_prefix: str | bytes = "weir",
        remember_denials: float = 60.0,
        wrap_exceptions: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(uri, key_prefix, remember_denials, options)
        self._library = _library(uri)
        self._errors = _errors(self._library)
        self._hosts = Hosts(uri, 6379)
        _with_deadline(options, self._library)  # is it one?
        self._cluster: Any = None
        self._pid = os.getpid()
        self._opening = threading.Lock()
        if not self._hosts.addresses:
            raise ConfigurationError(f"{self.name}: needs nodes: host:6379,host:6379")

    @property
    def client(self) -> Any:
        """The client of redis-py or valkey-py, connected. Raises what that raises."""
        if self._pid != os.getpid():
            self._opening = threading.Lock()
            self._cluster = None
            self._denials = Denials(self._remember)
            self._pid = os.getpid()
        with self._opening:
            if self._cluster is None:
                self._cluster = self._open_client()
            return self._cluster

    def _open_client(self) -> Any:
        name = self._library.__name__
        cluster = need(f"{name}.cluster", name, scheme_of(self.name))
        kind = getattr(cluster, "ValkeyCluster", None) or cluster.RedisCluster
        options = {
            "username": self._hosts.username,
            "password": self._hosts.password,
            "cluster_error_retry_attempts": 1,
            **_with_deadline(self.options, self._library, max_connections=_UNBOUNDED),
        }
        retry = options.pop("retry")
        if "retry" in self.options or name == "redis":
            options["retry"] = retry
            options.pop("cluster_error_retry_attempts")
        nodes = [cluster.ClusterNode(*address) for address in self._hosts.addresses]
        return kind(startup_nodes=nodes, **options)

    def _ask(self, command: RedisCommand, once: bool = False) -> Decision | bool:
        arguments: list[Any] = command.arguments()
        try:
            client = self.client
            if arguments[0] == b"DEL":
                client.delete(*arguments[1:])
                return True
            try:
                packed = client.execute_command("EVALSHA", *arguments[1:], NEVER_DECODE=True)
            except self._library.exceptions.NoScriptError:
                arguments[1] = REDIS_SCRIPT
                packed = client.execute_command("EVAL", *arguments[1:], NEVER_DECODE=True)
            return command.read(b"$%d\r\n%b\r\n" % (len(packed), packed))  # type: ignore[return-value]
        except self._library.TimeoutError as error:
            raise failure(self.name, error, "no answer in time") from error
        except self._errors as error:
            raise failure(self.name, error, _readable(str(error))) from error

    def decide(
        self,
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        slots = self._codec.slots(limits, keys)
        if len(set(slots)) == 1:
            return super().decide(limits, keys, costs, mode)
        parts = [
            _Part(self, [i for i, its in enumerate(slots) if its == slot], limits, keys, costs)
            for slot in sorted(set(slots))
        ]
        if mode == HIT:
            self._hit_all(parts)
        else:
            for part in parts:
                part.ask(mode)
        verdicts: list[Any] = [None] * len(limits)
        for part in parts:
            for i, verdict in zip(part.places, part.verdicts, strict=True):
                verdicts[i] = verdict
        return Decision(verdicts, deciding(limits, verdicts), parts[0].now)

    def _hit_all(self, parts: list[_Part]) -> None:
        """Charge part after part; if one denies or cannot be asked, give back what was charged."""
        for n, part in enumerate(parts):
            try:
                allowed = part.ask(HIT)
            except BaseException:
                self._give_back(parts[:n])
                raise
            if not allowed:
                self._give_back(parts[:n])
                for later in parts[n + 1 :]:
                    later.ask(TEST)
                return

    def _give_back(self, parts: list[_Part]) -> None:
        for part in reversed(parts):
            try:
                part.ask(REFUND)
            except StorageError as error:
                logger.warning(
                    "%s; %d charged limits could not be given back", error, len(part.places)
                )

    def clear(self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /) -> None:
        for i, limit in enumerate(limits):
            super().clear([limit], [_key_at(keys, i)])

    def check(self) -> bool:
        """Whether the Cluster answers."""
        try:
            return bool(self.client.ping())
        except self._errors:
            return False

    def reset(self) -> int:  # type: ignore[override]
        """Delete all counters with this prefix, some hundred at a time; how many there were."""
        self._denials.clear()
        count = 0
        try:
            for node in self.client.get_primaries():
                for name in node.redis_connection.scan_iter(match=self._pattern(), count=500):
                    count += node.redis_connection.unlink(name)
        except self._errors as error:
            raise failure(self.name, error) from error
        return count

    def close(self) -> None:
        """Close all connections."""
        if self._cluster is not None:
            self._cluster.close()


class _Part:
    """The limits of a decision that share a slot."""

    def __init__(
        self,
        storage: RedisClusterStorage,
        places: list[int],
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        costs: Sequence[int] | None,
    ) -> None:
        self._storage = storage
        self.places = places
        self._limits = [limits[i] for i in places]
        self._keys = [_key_at(keys, i) for i in places]
        self._costs = None if costs is None else [costs[i] for i in places]
        self.verdicts: Sequence[Verdict] = ()
        self.now = 0.0

    def ask(self, mode: int) -> bool:
        decision = _Remembering.decide(self._storage, self._limits, self._keys, self._costs, mode)
        self.verdicts = decision[:]
        self.now = decision.now
        return decision.allowed


def _key_at(keys: str | bytes | Sequence[str | bytes], i: int) -> str | bytes:
    return keys if isinstance(keys, str | bytes) else keys[i]
