"""Errors of one client's key do not affect other clients, for every kind of call."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from flask import Flask, request

import weir
import weir.aio.storage
import weir.aio.strategies
from clocks import noon_zone
from policies import POLICIES
from weir import KeyRefusedError, Limit, StorageError
from weir.errors import is_outage
from weir.flask import Limiter
from weir.storage import storage_from_string

STRATEGIES = sorted(weir.strategies.STRATEGIES)
SEED = int(os.environ.get("WEIR_SEED") or random.randrange(2**32))


def names_on(servers: Any, where: str, key: str) -> list[bytes]:
    """The names of a client's counters."""
    if where == "memcached":
        listed = servers.memcached.send(b"lru_crawler metadump all")
        lines = [line.split()[0] for line in listed.splitlines() if line.startswith(b"key=")]
        names = [unquote_to_bytes(line.removeprefix(b"key=")) for line in lines]
        return [name for name in names if key.encode() in name]
    with getattr(servers, where).client() as client:
        return [name for name in client.scan_iter() if key.encode() in name]


def spoil(servers: Any, where: str, key: str, how: str) -> None:
    """Make a client's counters something that is none."""
    names = names_on(servers, where, key)
    assert names
    for name in names:
        if where == "memcached":
            with servers.memcached_client() as client:
                value = b"9" * 6000 if how == "digits" else b"no counter"
                client.set(name, value, expire=60, noreply=False)
            continue
        with getattr(servers, where).client() as client:
            client.delete(name)
            if how == "list":
                client.rpush(name, "x")
            elif how == "hash":
                client.hset(name, "x", "y")
            elif how == "digits":
                client.set(name, b"9" * 6000)
            else:
                client.set(name, b"no counter")
            client.expire(name, 60)


def application(**options: Any) -> Any:
    app = Flask(__name__)
    app.config["RATELIMIT_STORAGE_OPTIONS"] = {"remember_denials": 0}
    tz = noon_zone() if options["strategy"] == "calendar-window" else None
    limit = weir.flask.Limit("2 per day", tz=tz)
    limiter = Limiter(
        lambda: request.headers["X-Client"], app=app, default_limits=[limit], **options
    )

    @app.get("/")
    def index() -> str:
        return "ok"

    return app, limiter


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("where", "how"),
    [("redis", "list"), ("valkey", "hash"), ("redis", "text"), ("memcached", "text")],
)
def test_flask_refuses_the_client_and_counts_on(
    servers: Any, where: str, how: str, strategy: str, policy: str, key: str
) -> None:
    app, limiter = application(
        storage_uri=getattr(servers, where).uri, strategy=strategy, **POLICIES[policy]
    )
    client = app.test_client()

    def send(who: str) -> int:
        code: int = client.get("/", headers={"X-Client": f"{who}-{key}"}).status_code
        return code

    codes = [send("good") for _ in range(3)]
    assert codes == [200, 429 if strategy == "leaky-bucket" else 200, 429]
    assert send("bad") == 200
    spoil(servers, where, f"bad-{key}", how)
    for _ in range(3):
        assert send("bad") in (429, 500, 503)
        assert send("good") == 429
    assert send("fresh") == 200
    errors = limiter._state.store.instrumented.meters.read().errors
    limiter._state.opened.close()
    assert sum(errors.values()) == 0, "an error of one key is not an error of the store"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("how", ["list", "hash", "text", "digits"])
@pytest.mark.parametrize("where", ["redis", "valkey"])
def test_asyncio_refuses_the_key(
    servers: Any, where: str, how: str, strategy: str, key: str
) -> None:
    item = weir.parse("2/day")

    async def run() -> None:
        uri = f"async+{getattr(servers, where).uri}"
        storage = weir.aio.storage.storage_from_string(uri, remember_denials=0)
        limiter = weir.aio.strategies.STRATEGIES[strategy](storage)
        assert await limiter.hit(item, key)
        spoil(servers, where, key, how)
        with pytest.raises(KeyRefusedError) as refused:
            await limiter.hit(item, key)
        assert not is_outage(refused.value)
        assert await limiter.hit(item, f"other {key}")
        await storage.close()

    asyncio.run(run())


def test_memcached_without_meta_commands(servers: Any, key: str) -> None:
    store = storage_from_string(servers.memcached.uri, meta=False, remember_denials=0)
    item = Limit(2, 1, "day")
    assert store.decide([item], key).allowed
    for name in names_on(servers, "memcached", key):
        with servers.memcached_client() as client:
            client.set(b"-" + name[1:], b"9" * 6000, expire=60, noreply=False)
    assert store.decide([item], key)[0].retry_after <= 86_400
    spoil(servers, "memcached", key, "digits")
    with pytest.raises(KeyRefusedError):
        store.decide([item], key)
    store.close()


def damage(rng: random.Random, good: bytes) -> bytes:
    """Other bytes, mostly of the same length."""
    value = bytearray(good)
    how = rng.random()
    if how < 0.3:
        return rng.randbytes(len(value))
    if how < 0.4:
        return rng.randbytes(rng.randrange(200))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(value))
        if how < 0.7:
            at -= at % 8
            word = rng.choice(
                [
                    *("000000000000f0bf", "000000000000f87f", "000000000000f07f"),
                    *("000000000000f0ff", "000000000000e043", "9c7500883ce4377e"),
                ]
            )
            value[at : at + 8] = bytes.fromhex(word)[: max(0, len(value) - at)]
        else:
            value[at] = rng.randrange(256)
    return bytes(value)


@pytest.mark.parametrize("amount", [5, 2**55, 2**63 - 1])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_value_causes_an_outage(servers: Any, strategy: str, amount: int, key: str) -> None:
    """Random damage to a counter: a verdict, or a refusal of the key."""
    print(f"seed {SEED}")
    rng = random.Random(f"{SEED} {strategy} {amount}")
    store: Any = storage_from_string(servers.redis.uri, remember_denials=0)
    item = Limit(amount, 1, "hour", strategy=strategy)
    for _ in range(4):
        store.decide([item], key)
    (name,) = names_on(servers, "redis", key)
    good = store.client.get(name)
    refused = 0
    for _ in range(600):
        value = damage(rng, good)
        store.client.set(name, value, ex=60)
        cost = rng.choice([0, 1, 2, amount, 2**63 - 1])
        try:
            store.decide([item], key, [cost], rng.choice([0, 0, 1, 2, 3]))
        except KeyRefusedError:
            refused += 1
        except StorageError as error:
            raise AssertionError((value.hex(), cost)) from error
    assert refused
    store.close()


@pytest.mark.parametrize("cost", [2**63, 2**64, -5])
@pytest.mark.parametrize("where", ["redis", "memcached"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_cost_that_is_none_is_of_its_request(
    servers: Any, where: str, policy: str, cost: int, key: str
) -> None:
    app = Flask(__name__)
    limiter = Limiter(
        lambda: request.headers["X-Client"],
        app=app,
        storage_uri=getattr(servers, where).uri,
        storage_options={"remember_denials": 0},
        **POLICIES[policy],
    )

    @app.get("/")
    @limiter.limit("2 per day", cost=lambda: int(request.headers.get("X-Cost", "1")))
    def index() -> str:
        return "ok"

    client = app.test_client()

    def send(who: str, cost: int = 1) -> int:
        headers = {"X-Client": f"{who}-{key}", "X-Cost": str(cost)}
        code: int = client.get("/", headers=headers).status_code
        return code

    assert [send("good") for _ in range(3)] == [200, 200, 429]
    for _ in range(3):
        assert send("bad", cost) in (429, 500, 503)
        assert send("good") == 429
    limiter._state.opened.close()
