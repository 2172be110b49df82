"""weir.aio over real servers: the counters of the stores that are not asynchronous."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import weir
from weir.aio import storage as aio_storage
from weir.aio.strategies import STRATEGIES

TABLES = ("table", "memory", "shm", "file", "auto")


@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window", "token-bucket"])
def test_aio_counts_what_the_store_counts(store: Any, strategy: str, key: str) -> None:
    uri = getattr(store, "uri", None)
    if (
        not isinstance(uri, str)
        or uri.partition("://")[0] + "://" not in weir.stores.registry.known_schemes()
    ):
        pytest.skip("it cannot be opened by its URI alone")
    if isinstance(store, weir.Table):
        pytest.skip("tables have a test of their own")
    if uri.startswith("postgresql"):
        pytest.skip("its functions are to be made first")
    options = {name: value for name, value in store.options.items() if name != "retry"}
    item = weir.parse("5/day")

    async def run() -> list[Any]:
        storage = aio_storage.storage_from_string(uri, **options)
        limiter = STRATEGIES[strategy](storage)
        answers = await asyncio.gather(*[limiter.hit(item, key) for _ in range(4)])
        assert all(answers)
        assert await storage.check()
        remaining = (await limiter.get_window_stats(item, key)).remaining
        last = [await limiter.hit(item, key) for _ in range(2)]
        assert not await limiter.test(item, key)
        await storage.close()
        return [remaining, *last]

    assert asyncio.run(run()) == [1, True, False]
    limiter = weir.strategies.STRATEGIES[strategy](store)
    assert limiter.get_window_stats(item, key).remaining == 0

    async def clear() -> bool:
        limiter = STRATEGIES[strategy](aio_storage.storage_from_string(uri, **options))
        await limiter.clear(item, key)
        allowed = await limiter.hit(item, key, cost=5)
        await limiter.storage.close()
        return allowed

    assert asyncio.run(clear())


@pytest.mark.parametrize("scheme", ["redis", "memcached"])
def test_the_interface_of_limits_on_a_server(servers: Any, scheme: str, key: str) -> None:
    uri = servers.redis.uri if scheme == "redis" else servers.memcached.uri
    store: Any = weir.storage.storage_from_string(uri)
    item = weir.parse("3/day")
    name = item.key_for(key)
    limiter = weir.strategies.STRATEGIES["fixed-window"](store)
    assert limiter.hit(item, key)
    assert [store.get(name), store.incr(name, 86400)] == [1, 2]
    store.clear(name)
    assert store.get(name) == 0
    assert [store.incr(key, 60) for _ in range(2)] == [1, 2]
    assert store.get(key) == 2
    assert store.acquire_entry(key, 1, 60)
    assert not store.acquire_entry(key, 1, 60)
    assert store.acquire_sliding_window_entry(key, 1, 60)
    store.clear(key)
    assert store.get(key) == 0
    assert store.acquire_entry(key, 1, 60)
    store.close()


def test_a_server_that_is_away() -> None:
    import redis

    async def run() -> None:
        limiter = STRATEGIES["fixed-window"](aio_storage.storage_from_string("redis://127.0.0.1:1"))
        await limiter.hit(weir.parse("1/minute"), "a")

    with pytest.raises(weir.StorageError) as error:
        asyncio.run(run())
    assert isinstance(error.value, redis.exceptions.RedisError)
