"""Storages by the interface of ``limits``: Weir's own, and those that applications bring."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from flask import Flask

import weir
from clocks import stop_clock
from servers.ports import PATIENCE
from weir import limits_storage, limits_util, strategies
from weir.aio import storage as aio_storage
from weir.aio import strategies as aio_strategies
from weir.flask import Limiter
from weir.flask.errors import ConfigurationError
from weir.limits_storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage
from weir.storage import SCHEMES, MemoryStorage, storage_from_string
from weir.stores.base import failure


@pytest.fixture(autouse=True)
def schemes() -> Iterator[None]:
    before = dict(SCHEMES)
    yield
    SCHEMES.clear()
    SCHEMES.update(before)


def make_storage() -> type[Any]:
    """A class that a program would define for limits."""

    class DictStorage(Storage):
        STORAGE_SCHEME = ["dict"]  # noqa: RUF012

        def __init__(
            self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any
        ) -> None:
            super().__init__(uri, wrap_exceptions, **options)
            self.counts: dict[str, int] = {}
            self.ends: dict[str, float] = {}
            self.away_now = False

        @property
        def base_exceptions(self) -> type[Exception]:
            return LookupError

        def _fresh(self, key: str) -> None:
            if self.away_now:
                raise LookupError("no server")
            if self.ends.get(key, 0) <= time.time():
                self.counts.pop(key, None)
                self.ends.pop(key, None)

        def incr(self, key: str, expiry: int, amount: int = 1) -> int:
            self._fresh(key)
            self.counts[key] = self.counts.get(key, 0) + amount
            self.ends.setdefault(key, time.time() + expiry)
            return self.counts[key]

        def get(self, key: str) -> int:
            self._fresh(key)
            return self.counts.get(key, 0)

        def get_expiry(self, key: str) -> float:
            return self.ends.get(key, time.time())

        def check(self) -> bool:
            return not self.away_now

        def reset(self) -> int:
            count = len(self.counts)
            self.counts.clear()
            return count

        def clear(self, key: str) -> None:  # type: ignore[override]
            self.counts.pop(key, None)

    return DictStorage


# -------------------------------------------------------------------------------- Weir's own stores


@pytest.mark.parametrize("uri", ["memory://", "auto://", "shm"])
def test_the_documented_methods(uri: str) -> None:
    name = f"shm://test-{time.monotonic_ns()}" if uri == "shm" else uri
    storage: Any = storage_from_string(name, keys=1000)
    try:
        limiter = strategies.STRATEGIES["fixed-window"](storage)
        item = weir.parse("3/minute")
        assert limiter.hit(item, "alice")
        key = item.key_for("alice")
        assert storage.get(key) == storage.storage[key] == 1
        assert storage.incr(key, 60) == 2
        assert storage.get_expiry(key) == limiter.get_window_stats(item, "alice").reset_time
        storage.clear(key)
        assert storage.get(key) == 0
        assert key not in storage.storage
        assert storage.incr("bare", 60, 4) == 4
        assert storage.acquire_entry("m", 1, 60)
        assert not storage.acquire_entry("m", 1, 60)
        assert storage.check() is True
        assert storage.reset() > 0
        assert storage.get("bare") == 0
        for kind in (Storage, MovingWindowSupport, SlidingWindowCounterSupport):
            assert isinstance(storage, kind)
        with pytest.raises(TypeError):
            storage.clear(7)
    finally:
        if uri == "shm":
            weir.unlink(name)


def test_an_overridden_incr_of_a_memory_storage_is_called() -> None:
    class Doubled(MemoryStorage):
        def incr(self, key: str, expiry: float, amount: int = 1) -> int:
            return super().incr(key, expiry, amount * 2)

    storage = Doubled()
    limiter = strategies.STRATEGIES["fixed-window"](storage)
    assert [limiter.hit(weir.parse("4/minute"), "a") for _ in range(3)] == [True, True, False]
    assert limiter.get_window_stats(weir.parse("4/minute"), "a").remaining == 0
    limiter.clear(weir.parse("4/minute"), "a")
    assert limiter.hit(weir.parse("4/minute"), "a")
    moving = strategies.STRATEGIES["moving-window"](storage)
    assert [moving.hit(weir.parse("2/minute"), "a") for _ in range(3)] == [True, True, False]


# ------------------------------------------------------------------------------- an application's


@pytest.mark.parametrize("kind", ["MemoryStorage", "RedisStorage", "MemcachedStorage"])
def test_a_method_that_would_not_be_called_cannot_be_replaced(kind: str) -> None:
    for what in (f"weir.limits_storage.{kind}.incr", f"weir.limits_storage.{kind}.acquire_entry"):
        with pytest.raises(AttributeError, match=r"decided in the core"), mock.patch(what):
            pass
    with pytest.raises(AttributeError, match=r"decided in the core"):
        MemoryStorage().incr = None  # type: ignore[method-assign, assignment]


def test_methods_that_are_called_can_be_replaced() -> None:
    class Doubled(MemoryStorage):
        def incr(self, key: str, expiry: float, amount: int = 1) -> int:
            return super().incr(key, expiry, amount * 2)

    item = weir.parse("3/minute")
    own = make_storage()
    with (
        mock.patch.object(own, "incr", side_effect=LookupError("gone")),
        pytest.raises(weir.StorageError, match="gone"),
    ):
        strategies.STRATEGIES["fixed-window"](own()).hit(item, "a")
    limiter = strategies.STRATEGIES["fixed-window"](Doubled())
    with mock.patch.object(Doubled, "incr", return_value=4):
        assert not limiter.hit(item, "a")
    assert limiter.hit(item, "a")


def test_a_custom_storage_is_found_and_used() -> None:
    kind = make_storage()
    storage: Any = storage_from_string("dict://")
    assert type(storage) is kind
    limiter = strategies.STRATEGIES["fixed-window"](storage)
    assert limiter.storage is storage
    item = weir.parse("2/minute")
    assert limiter.test(item, "a", cost=2)
    assert [limiter.hit(item, "a") for _ in range(3)] == [True, True, False]
    assert storage.counts == {"LIMITER/a/2/1/minute": 3}
    assert limiter.get_window_stats(item, "a").remaining == 0
    limiter.clear(item, "a")
    assert limiter.hit(item, "a")
    for name in ("moving-window", "sliding-window-counter", "token-bucket"):
        with pytest.raises(NotImplementedError, match=f"cannot count by {name}"):
            strategies.STRATEGIES[name](storage)


def test_flask_limits_by_a_custom_storage() -> None:
    make_storage()
    app = Flask("shop")
    limiter = Limiter(lambda: "me", app=app, storage_uri="dict://", headers_enabled=True)
    app.add_url_rule("/", "index", limiter.limit("2/minute;9/hour")(lambda: "hello"))
    answers = [app.test_client().get("/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["X-RateLimit-Remaining"] == "1"
    storage: Any = limiter.storage
    assert sorted(storage.counts.values()) == [2, 2]
    assert all(key.startswith("LIMITER/me/index/") for key in storage.counts)


def test_an_exception_of_a_storage_is_an_outage() -> None:
    storage: Any = make_storage()()
    storage.away_now = True
    with pytest.raises(weir.StorageError, match="no server") as error:
        strategies.STRATEGIES["fixed-window"](storage).hit(weir.parse("1/minute"), "a")
    assert isinstance(error.value.storage_error, LookupError)
    assert isinstance(error.value, LookupError)  # handlers of the application's own error find it


def test_errors_of_methods_are_wrapped_with_wrap_exceptions() -> None:
    storage: Any = make_storage()(wrap_exceptions=True)
    storage.away_now = True
    with pytest.raises(weir.StorageError, match="no server") as error:
        storage.incr("key", 60)
    assert isinstance(error.value.storage_error, LookupError)
    plain: Any = make_storage()()
    plain.away_now = True
    with pytest.raises(LookupError) as raised:
        plain.incr("key", 60)
    assert not isinstance(raised.value, weir.StorageError)


def test_the_names_of_sliding_windows_by_time() -> None:
    names = limits_storage.TimestampedSlidingWindow.sliding_window_keys("key", 60, 1738576292.66)
    assert names == ("key/28976270", "key/28976271")


def test_custom_moving_and_sliding_windows() -> None:
    table = weir.storage.MemoryStorage()

    class Both(make_storage(), MovingWindowSupport, SlidingWindowCounterSupport):  # type: ignore[misc]
        STORAGE_SCHEME = "both"

        def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
            return table.acquire_entry(key, limit, expiry, amount)

        def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
            return table.get_moving_window(key, limit, expiry)

        def acquire_sliding_window_entry(
            self, key: str, limit: int, expiry: int, amount: int = 1
        ) -> bool:
            return table.acquire_sliding_window_entry(key, limit, expiry, amount)

        def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
            return table.get_sliding_window(key, expiry)

        def clear_sliding_window(self, key: str, expiry: int) -> None:
            table.clear_sliding_window(key, expiry)

    storage = storage_from_string("both://")
    for name in ("moving-window", "sliding-window-counter"):
        limiter = strategies.STRATEGIES[name](storage)
        item = weir.parse("2/day")
        assert [limiter.hit(item, name) for _ in range(3)] == [True, True, False]
        assert limiter.get_window_stats(item, name).remaining == 0


def test_a_custom_strategy_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(strategies.STRATEGIES["fixed-window"]):  # type: ignore[misc]
        def hit(self, item: Any, *identifiers: object, cost: int = 1) -> bool:
            return False

    assert not Mine(MemoryStorage()).hit(weir.parse("1/minute"), "a")
    for name in ("mine", "fixed-window"):
        monkeypatch.setitem(strategies.STRATEGIES, name, Mine)
        with pytest.raises(ConfigurationError, match="Mine is a custom class"):
            Limiter(lambda: "me", app=Flask("shop"), strategy=name, storage_uri="memory://")


def test_unknown_stores_are_refused_with_a_list() -> None:
    with pytest.raises(weir.ConfigurationError, match="'nosuch': one of ") as refused:
        storage_from_string("nosuch://host")
    known = str(refused.value).partition("one of ")[2].split(", ")
    assert {"file://", "memcached://", "memory://"} <= set(known)


# ------------------------------------------------------------------------------------------- names


def test_dependencies() -> None:
    class Needs(limits_util.LazyDependency):
        DEPENDENCIES = ("json", "no_such_module")

    dependencies = Needs().dependencies
    assert dependencies["json"].module.__name__ == "json"
    with pytest.raises(
        weir.ConfigurationError, match="'no_such_module' prerequisite not available"
    ):
        dependencies["no_such_module"]
    assert limits_util.get_dependency("no_such_module") == (limits_util.MissingModule, None)
    assert str(limits_util.get_dependency("json.decoder")[1]) >= "0"


def test_errors_of_a_client_library_are_caught_by_their_names() -> None:
    import redis

    for client in (redis.exceptions.ConnectionError("gone"), redis.exceptions.TimeoutError("slow")):
        error = failure("redis://h", client)
        assert isinstance(error, redis.exceptions.RedisError)
        assert isinstance(error, type(client))
        assert isinstance(error, weir.StorageError)
        assert error.storage_error is client
        assert str(error).startswith("redis://h: ")
    assert not isinstance(failure("redis://h", ValueError("x")), ValueError)


def test_parse_of_several_limits_is_the_first_under_compat() -> None:
    assert limits_util.parse("10/second;5/minute") == weir.parse("10/second")
    with pytest.raises(ValueError, match="str"):
        limits_util.parse(None)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- aio


@pytest.mark.parametrize("strategy", sorted(aio_strategies.STRATEGIES))
def test_aio_on_a_table(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, 1_700_000_000.0)

    async def run() -> list[Any]:
        storage = storage_from_string("async+memory://?keys=1000")
        limiter = aio_strategies.STRATEGIES[strategy](storage)
        item = weir.parse("1/day")
        answers: list[Any] = [await limiter.test(item, "a")]
        answers += [await limiter.hit(item, "a") for _ in range(2)]
        answers.append((await limiter.get_window_stats(item, "a")).remaining)
        await limiter.clear(item, "a")
        return [*answers, await limiter.hit(item, "a"), await storage.check()]  # type: ignore[misc]

    assert asyncio.run(run()) == [True, True, False, 0, True, True]


def make_aio_storage() -> Any:
    class Mine(aio_storage.Storage):
        STORAGE_SCHEME = "async+mine"

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.counts: Counter[str] = Counter()

        async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
            self.counts[key] += amount
            return self.counts[key]

        async def get(self, key: str) -> int:
            return self.counts[key]

        async def get_expiry(self, key: str) -> float:
            return time.time() + 60

        async def check(self) -> bool:
            return True

        async def reset(self) -> int:
            return 0

        async def clear(self, key: str) -> None:
            del self.counts[key]

    return Mine


def test_custom_aio_storages() -> None:
    make_aio_storage()

    async def run() -> list[Any]:
        storage = aio_storage.storage_from_string("mine://")
        limiter = aio_strategies.STRATEGIES["fixed-window"](storage)
        item = weir.parse("2/day")
        answers: list[Any] = [await limiter.hit(item, "a") for _ in range(3)]
        answers.append((await limiter.get_window_stats(item, "a")).remaining)
        await limiter.clear(item, "a")
        return [*answers, await limiter.test(item, "a")]

    assert asyncio.run(run()) == [True, True, False, 0, True]

    for name in ("moving-window", "token-bucket"):
        with pytest.raises(NotImplementedError):
            aio_strategies.STRATEGIES[name](aio_storage.storage_from_string("mine://"))


def test_errors_of_aio_storages_are_wrapped_with_wrap_exceptions() -> None:
    class Away(make_aio_storage()):  # type: ignore[misc]
        base_exceptions = LookupError  # type: ignore[assignment]

        async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
            raise LookupError("no server")

    for wrap, expected in ((False, LookupError), (True, weir.StorageError)):
        limiter = aio_strategies.STRATEGIES["fixed-window"](Away("mine://", wrap_exceptions=wrap))
        with pytest.raises(expected, match="no server") as error:
            asyncio.run(limiter.hit(weir.parse("2/day"), "a"))
        assert isinstance(getattr(error.value, "storage_error", error.value), LookupError)


PROGRAM = """
import weir
weir.install_as_flask_limiter()
from limits import storage, strategies, RateLimitItemPerMinute
from limits.storage import (MemcachedStorage, MemoryStorage, MovingWindowSupport, RedisStorage,
    RedisClusterStorage, RedisSentinelStorage, SlidingWindowCounterSupport, Storage)
from limits.storage.registry import StorageRegistry
from limits.errors import ConcurrentUpdateError, ConfigurationError, StorageError
from limits.aio.storage import RedisStorage as AsyncRedis, MemoryStorage as AsyncMemory
from limits.aio.strategies import FixedWindowRateLimiter
from limits.typing import Callable, NamedTuple
from limits.util import LazyDependency, WindowStats, get_dependency, granularity_from_string
assert isinstance(storage.storage_from_string("memory://"), MemoryStorage)
class Mine(Storage):
    STORAGE_SCHEME = ["mine"]
assert type(Mine) is StorageRegistry
try:
    storage.storage_from_string("mongodb://host")
    storage.MongoDBStorage
except (ConfigurationError, AttributeError) as error:
    print(str(error)[:40])
else:
    print("there is mongodb")
"""


def test_the_names_under_compat() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "mongodb" in done.stdout
    assert limits_storage.RedisStorage.__name__ == "RedisStorage"
