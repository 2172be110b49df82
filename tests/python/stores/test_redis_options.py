"""What programs written for limits set, and what stands in for a server in their tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import click.testing
import fakeredis
import pytest
import redis
import valkey

import weir
from servers.ports import wait_for
from weir import Limit, StorageError
from weir.cli.main import cli
from weir.storage import storage_from_string
from weir.stores.denials import Denials
from weir.stores.instrumented import InstrumentedStorage
from weir.stores.redis import RedisStorage

TWO = Limit(2, 1, "hour")
STRATEGIES = sorted(weir.strategies.STRATEGIES)

# ----------------------------------------------------------------------------------- no real server


def fake_by_pool() -> RedisStorage:
    pool = fakeredis.FakeRedis(server=fakeredis.FakeServer()).connection_pool
    return RedisStorage("redis://", connection_pool=pool)


def fake_by_decoding_pool() -> RedisStorage:
    server = fakeredis.FakeServer()
    pool = fakeredis.FakeRedis(server=server, decode_responses=True).connection_pool
    return RedisStorage("redis://", connection_pool=pool)


def fake_by_from_url() -> RedisStorage:
    with mock.patch("redis.from_url", fakeredis.FakeRedis.from_url):
        return RedisStorage("redis://fake.example:6379/0")


def fake_by_class() -> RedisStorage:
    with mock.patch("redis.Redis.from_url", fakeredis.FakeRedis.from_url):
        return RedisStorage("redis://fake-class.example:6379/0")


def test_a_mock_of_a_client_is_called_before_the_server() -> None:
    store = RedisStorage("redis://127.0.0.1:1")
    with mock.patch("redis.Redis.execute_command", side_effect=LookupError("dead")) as called:
        with pytest.raises(LookupError, match="dead"):
            store.decide([TWO], "alice")
        assert not store.check()
        called.side_effect = redis.exceptions.ConnectionError("gone")
        with pytest.raises(redis.exceptions.ConnectionError, match="gone") as raised:
            store.decide([TWO], "alice")
        assert isinstance(raised.value, StorageError)
    with pytest.raises(StorageError, match="refused"):
        store.decide([TWO], "alice")


def test_a_password_in_the_options_is_that_of_the_sentinels_as_well() -> None:
    uri = "redis+sentinel://127.0.0.1:1/shop"
    for options, expected in (
        ({}, None),
        ({"password": "both"}, "both"),
        ({"password": "master", "sentinel_password": "other"}, "other"),
        ({"password": "master", "sentinel_kwargs": {"password": "other"}}, "other"),
    ):
        store = storage_from_string(uri, **options)
        manager = store.client.connection_pool.sentinel_manager  # type: ignore[union-attr]
        known = manager.sentinels[0].connection_pool.connection_kwargs
        assert known.get("password") == expected
        assert manager.connection_kwargs.get("password") == options.get("password")


@pytest.fixture(
    params=[fake_by_pool, fake_by_decoding_pool, fake_by_from_url, fake_by_class],
    ids=lambda make: make.__name__,
)
def fake(request: pytest.FixtureRequest) -> Iterator[RedisStorage]:
    store = request.param()
    store.reset()
    yield store
    store.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fakeredis_counts(fake: RedisStorage, strategy: str, key: str) -> None:
    limit = Limit(2, 1, "hour", strategy=strategy)
    fake.set_clock(1_700_000_000.0, given=True)
    first = fake.decide([limit], key)
    assert first.allowed
    assert first[0].remaining == (1 if strategy != "leaky-bucket" else 0)
    while fake.decide([limit], key).allowed:
        pass
    assert not fake.decide([limit, TWO], key).allowed
    fake.set_clock(1_700_000_000.0 + 7200, given=True)
    assert fake.decide([limit], key).allowed
    fake.clear([limit], key)
    assert fake.decide([limit], key)[0].remaining == first[0].remaining
    assert fake.check()
    assert fake.reset() == 1


# ----------------------------------------------------------------------------- counters that vanish


@pytest.mark.parametrize("name", ["redis", "valkey", "cluster", "memcached"])
def test_denials_end_with_the_counters(
    servers: Any, name: str, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """After FLUSHALL or a reset by another process, cached denials end within a second."""
    server = getattr(servers, name)
    store: Any = storage_from_string(server.uri)
    for each in ("a", "b"):
        while store.decide([TWO], f"{key}-{each}").allowed:
            pass
    if name == "memcached":
        server.send(b"flush_all")
    else:
        for node in getattr(server, "nodes", [server]):
            with node.client() as client:
                client.flushall()
    # Much sooner than the hour for which a denial is cached.
    wait_for(lambda: store.decide([TWO], f"{key}-a").allowed)
    assert store.decide([TWO], f"{key}-b").allowed
    store.close()


def test_one_denial_a_second_is_verified() -> None:
    denials = Denials()
    table = weir.Table()
    while (denied := table.decide([TWO], "a")).allowed:
        pass
    denials.add(b"request", [b"name"], 100.0, denied)
    assert [denials.must_verify(now) for now in (100.5, 101.0, 101.5, 102.5)] == [
        False,
        True,
        False,
        True,
    ]


# ----------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("kind", [redis, valkey])
@pytest.mark.parametrize("how", ["nodes", "dicts", "pairs"])
def test_startup_nodes(servers: Any, kind: Any, how: str, key: str) -> None:
    ports = [node.port for node in servers.cluster.nodes]
    nodes: list[Any] = {
        "nodes": [kind.cluster.ClusterNode("127.0.0.1", port) for port in ports],
        "dicts": [{"host": "127.0.0.1", "port": port} for port in ports],
        "pairs": [("127.0.0.1", port) for port in ports],
    }[how]
    store = storage_from_string(f"{kind.__name__}+cluster://", startup_nodes=nodes)
    assert [store.decide([TWO], key).allowed for _ in range(3)] == [True, True, False]
    store.close()


def test_startup_nodes_that_are_none() -> None:
    with pytest.raises(weir.ConfigurationError, match="startup_nodes"):
        storage_from_string("redis+cluster://", startup_nodes=[17])
    with pytest.raises(weir.ConfigurationError, match="needs nodes"):
        storage_from_string("redis+cluster://")


@pytest.mark.parametrize(
    "options",
    [
        {"password": "master", "sentinel_kwargs": {"password": "watch"}},
        {"password": "master", "sentinel_password": "watch"},
    ],
)
def test_sentinels_have_separate_passwords(
    make_sentinels: Callable[[], Any], options: dict[str, Any]
) -> None:
    sentinels = make_sentinels()
    try:
        for sentinel in sentinels.sentinels:
            with sentinel.client() as client:
                client.execute_command("SENTINEL SET shop auth-pass master")
                client.execute_command("ACL SETUSER default resetpass >watch")
        with sentinels.master.client() as client:
            client.config_set("requirepass", "master")
        store: Any = storage_from_string(sentinels.uri, **options)
        assert store.decide([TWO], "a").allowed
        with pytest.raises(StorageError):
            storage_from_string(sentinels.uri, password="master").decide([TWO], "a")
    finally:
        sentinels.stop()


def test_in_the_place_of_limits_a_slow_server_is_waited_for(
    servers: Any, run_python: Callable[..., Any], default_deadline: None
) -> None:
    """As long as the library waits by itself, not 250 ms."""
    run_python(
        """
import sys, weir
weir.install_as_flask_limiter()
from weir.stores.redis import RedisStorage
from weir.stores.memcached import MemcachedStorage
import redis, valkey
uri = sys.argv[1]
store = RedisStorage(uri)
assert store.deadline is None or store.deadline >= 5, store.deadline
slow = RedisStorage(uri.replace("redis://", "valkey://")).deadline
assert slow is None or slow >= 5, slow
assert RedisStorage(uri, socket_timeout=0.7).deadline == 0.7
assert MemcachedStorage().deadline is None
assert store.decide([weir.Limit(2)], "slow").allowed
""",
        servers.redis.uri,
    )
    assert RedisStorage(servers.redis.uri).deadline == 0.25


# ------------------------------------------------------------------------------ rights and eviction


def rights(*rows: str) -> str:
    """The rights of a user that docs/redis.md lists."""
    text = (Path(__file__).parents[3] / "docs" / "redis.md").read_text()
    found = dict(re.findall(r"^\| ([^|]+) \| `(.+)` \|$", text, re.MULTILINE))
    return " ".join(found[row] for row in rows).replace("\\|", "|")


@pytest.mark.parametrize("name", ["redis", "valkey", "cluster", "valkey_cluster"])
def test_the_rights_in_the_manual_are_enough(servers: Any, name: str) -> None:
    server = getattr(servers, name)
    nodes = getattr(server, "nodes", [server])
    needed = ["limits", "`reset()`", "statistics and rules that hosts share"]
    needed += ["a Cluster, besides"] if "cluster" in name else []
    for node in nodes:
        with node.client() as client:
            client.execute_command(f"ACL SETUSER weir on >secret {rights(*needed)}")
    try:
        scheme, _, hosts = server.uri.partition("://")
        store: Any = storage_from_string(f"{scheme}://weir:secret@{hosts}")
        for strategy in STRATEGIES:
            limit = Limit(2, 1, "hour", strategy=strategy)
            while store.decide([limit], "rights").allowed:
                pass
            store.decide([limit], "rights", None, weir.REFUND)
            store.clear([limit], "rights")
        assert store.check()
        host = InstrumentedStorage(store, weir.Table())
        host.block("192.0.2.1")
        assert host.sync is not None
        host.sync.once(force=True)
        assert len(host.sync.shared.read()) == len(host.sync.shared.known()) == 1
        host.sync.shared.drop_denials()
        host.sync.shared.clean()
        assert host.unlist("192.0.2.1")
        host.reset()
        if "cluster" in name:
            assert store.client.get_primaries()
        store.close()
    finally:
        for node in nodes:
            with node.client() as client:
                client.execute_command("ACL DELUSER weir")


@pytest.mark.parametrize("evicts", [True, False])
def test_an_evicting_server_is_logged_once(
    make_redis: Callable[..., Any], caplog: pytest.LogCaptureFixture, evicts: bool
) -> None:
    policy = "allkeys-lru" if evicts else "noeviction"
    server = make_redis("--maxmemory", "100mb", "--maxmemory-policy", policy).start()
    try:
        store: Any = storage_from_string(server.uri)
        for _ in range(3):
            store.decide([TWO], "a", [0])
            store.close()
        warnings = [record.getMessage() for record in caplog.records]
        assert len(warnings) == evicts
        if evicts:
            assert warnings[0].startswith(f"{server.uri}: maxmemory-policy is allkeys-lru: ")
        caplog.clear()
        run = click.testing.CliRunner().invoke(cli, ["rules", "--store", server.uri])
        assert run.exit_code in (0, 1, 2)
        assert len([r for r in caplog.records if "maxmemory" in r.getMessage()]) == evicts
    finally:
        server.stop()
