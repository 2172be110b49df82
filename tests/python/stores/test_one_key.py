"""An error that one client can cause for its own key refuses that key, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import weir
from clocks import noon_zone
from weir import KeyRefusedError, Limit, StoreAwayError, Table
from weir.errors import is_outage
from weir.storage import FailoverStorage, storage_from_string
from weir.stores.memcached import MemcachedStorage
from weir.stores.redis_errors import is_refused

STRATEGIES = sorted(weir.strategies.STRATEGIES)
FIVE = [
    Limit(5, 1, "day", strategy=strategy, tz=noon_zone() if strategy == "calendar-window" else None)
    for strategy in STRATEGIES
]


@pytest.fixture(params=["redis", "valkey", "cluster", "memcached"])
def store(servers: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    server = getattr(servers, request.param)
    store = storage_from_string(server.uri, remember_denials=0)
    yield store
    store.close()


def spoil(store: Any, limit: Limit, key: str, value: bytes) -> None:
    """Put something else where the counter would be."""
    if isinstance(store, MemcachedStorage):
        (check,) = weir._core.memcached_checks(b"weir", [limit], key, None)
        node = store._node(check.name)
        node.use(lambda client: client.set(check.name, value, expire=60, noreply=False))
    else:
        name = store._codec.decide([limit], key).arguments()[3]
        store.client.set(name, value, ex=60)


@pytest.mark.parametrize("policy", ["raise", "open", "closed", "local"])
@pytest.mark.parametrize("limit", FIVE, ids=STRATEGIES)
@pytest.mark.parametrize("value", [b"x", b"not a counter at all", b"\xff" * 16], ids=len)
def test_a_bad_value_refuses_its_key_only(
    store: Any, key: str, policy: str, limit: Limit, value: bytes
) -> None:
    failover = FailoverStorage(store, policy, Table())
    other = f"other-{key}"
    allowed = [failover.decide([limit], other).allowed for _ in range(6)]
    assert allowed[0]
    assert not allowed[-1]
    spoil(store, limit, key, value)
    for _ in range(3):
        if policy == "raise":
            with pytest.raises(KeyRefusedError) as refused:
                failover.decide([limit], key)
            assert not is_outage(refused.value)
        else:
            assert not failover.decide([limit], key).allowed
        assert not failover.away
        assert not failover.decide([limit], other).allowed
    store.clear([limit, limit], [key, other])


@pytest.mark.parametrize("name", ["redis", "valkey"])
def test_a_key_of_another_type_refuses_its_key_only(servers: Any, key: str, name: str) -> None:
    server = getattr(servers, name)
    store = storage_from_string(server.uri, remember_denials=0)
    for limit in FIVE:
        failover = FailoverStorage(store, "open")
        name = store._codec.decide([limit], key).arguments()[3]
        with server.client() as client:
            client.rpush(name, "x")
            client.expire(name, 60)
        assert not failover.decide([limit], key).allowed
        assert not failover.away
        assert failover.counters == {"refused": 1}
    store.close()


@pytest.mark.parametrize("cost", [2**63, -5, 2**64, 1.5, "1"])
def test_a_cost_that_is_none_changes_nothing(store: Any, key: str, cost: Any) -> None:
    failover = FailoverStorage(store, "open")
    with pytest.raises((ValueError, TypeError)) as refused:
        failover.decide([FIVE[0]], key, [cost])
    assert not is_outage(refused.value)
    assert not failover.away
    assert not failover.decide([FIVE[0]], key, [2**63 - 1]).allowed


def test_a_key_of_five_megabytes_is_like_any_other(store: Any) -> None:
    failover = FailoverStorage(store, "open")
    for key in ("/" * 5_000_000, "x" * 5_000_000, b"\xff" * 5_000_000):
        name = weir.join_key(key)
        assert [failover.decide([FIVE[0]], name).allowed for _ in range(6)] == [True] * 5 + [False]
        store.clear([FIVE[0]], name)
    assert not failover.away


def test_a_counter_that_others_keep_changing_refuses_its_key_only(servers: Any, key: str) -> None:
    store = MemcachedStorage(servers.memcached.uri, remember_denials=0, socket_timeout=1.0)
    limit = Limit(10**6, 1, "hour", strategy="token-bucket")
    (check,) = weir._core.memcached_checks(b"weir", [limit], key, None)
    store.decide([limit], key)
    node = store._node(check.name)
    use = node.use

    def after_another(send: Any, once: bool = False) -> Any:
        def send_late(client: Any) -> Any:
            gets = client.gets

            def fetch(name: bytes) -> Any:
                found = gets(name)
                with servers.memcached_client() as other:
                    other.set(name, found[0], expire=60, noreply=False)
                return found

            client.gets = fetch
            try:
                return send(client)
            finally:
                del client.gets

        return use(send_late, once)

    node.use = after_another
    failover = FailoverStorage(store, "open")
    assert not failover.decide([limit], key).allowed
    assert not failover.away
    with pytest.raises(KeyRefusedError, match="was changed by others"):
        store.decide([limit], key)
    store.close()


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        ("WRONGTYPE Operation against a key holding the wrong kind of value", True),
        ("WRONGTYPE Operation against … script: f_1, on @user_script:430.", True),
        ("ERR Error running script (call to f_1): @user_script:4: WRONGTYPE Operation", True),
        ("ERR weir: weir:fw:{LIMITER/OOM} holds something that is not a counter", True),
        ("weir: weir:mw:{LIMITER/LOADING} has too many hits for a moving window", True),
        ("ERR user_script:99: attempt to compare nil with number script: f_1", True),
        ("CROSSSLOT Keys in request don't hash to the same slot", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", False),
        ("ERR Error running script (call to f_1): @user_script:4: -OOM command not", False),
        ("READONLY You can't write against a read only replica script: f_1", False),
        ("LOADING Redis is loading the dataset in memory", False),
        ("MASTERDOWN Link with MASTER is down", False),
        ("CLUSTERDOWN The cluster is down", False),
        ("NOAUTH Authentication required.", False),
        ("NOPERM this user has no permissions to run the 'evalsha' command", False),
        ("MISCONF Redis is configured to save RDB snapshots", False),
        ("NOREPLICAS Not enough good replicas to write.", False),
        ("BUSY Redis is busy running a script", False),
        ("ERR max number of clients reached", False),
        ("ERR unknown command 'EVALSHA'", False),
        ("ERR Error running script: Script killed by user with SCRIPT KILL... user_script", False),
        ("", False),
    ],
)
def test_what_a_servers_error_is_about(error: str, refused: bool) -> None:
    assert is_refused(error) == refused


def test_a_server_out_of_memory_is_away(make_redis: Any) -> None:
    server = make_redis("--maxmemory", "1mb", "--maxmemory-policy", "noeviction").start()
    try:
        store = storage_from_string(server.uri)
        with pytest.raises(StoreAwayError, match="OOM"):
            store.decide(FIVE, "a")
        assert not store.check()
    finally:
        server.stop()


def test_a_replica_is_no_store_although_it_answers(make_redis: Any, servers: Any) -> None:
    server = make_redis("--replicaof", "127.0.0.1", str(servers.redis.port)).start()
    try:
        store = storage_from_string(server.uri)
        assert not store.check()
        with pytest.raises(StoreAwayError, match="READONLY"):
            store.decide(FIVE, "a")
    finally:
        server.stop()
