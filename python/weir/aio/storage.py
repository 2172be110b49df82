"""Stores for asyncio, and base classes for custom ones: the names of ``limits.aio.storage``."""

from __future__ import annotations

import asyncio
import importlib
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

from .._core import HIT, REDIS_SCRIPT, Decision, Limit, RedisCommand
from ..errors import ConfigurationError, StorageError
from ..storage_methods import wrap_errors
from ..stores import registry
from ..stores.base import failure, raise_translated
from ..stores.redis_errors import answer_failure, call_failure
from ..stores.registry import register_schemes
from ..util import LazyDependency

__all__ = [
    "LocalStorage",
    "MemcachedStorage",
    "MemoryStorage",
    "MongoDBStorage",
    "MovingWindowSupport",
    "RedisClusterStorage",
    "RedisSentinelStorage",
    "RedisStorage",
    "SlidingWindowCounterSupport",
    "Storage",
    "ThreadedStorage",
    "storage_from_string",
]

T = TypeVar("T")


def _plain(uri: str) -> str:
    return uri.removeprefix("async+")


class Storage(LazyDependency, ABC):
    """Base of storages with coroutines. ``STORAGE_SCHEME`` registers a class, as ``async+name``."""

    STORAGE_SCHEME: ClassVar[Any] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        wrap_errors(cls)
        register_schemes(cls)

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any
    ) -> None:
        super().__init__()
        self.uri = uri
        self.options = options
        self.wrap_exceptions = wrap_exceptions

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """The exceptions that its coroutines raise during an outage."""
        return StorageError, OSError

    @abstractmethod
    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to the counter of a key, and return the new value."""

    @abstractmethod
    async def get(self, key: str) -> int:
        """The counter of a key."""

    @abstractmethod
    async def get_expiry(self, key: str) -> float:
        """When the window of a key ends, in seconds since the epoch."""

    @abstractmethod
    async def check(self) -> bool:
        """Whether the storage answers."""

    @abstractmethod
    async def reset(self) -> int | None:
        """Delete all counters. Returns their number."""

    @abstractmethod
    async def clear(self, key: str) -> None:
        """Remove the counters of a key."""


class MovingWindowSupport(ABC):
    """The methods that a storage needs for moving windows."""

    @abstractmethod
    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add entries if there is room for all of them; return whether they were added."""

    @abstractmethod
    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The time of the oldest entry, and the number of entries."""


class SlidingWindowCounterSupport(ABC):
    """The methods that a storage needs for sliding window counters."""

    @abstractmethod
    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Add an entry if there is room; return whether it was added."""

    @abstractmethod
    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Count and seconds left of the previous window, then of the current one."""

    @abstractmethod
    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Remove the counters of a key."""


class StoreStorage(Storage, MovingWindowSupport, SlidingWindowCounterSupport):
    """One of Weir's stores behind coroutines; subclasses define how it is called."""

    #: The store itself.
    store: Any

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of the store."""
        return function(*arguments)

    async def decide(self, limit: Limit, key: str, cost: int, mode: int = HIT) -> Decision:
        """The same as :meth:`weir.storage.Storage.decide`, for one limit."""
        return await self.call(self.store.decide, [limit], [key], [cost], mode)

    async def remove(self, limit: Limit, key: str) -> None:
        """Remove one counter."""
        await self.call(self.store.clear, [limit], [key])

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return await self.call(self.store.incr, key, expiry, amount)

    async def get(self, key: str) -> int:
        return await self.call(self.store.get, key)

    async def get_expiry(self, key: str) -> float:
        return await self.call(self.store.get_expiry, key)

    async def check(self) -> bool:
        return await self.call(self.store.check)

    async def reset(self) -> int | None:
        return await self.call(self.store.reset)

    async def clear(self, key: str) -> None:
        await self.call(self.store.clear_key, key)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return await self.call(self.store.acquire_entry, key, limit, expiry, amount)

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        return await self.call(self.store.get_moving_window, key, limit, expiry)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        return await self.call(self.store.acquire_sliding_window_entry, key, limit, expiry, amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        return await self.call(self.store.get_sliding_window, key, expiry)

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        await self.call(self.store.clear_sliding_window, key, expiry)


class LocalStorage(StoreStorage):
    """A table: ``async+memory://``, ``async+shm://name``, ``async+file:///path``, ``async+auto://``."""

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any
    ) -> None:
        super().__init__(uri, wrap_exceptions, **options)
        self.store = registry.storage_from_string(_plain(uri or "memory://"), **options)

    @property
    def storage(self) -> Any:
        """The counters by their keys."""
        return self.store.storage


class MemoryStorage(LocalStorage):
    """``async+memory://``."""


class ThreadedStorage(StoreStorage):
    """A store with a blocking client library, which is called in a thread."""

    def __init__(self, uri: str, wrap_exceptions: bool = False, **options: Any) -> None:
        super().__init__(uri, wrap_exceptions, **options)
        self.store = registry.storage_from_string(_plain(uri), **options)

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(function, *arguments)

    async def close(self) -> None:
        """Close its connections, if it has any."""
        close = getattr(self.store, "close", None)
        if close is not None:
            close()


class MemcachedStorage(ThreadedStorage):
    """``async+memcached://``."""


class MongoDBStorage(ThreadedStorage):
    """``async+mongodb://``."""


class RedisStorage(ThreadedStorage):
    """Redis or Valkey through the client library's asyncio side; one round trip per decision.

    The other methods of the interface of ``limits``, such as ``get(key)``, run in a thread.

    :param implementation: accepted for ``limits``; the URI selects redis-py or valkey-py
    """

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        implementation: str = "redispy",
        **options: Any,
    ) -> None:
        if implementation not in ("coredis", "redispy", "valkey"):
            raise ConfigurationError(
                f"implementation={implementation!r}: there are 'redispy' and 'valkey'"
            )
        super().__init__(uri, wrap_exceptions, **options)
        self._codec = self.store._codec
        self._library = self.store._library
        #: A client's connections belong to the event loop that opened them.
        self._clients: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    @property
    def storage(self) -> Any:
        """The client of the library, for the running event loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._open()
        return client

    def _module(self, name: str = "") -> Any:
        return importlib.import_module(f"{self._library.__name__}.asyncio{name}")

    def _no_retries(self) -> Any:
        retry = self._module(".retry").Retry
        return retry(importlib.import_module(f"{self._library.__name__}.backoff").NoBackoff(), 0)

    def _options(self) -> dict[str, Any]:
        """The deadlines of the store, and no retries, which could charge twice."""
        deadline = self.store.deadline
        options = {
            "socket_timeout": deadline,
            "socket_connect_timeout": deadline,
            "retry": self._no_retries(),
        }
        return {**options, **{k: v for k, v in self.options.items() if k not in _OURS}}

    def _open(self) -> Any:
        module = self._module()
        kind = getattr(module, "Valkey", None) or module.Redis
        uri = _plain(self.uri or "")
        if "+unix" in uri.partition("://")[0]:
            uri = f"unix://{uri.partition('://')[2]}"
        return kind.from_url(uri, **self._options())

    async def close(self) -> None:
        """Close this event loop's connections, and those that were opened in threads."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()
            pool = getattr(client, "connection_pool", None)
            sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
            for each in (pool, *[sentinel.connection_pool for sentinel in sentinels]):
                if each is not None:
                    await each.disconnect()
        self.store.close()

    async def _exchange(self, command: RedisCommand) -> bytes | None:
        """Send a command. Return the reply of the script; None for a command without a script."""
        arguments: list[Any] = command.arguments()
        client = self.storage
        if arguments[0] == b"DEL":
            await client.execute_command("DEL", *arguments[1:])
            return None
        try:
            packed = await client.execute_command("EVALSHA", *arguments[1:], NEVER_DECODE=True)
        except self._library.exceptions.NoScriptError:
            packed = await client.execute_command(
                "EVAL", REDIS_SCRIPT, *arguments[2:], NEVER_DECODE=True
            )
        return cast(bytes, packed)

    def _failure(self, error: Exception) -> BaseException:
        if type(error) is self._library.exceptions.ResponseError:
            return answer_failure(self.store.name, error)
        if isinstance(error, asyncio.TimeoutError):  # no TimeoutError before Python 3.11
            error = TimeoutError()
        return call_failure(self.store.name, error, self._library, self.store.deadline)

    async def _request(self, command: RedisCommand) -> Decision | bool:
        try:
            # One deadline for name resolution, connecting and all replies.
            packed = await asyncio.wait_for(self._exchange(command), self.store.deadline)
        except Exception as error:
            raise_translated(self._failure(error), error)
        if packed is None:
            return True
        answer = command.read(b"$%d\r\n%b\r\n" % (len(packed), packed))
        if not isinstance(answer, Decision | bool):
            raise failure(self.store.name, str(answer))
        return answer

    async def decide(self, limit: Limit, key: str, cost: int, mode: int = HIT) -> Decision:
        return cast(Decision, await self._request(self._codec.decide([limit], [key], [cost], mode)))

    async def remove(self, limit: Limit, key: str) -> None:
        await self._request(self._codec.clear([limit], [key]))


#: Options of Weir's stores that the client libraries do not have.
_OURS = ("key_prefix", "remember_denials", "connection_pool", "service_name", "sentinel_kwargs")


class RedisClusterStorage(RedisStorage):
    """A Cluster: ``async+redis+cluster://host:port,host:port``."""

    def _open(self) -> Any:
        cluster = self._module(".cluster")
        kind = getattr(cluster, "ValkeyCluster", None) or cluster.RedisCluster
        hosts = self.store._hosts
        nodes = [cluster.ClusterNode(*address) for address in hosts.addresses]
        return kind(
            startup_nodes=nodes,
            username=hosts.username,
            password=hosts.password,
            **self._options(),
            **self._no_attempts(),
        )

    def _no_attempts(self) -> dict[str, int]:
        """The option that turns off retries in a cluster client that has no ``retry``."""
        if self._library.__name__ == "redis" and hasattr(self._no_retries(), "get_retries"):
            return {}
        return {"cluster_error_retry_attempts": 0}


class RedisSentinelStorage(RedisStorage):
    """The master that sentinels name: ``async+redis+sentinel://host:26379/service``."""

    def _open(self) -> Any:
        # The blocking store has already parsed addresses, passwords and deadlines.
        pool = self.store.client.connection_pool
        manager = pool.sentinel_manager
        addresses = [
            (known["host"], known["port"])
            for known in (client.connection_pool.connection_kwargs for client in manager.sentinels)
        ]
        mine = ("retry", "connection_pool")
        kwargs = {k: v for k, v in manager.sentinel_kwargs.items() if k not in mine}
        options = {k: v for k, v in manager.connection_kwargs.items() if k not in mine}
        options.pop("max_connections", None)
        options["retry"] = kwargs["retry"] = self._no_retries()
        sentinel = self._module(".sentinel").Sentinel(addresses, sentinel_kwargs=kwargs, **options)
        return sentinel.master_for(pool.service_name)


def storage_from_string(storage_string: str, **options: Any) -> Any:
    """Open the store of a URI such as ``async+redis://…``. ``async+`` may be omitted."""
    if isinstance(storage_string, str):
        storage_string = f"async+{_plain(storage_string.lstrip())}"
    return registry.storage_from_string(storage_string, **options)
