"""Redis and Valkey: one script call for a whole decision, on the server's clock.

==================================================  ===========================================
``redis://user:password@host:6379/0``               one server; ``rediss://`` by TLS
``redis+unix:///run/redis.sock?db=0``               one server, by a socket file
``redis+sentinel://host:26379,host:26379/service``  the master that the sentinels name
``redis+cluster://host:6379,host:6379``             a Cluster
==================================================  ===========================================

The same with ``valkey``, by valkey-py (TLS: ``valkeys://``). Options are passed to redis-py or
valkey-py, except ``connection_pool`` (a pool of that library), ``key_prefix`` and
``remember_denials``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from .._clock import monotonic
from .._core import HIT, Decision, Evaluation, Limit, RedisCommand
from ..errors import ConfigurationError
from .base import failure, need, raise_translated, seconds
from .hosts import Hosts, Resolver, scheme_of
from .redis_base import (
    UNBOUNDED,
    Remembering,
    client_class,
    default_deadline,
    delete_names,
    is_of,
    library_of,
    no_retries,
    with_deadline,
)
from .redis_cluster import RedisClusterStorage
from .redis_errors import answer_failure, call_failure, errors_of, without_clients
from .redis_fake import FakeStates, call_mock, is_fake
from .redis_server import Server, prepare_pool

__all__ = ["RedisClusterStorage", "RedisSentinelStorage", "RedisStorage"]


class RedisStorage(Remembering):
    """One server, or the server that the client library selects.

    :param uri: see the module
    :param connection_pool: a pool of redis-py or valkey-py. Because it may be shared, each check
     borrows a connection, which takes longer than keeping one
    :param key_prefix: the first part of all names
    :param remember_denials: seconds for which a denial may be repeated from memory; 0: never
    :param options: for the client library. ``socket_timeout``, here, in the URI or in the pool, is
     the deadline of a call, by default 250 ms; ``None``: no deadline

    >>> storage = RedisStorage("redis://127.0.0.1:6379/0")  # connects at the first decision
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
        self._library = library_of(uri)
        self._resolver = Resolver()
        lent = connection_pool is not None
        if lent:
            self._client = client_class(self._library)(connection_pool=connection_pool)
            self.name = _pool_name(connection_pool, self.name)
        else:
            self._client = self._open_client(uri, options)
        pool = self._client.connection_pool
        self._fake: FakeStates | None = None
        if is_fake(pool):
            self._fake = FakeStates(
                self._client,
                self._library,
                self.name,
                key_prefix=key_prefix,
                remember_denials=remember_denials,
            )
        elif not lent:
            prepare_pool(self._library, pool, self._resolver)
        known = pool.connection_kwargs
        deadline = known.get("socket_timeout", default_deadline(self._library))
        self.deadline = seconds(deadline, "socket_timeout")
        seconds(known.get("socket_connect_timeout"), "socket_connect_timeout")
        try:
            pool.connection_class(**known)  # does not connect
        except (TypeError, self._library.exceptions.RedisError) as error:
            raise ConfigurationError(f"{self.name}: {error}") from None
        self._server = Server(pool, lent, self._warn_of_eviction)

    def set_clock(self, seconds: float = 0.0, given: bool = False) -> None:
        super().set_clock(seconds, given)
        if self._fake is not None:
            self._fake.set_clock(seconds, given)

    def decide(
        self,
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        if self._fake is not None:
            return self._fake.decide(limits, keys, costs, mode)
        return self.decide_command(self.encode(limits, keys, costs, mode), mode, monotonic())

    def decide_prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, /
    ) -> None:
        check = evaluation.check
        if settling or parts & (check.shadows | check.peeked | check.deferred):
            super().decide_prepared(evaluation, mode, parts, settling)
            return
        # The common case: all limits are charged, by one command.
        started_at = monotonic()
        _, limits, keys, costs = evaluation.checks(parts)
        if self._fake is None:
            command = self.encode(limits, keys, costs, mode)
            decision = self.decide_command(command, mode, started_at)
        else:
            decision = self._fake.decide(limits, keys, costs, mode)
        evaluation.keep(parts, decision, False)

    def decide_command(self, command: RedisCommand, mode: int, started_at: float) -> Decision:
        try:
            if call_mock(self._client):
                self._denials.clear()
        except Exception as error:
            self._denials.clear()
            self._fail(error)
        return super().decide_command(command, mode, started_at)

    def clear(self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /) -> None:
        if self._fake is not None:
            self._fake.clear(limits, keys)
        else:
            super().clear(limits, keys)

    def check(self) -> bool:
        if self._fake is not None:
            return self._fake.check()
        try:
            call_mock(self._client)
        except Exception:
            return False
        return super().check()

    def drop_denials(self) -> None:
        super().drop_denials()
        if self._fake is not None:
            self._fake.drop_denials()

    def _open_client(self, uri: str, options: dict[str, Any]) -> Any:
        scheme, _, rest = uri.partition("://")
        url = f"unix://{rest}" if scheme.endswith("+unix") else uri
        database = rest.partition("?")[0].partition("/")[2].strip("/")
        if url is uri and database and not database.isdecimal():
            raise ConfigurationError(f"{self.name}: {database!r} is not a database number")
        try:
            return self._library.from_url(
                url, **with_deadline(options, self._library, max_connections=UNBOUNDED)
            )
        except ValueError as error:
            raise ConfigurationError(f"{self.name}: {error}") from None

    @property
    def client(self) -> Any:
        """The client of redis-py or valkey-py."""
        return self._client

    @property
    def storage(self) -> Any:
        """The same, by its name in ``limits``."""
        return self.client

    def _request(
        self, command: RedisCommand, started_at: float, harmless: bool = False
    ) -> Decision | bool:
        deadline = self.deadline
        try:
            answer = self._server.request(
                command, deadline, None if deadline is None else started_at + deadline, harmless
            )
        except BaseException as error:
            self._fail(error)
        if isinstance(answer, str):
            raise answer_failure(self.name, answer)
        if answer is False:
            raise failure(self.name, "the server does not keep the script")
        return answer

    def _fail(self, error: BaseException) -> NoReturn:
        """Raise the error of a call, converted to an error of this store."""
        raise_translated(call_failure(self.name, error, self._library, self.deadline), error)

    def reset(self) -> int:  # type: ignore[override]
        """Delete all counters with this prefix, some hundred at a time. Return their number."""
        if self._fake is not None:
            self._denials.clear()
            return self._fake.delete_all()
        return self.reset_of("", ())

    def reset_of(self, own: str, others: Collection[str]) -> int:
        """Delete the counters of one application of ``weir.flask``; return their number.

        own: its ``key_prefix``; others: those of other applications with the store's prefix.
        """
        if self._fake is not None:
            return self.reset()
        self._denials.clear()
        self._server.drop_idle()
        try:
            return sum(delete_names(self._client, self._pattern(own), is_of(own, others)))
        except errors_of(self._library) as error:
            raise failure(self.name, error, without_clients(str(error))) from error

    def close(self) -> None:
        """Close idle connections."""
        self._server.close()


def _pool_name(pool: Any, name: str) -> str:
    """The address of a pool's server, for messages."""
    known = pool.connection_kwargs
    scheme = scheme_of(name)
    if known.get("path"):
        return f"{scheme}+unix://{known['path']}"
    host, port = known.get("host", "localhost"), known.get("port", 6379)
    return f"{scheme}://{host}:{port}/{known.get('db') or 0}"


class RedisSentinelStorage(RedisStorage):
    """The master of a service that Sentinels monitor.

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
        options = with_deadline(options, self._library, max_connections=UNBOUNDED)
        sentinel_kwargs = {
            name.removeprefix("sentinel_"): options.pop(name)
            for name in ("sentinel_username", "sentinel_password")
            if name in options
        }
        credentials = {  # used for the sentinels as well, as in limits
            name: value
            for name, value in (
                ("username", options.get("username") or hosts.username),
                ("password", options.get("password") or hosts.password),
            )
            if value is not None
        }
        timeout = options["socket_timeout"]
        sentinels = need(
            f"{self._library.__name__}.sentinel", self._library.__name__, scheme_of(uri)
        )
        sentinel = sentinels.Sentinel(
            hosts.addresses,
            sentinel_kwargs={
                # All sentinels together get the time of one server.
                "socket_timeout": timeout and timeout / len(hosts.addresses),
                "socket_connect_timeout": timeout and timeout / len(hosts.addresses),
                "retry": no_retries(self._library),
                **credentials,
                **sentinel_kwargs,
                **self._sentinel_options,
            },
            **{**credentials, **options},
        )
        for client in sentinel.sentinels:
            prepare_pool(self._library, client.connection_pool, self._resolver)
        return sentinel.master_for(service)
