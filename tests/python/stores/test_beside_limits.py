"""Programs written for limits get the same types and, where possible, the same values."""

from __future__ import annotations

import time
from typing import Any

import limits
import limits.storage
import limits.strategies
import pytest

import weir
from clocks import stop_clock
from weir import limits_util
from weir.storage import storage_from_string

STRATEGIES = ("fixed-window", "moving-window", "sliding-window-counter")


def shape(value: Any) -> Any:
    """The types in a value, each number's sort and size apart."""
    if isinstance(value, tuple):
        return type(value).__name__, [shape(one) for one in value]
    return type(value).__name__


def raised_by(function: Any, *arguments: Any) -> BaseException | None:
    try:
        function(*arguments)
    except Exception as error:
        return error
    return None


def close(store: Any) -> None:
    """Close the connections of a storage of either package."""
    for owner in (store, getattr(store, "storage", None)):
        if hasattr(owner, "close"):
            owner.close()
            return


def used(module: Any, storage: Any, strategy: str, key: str) -> list[Any]:
    """What a limiter and its storage answer, step by step."""
    limiter = module.strategies.STRATEGIES[strategy](storage)
    item = limits_util.parse("3/hour") if module is weir else limits.parse("3/hour")
    seen = []
    for cost in (1, 2, 1):
        seen.append(limiter.hit(item, key, cost=cost))
        seen.append(limiter.test(item, key))
        stats = limiter.get_window_stats(item, key)
        seen.append((shape(stats), stats.remaining, stats[1], stats._fields))
    seen.append(limiter.clear(item, key))
    seen.append((limiter.get_window_stats(item, key).remaining, limiter.test(item, key, cost=4)))
    return seen


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("scheme", ["memory", "redis", "memcached"])
def test_answers_of_a_strategy(servers: Any, key: str, scheme: str, strategy: str) -> None:
    if (scheme, strategy) == ("memcached", "moving-window"):
        pytest.skip("limits has none")
    server = getattr(servers, scheme, None)
    uri = server.uri if server is not None else "memory://"
    stores = limits.storage.storage_from_string(uri), storage_from_string(uri)
    theirs = used(limits, stores[0], strategy, f"{key}/theirs")
    ours = used(weir, stores[1], strategy, f"{key}/ours")
    for store in stores:
        close(store)
    assert ours == theirs


@pytest.mark.parametrize("scheme", ["memory", "redis", "memcached"])
def test_answers_of_a_storage(servers: Any, key: str, scheme: str) -> None:
    server = getattr(servers, scheme, None)
    uri = server.uri if server is not None else "memory://"
    seen = []
    stores: tuple[Any, ...] = (limits.storage.storage_from_string(uri), storage_from_string(uri))
    for store, name in zip(stores, (f"{key}-theirs", f"{key}-ours"), strict=True):
        answers: list[Any] = [store.get(name), shape(store.get_expiry(name)), store.check()]
        answers += [store.incr(name, 60), store.incr(name, 60, amount=3), store.get(name)]
        answers += [shape(store.get_expiry(name)), store.get_expiry(name) - time.time() > 50]
        answers += [store.clear(name), store.get(name)]
        if scheme != "memcached":
            other = f"{name}-moving"
            answers += [store.acquire_entry(other, 2, 60) for _ in range(3)]
            answers += [shape(store.get_moving_window(other, 2, 60))]
            answers += [shape(store.get_moving_window(f"{other}-unused", 2, 60))]
        answers += [store.acquire_sliding_window_entry(f"{name}-sliding", 2, 60) for _ in range(3)]
        answers += [shape(store.get_sliding_window(f"{name}-sliding", 60))]
        seen.append(answers)
        close(store)
    assert seen[1] == seen[0]


@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window"])
def test_the_same_moments(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = stop_clock(monkeypatch, 1_700_000_000.25)
    seen = []
    for module, store in (
        (limits, limits.storage.MemoryStorage()),
        (weir, storage_from_string("memory://")),
    ):
        clock.now = 1_700_000_000.25
        limiter: Any = module.strategies.STRATEGIES[strategy](store)
        item = module.parse("3/minute")
        answers = []
        for _ in range(3):
            limiter.hit(item, "alice")
            answers.append(tuple(limiter.get_window_stats(item, "alice")))
            clock.now += 7.5
        seen.append(answers)
    assert seen[1] == seen[0]


@pytest.mark.parametrize(
    "text",
    ["", "10", "ten/minute", "10/fortnight", "1.5/minute", "1/minute;", "1/minute 2/hour", "1/m"],
)
def test_parse_errors_begin_like_those_of_limits(text: str) -> None:
    theirs = raised_by(limits.parse, text)
    assert isinstance(theirs, ValueError)
    for parse in (limits_util.parse, limits_util.parse_many):
        ours: Any = raised_by(parse, text)
        assert isinstance(ours, ValueError)
        assert str(ours).startswith(str(theirs))
        assert ours.code == "ESYNTAX"


@pytest.mark.parametrize("scheme", ["redis", "memcached"])
def test_a_server_that_is_away_raises_what_it_raises_there(scheme: str) -> None:
    uri = f"{scheme}://127.0.0.1:1"
    their_store: Any = limits.storage.storage_from_string(uri)
    our_store: Any = storage_from_string(uri)
    theirs = raised_by(their_store.incr, "key", 60)
    ours = raised_by(our_store.incr, "key", 60)
    assert isinstance(ours, weir.StorageError)
    assert isinstance(ours, type(theirs))


def test_a_connection_that_breaks_raises_the_error_of_the_client_library(servers: Any) -> None:
    import redis

    store: Any = storage_from_string(servers.redis.uri, remember_denials=0)
    limit = weir.Limit(5, 1, "hour")
    store.decide([limit], "alice")
    for error, expected in (
        (ConnectionResetError("reset"), redis.exceptions.ConnectionError),
        (TimeoutError("late"), redis.exceptions.TimeoutError),
    ):
        with pytest.MonkeyPatch.context() as patch:

            def fail(*_: Any, error: Exception = error) -> None:
                raise error

            patch.setattr(store._server, "request", fail, raising=False)
            with pytest.raises(expected) as raised:
                store.decide([limit], "alice")
        assert isinstance(raised.value, weir.StorageError)
        assert raised.value.storage_error is error
    store.close()
