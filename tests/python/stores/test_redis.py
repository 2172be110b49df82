"""Redis: names, round trips, cached denials, large windows."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

import weir
from models import ZONELESS
from weir import EACH, REFUND, TEST
from weir.flask import Limiter
from weir.flask.util import get_remote_address
from weir.stores.redis import RedisStorage

THREE = [weir.parse("1000/minute"), weir.parse("10000/hour"), weir.parse("100000/day")]
TIGHT = weir.parse("2 per minute")


@pytest.fixture
def store(redis_store: RedisStorage) -> RedisStorage:
    return redis_store


# ------------------------------------------------------------------------------------------- names


def test_names_are_readable_and_carry_the_strategy(store: Any, client: Any) -> None:
    limits = [
        weir.parse("10 per minute").replace(strategy=strategy, max_delay=0.5)
        if strategy == "leaky-bucket"
        else weir.parse("10 per minute").replace(strategy=strategy)
        for strategy in ZONELESS
    ]
    store.decide(limits, weir.join_key("10.1.2.3", "api.view"))
    assert sorted(client.keys()) == [
        b"weir:fw:{LIMITER/10.1.2.3}/api.view/10/1/minute",
        b"weir:lb:{LIMITER/10.1.2.3}/api.view/10/1/minute",
        b"weir:mw:{LIMITER/10.1.2.3}/api.view/10/1/minute",
        b"weir:sw:{LIMITER/10.1.2.3}/api.view/10/1/minute",
        b"weir:tb:{LIMITER/10.1.2.3}/api.view/10/1/minute/10",
    ]


def test_a_prefix_keeps_applications_apart(servers: Any, store: Any, client: Any) -> None:
    other = RedisStorage(servers.redis.uri, key_prefix="shop-1*")
    for each in (store, other):
        assert [each.decide([TIGHT], "a").allowed for _ in range(3)] == [True, True, False]
    assert set(client.keys()) == {
        b"weir:fw:{LIMITER/a}/2/1/minute",
        b"shop-1*:fw:{LIMITER/a}/2/1/minute",
    }
    client.set("weir", "mine", ex=60)
    client.set("shop-12:fw:{x", "not of that prefix", ex=60)
    assert other.reset() == 1
    assert store.reset() == 1
    assert sorted(client.keys()) == [b"shop-12:fw:{x", b"weir"]
    other.close()
    with pytest.raises(weir.ConfigurationError, match="key_prefix"):
        RedisStorage(servers.redis.uri, key_prefix="{a}")


def test_reset_counts_what_it_deletes(store: Any) -> None:
    for i in range(1234):
        store.decide([TIGHT], f"client-{i}")
    assert store.reset() == 1234
    assert store.reset() == 0


def test_a_changed_strategy_is_no_wrong_type(store: Any) -> None:
    for strategy in ZONELESS:
        assert store.decide([TIGHT.replace(strategy=strategy)], "a").allowed


# ------------------------------------------------------------------------------------------- trips


def test_a_check_is_always_one_trip(servers: Any, store: Any) -> None:
    store.decide(THREE, "a")
    before = servers.redis.commands()
    for mode in (0, TEST, EACH, REFUND):
        store.decide(THREE, "a", None, mode)
        store.decide(THREE[:1], "a", None, mode)
    assert servers.redis.commands() == before + 8


@pytest.mark.parametrize("key_func", [get_remote_address, lambda: "anonymous"])
def test_trips_of_a_request(servers: Any, key_func: Callable[[], str]) -> None:
    """Peeked and charged limits are one command."""
    app = Flask(__name__)
    limiter = Limiter(key_func, app=app, storage_uri=servers.redis.uri, meta_limits=["5 per hour"])

    @app.get("/")
    @limiter.limit("100 per minute; 1000 per hour")
    @limiter.limit("3 per minute", deduct_when=lambda response: response.status_code == 200)
    def view() -> str:
        return "done"

    client = app.test_client()
    assert client.get("/").status_code == 200
    before = servers.redis.commands()
    assert client.get("/").status_code == 200
    # The meta limits before the view; its own; and once more when the response is known.
    assert servers.redis.commands() == before + 3
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]
    with servers.redis.client() as server:
        (name,) = server.keys("*/100/1/minute")
        assert struct.unpack("<dd", server.get(name))[1] == 3  # the refusal has charged nothing


def test_a_flushed_script_is_sent_once(servers: Any, store: Any, client: Any) -> None:
    store.decide(THREE, "a")
    client.script_flush()
    before = servers.redis.commands()
    assert store.decide(THREE, "a").allowed
    assert servers.redis.commands() == before + 2
    assert store.decide(THREE, "a")[0].remaining == 997
    assert servers.redis.commands() == before + 3


def test_a_denial_is_cached(servers: Any, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weir.stores.denials.VERIFY", 3600.0)
    start = time.monotonic()
    assert [store.decide([TIGHT], "a").allowed for _ in range(3)] == [True, True, False]
    before = servers.redis.commands()
    first = store.decide([TIGHT], "a")
    time.sleep(0.01)
    later = store.decide([TIGHT], "a")
    assert servers.redis.commands() == before
    least = 60 - (time.monotonic() - start) - 0.001
    assert least < later[0].retry_after < first[0].retry_after <= 60
    assert later[0].reset_at == first[0].reset_at
    assert later.now > first.now
    # Any other request goes to the server.
    assert store.decide([TIGHT], "b").allowed
    assert store.decide([TIGHT], "a", [0]).allowed
    assert not store.decide([TIGHT], "a", None, EACH).allowed
    assert servers.redis.commands() == before + 3


@pytest.mark.parametrize("action", ["clear", "refund", "reset"])
def test_freeing_a_counter_drops_the_cached_denial(store: Any, action: str) -> None:
    other = weir.parse("100/hour")
    assert [store.decide([TIGHT, other], "a").allowed for _ in range(3)] == [True, True, False]
    if action == "clear":
        store.clear([TIGHT], "a")
    elif action == "refund":
        store.decide([TIGHT], "a", None, REFUND)
    else:
        store.reset()
    assert store.decide([TIGHT, other], "a").allowed


def test_a_denial_is_repeated_until_the_request_could_pass(store: Any) -> None:
    second = weir.parse("1 per second")
    assert store.decide([second], "a").allowed
    sooner = time.monotonic()
    denied = store.decide([second], "a")[0]
    later = time.monotonic()
    verdict, started = denied, 0.0
    while not verdict.allowed:  # sent before the end of the denial
        assert started < later + denied.retry_after + 0.001
        time.sleep(0.02)
        started = time.monotonic()
        verdict = store.decide([second], "a")[0]
    assert time.monotonic() > sooner + denied.retry_after - 0.001


def test_how_many_and_how_long_is_bounded(servers: Any) -> None:
    store = RedisStorage(servers.redis.uri, remember_denials=0.05)  # seconds
    store._denials.capacity = 10
    for i in range(30):
        for _ in range(3):
            store.decide([TIGHT], f"client-{i}")
    assert len(store._denials.entries) == 10
    assert len(store._denials._requests) == len(store._denials._names) == 10
    time.sleep(0.06)
    before = servers.redis.commands()
    assert not store.decide([TIGHT], "client-29").allowed
    assert servers.redis.commands() == before + 1
    store.close()
    never = RedisStorage(servers.redis.uri, remember_denials=0)
    before = servers.redis.commands()
    for _ in range(5):
        assert not never.decide([TIGHT], "client-29").allowed
    assert servers.redis.commands() == before + 5
    never.close()


def test_long_keys_take_no_more_memory(store: Any) -> None:
    """Clients choose how long their keys are."""
    for i in range(20):
        key = f"{i}" + "x" * 100_000
        assert [store.decide([TIGHT], key).allowed for _ in range(3)] == [True, True, False]
    denials = store._denials
    names = [*denials.entries, *denials._requests, *itertools.chain(*denials._names.values())]
    assert len(denials.entries) == 20
    assert all(len(name) <= 64 for name in names)
    # They are found all the same.
    key = "0" + "x" * 100_000
    store._denials.seconds = 0.0
    store.clear([TIGHT], key)
    assert store.decide([TIGHT], key).allowed
