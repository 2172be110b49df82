"""Servers that are killed, started again, replaced, and moved, with callers at work."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import weir
from servers.ports import PATIENCE, quickest, wait_for
from weir import TEST, Limit, StorageError, Table
from weir.storage import FailoverStorage, storage_from_string

pytestmark = pytest.mark.slow

STRATEGIES = ["fixed-window", "moving-window", "sliding-window-counter", "token-bucket"]


class Crowd:
    """Threads that use a store without a pause."""

    def __init__(self, decide: Callable[[], bool], threads: int = 6) -> None:
        self.allowed = 0
        self.requests = 0
        self.errors: list[BaseException] = []
        self._decide = decide
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(threads)]

    def _work(self) -> None:
        while not self._end.is_set():
            try:
                allowed = self._decide()
            except BaseException as error:
                with self._lock:
                    self.errors.append(error)
                time.sleep(0.01)
            else:
                with self._lock:
                    self.requests += 1
                    self.allowed += allowed

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def wait_for(self, more: int, seconds: float = PATIENCE) -> None:
        """Until ``more`` further requests have been answered."""
        goal, end = self.requests + more, time.monotonic() + seconds
        while self.requests < goal:
            assert time.monotonic() < end, f"{self.requests} of {goal} were answered"
            time.sleep(0.01)


@pytest.fixture
def redis_server(make_redis: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    started = []

    def start(*arguments: str) -> Any:
        started.append(make_redis(*arguments).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


def test_a_restart_loses_nothing_that_was_persisted(redis_server: Callable[..., Any]) -> None:
    """With appendfsync always: exactly the limit, whatever is killed in the middle."""
    server = redis_server("--appendonly", "yes", "--appendfsync", "always")
    store = storage_from_string(server.uri, remember_denials=0)
    items = [Limit(400, 1, "hour", strategy=strategy) for strategy in STRATEGIES]
    with Crowd(lambda: store.decide(items, "a").allowed) as crowd:
        for _ in range(3):
            crowd.wait_for(60)
            server.kill()
            time.sleep(0.05)
            server.start()
        crowd.wait_for(600)
    assert all(isinstance(error, StorageError) for error in crowd.errors)
    # A caller whose answer was cut off may have been charged: it is not among those that passed.
    cut_off = 6 * 3
    assert 400 - cut_off <= crowd.allowed <= 400
    store.close()


def test_a_restart_of_a_server_that_keeps_nothing(redis_server: Callable[..., Any]) -> None:
    """Each restart begins with an empty server: no more than the limit in between."""
    server = redis_server()
    store = storage_from_string(server.uri, remember_denials=0)
    item = Limit(200, 1, "hour", strategy="moving-window")
    with Crowd(lambda: store.decide([item], "a").allowed) as crowd:
        for _ in range(2):
            crowd.wait_for(300)
            server.kill()
            server.start()
        crowd.wait_for(300)
    assert all(isinstance(error, StorageError) for error in crowd.errors)
    assert crowd.allowed == 3 * 200
    store.close()


def test_local_while_the_server_is_away(
    redis_server: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = redis_server("--appendonly", "yes", "--appendfsync", "always")
    deadline = 3.0
    store = storage_from_string(server.uri, socket_timeout=deadline)
    failover = FailoverStorage(store, "local", Table())
    item = Limit(50, 1, "hour")
    with caplog.at_level(logging.INFO, "weir"):
        assert all(failover.decide([item], "a").allowed for _ in range(30))
        server.kill()
        waits = []
        allowed = 0
        for _ in range(200):
            start = time.perf_counter()
            allowed += failover.decide([item], "a").allowed
            waits.append(time.perf_counter() - start)
        assert allowed == 50
        # Nobody waits for a connection that is refused; a busy machine may hold up some calls.
        assert sorted(waits)[100] < deadline / 2
        server.start()

        def returned() -> bool:
            failover.decide([item], "b")
            return not failover.away

        wait_for(returned)
        assert sum(failover.decide([item], "a").allowed for _ in range(40)) == 20
    assert len(caplog.records) == 2
    store.close()


# ----------------------------------------------------------------------------------------- Sentinel


def test_a_failover_under_load(make_sentinels: Callable[[], Any]) -> None:
    """The app sees only what its policy allows; afterwards the new master decides."""
    sentinels = make_sentinels()
    try:
        store = storage_from_string(sentinels.uri, remember_denials=0)
        failover = FailoverStorage(store, "local", Table())
        item = Limit(10**9, 1, "hour")
        with Crowd(lambda: failover.decide([item], "a").allowed) as crowd:
            crowd.wait_for(300)
            sentinels.master.kill()
            old = sentinels.master.port
            wait_for(lambda: sentinels.master_port() != old)
            wait_for(lambda: not failover.away and failover.counters["returns"] > 0)
            crowd.wait_for(300)
        assert not crowd.errors
        assert crowd.allowed == crowd.requests
        with sentinels.replica.client() as client:
            assert client.info("replication")["role"] == "master"
            assert client.dbsize() == 1, client.keys()
        store.close()
    finally:
        sentinels.stop()


def test_a_master_that_was_demoted(
    make_sentinels: Callable[[], Any], wait_for: Callable[..., Any]
) -> None:
    """A held connection to a server that has become a replica is given up."""
    sentinels = make_sentinels()
    try:
        store = storage_from_string(sentinels.uri, remember_denials=0)
        item = Limit(100, 1, "hour")
        assert store.decide([item], "a")[0].remaining == 99
        old, new = sentinels.master, sentinels.replica
        with old.client() as demoted, new.client() as promoted:
            wait_for(lambda: promoted.dbsize() == 1)  # before that, the hit is on the master alone
            with sentinels.sentinels[0].client() as client:
                # It is refused while the replica has been silent for 0.4 s.
                wait_for(lambda: client.execute_command("SENTINEL FAILOVER shop"))
            wait_for(lambda: sentinels.all_name(new))
            demoted.replicaof("127.0.0.1", new.port)  # the sentinels do that, too, in their time
            for remaining in (98, 97):
                assert store.decide([item], "a")[0].remaining == remaining
            wait_for(lambda: demoted.info("replication")["master_link_status"] == "up")
            assert promoted.info("replication")["role"] == "master"
        store.close()
    finally:
        sentinels.stop()


# ------------------------------------------------------------------------------------------ Cluster


def slots_apart(store: Any, item: Limit, cluster: Any) -> tuple[str, str]:
    """Two keys whose slots are on different nodes, in the order in which they are charged."""
    found: dict[int, tuple[int, str]] = {}
    for i in range(1000):
        key = f"client-{i}"
        (slot,) = store._codec.slots([item], key)
        found.setdefault(cluster.node_of(slot).port, (slot, key))
        if len(found) == 3:
            break
    (_, first), (_, second), _ = sorted(found.values())
    return first, second


def test_nothing_leaks_when_the_second_node_dies_in_between(
    make_cluster: Callable[[], Any],
) -> None:
    cluster = make_cluster()
    try:
        store = storage_from_string(cluster.uri, remember_denials=0)
        items = [Limit(10, 1, "hour", strategy=strategy) for strategy in STRATEGIES]
        first, second = slots_apart(store, items[0], cluster)
        group, keys = [*items, *items], [first] * 4 + [second] * 4
        assert store.decide(group, keys).allowed
        (slot,) = store._codec.slots(items[:1], second)
        cluster.node_of(slot).kill()
        for _ in range(3):
            with pytest.raises(StorageError, match=r"^(redis|valkey)\+cluster://"):
                store.decide(group, keys)
        left = [verdict.remaining for verdict in store.decide(items, first, [0] * 4, TEST)]
        assert left == [9] * 4
        store.close()
    finally:
        cluster.stop()


def move_slot(cluster: Any, slot: int, source: Any, target: Any) -> None:
    """As redis-cli moves one: key by key, while both nodes answer."""
    with source.client() as leaving, target.client() as arriving:
        ids = [client.execute_command("CLUSTER MYID").decode() for client in (leaving, arriving)]
        arriving.execute_command(f"CLUSTER SETSLOT {slot} IMPORTING {ids[0]}")
        leaving.execute_command(f"CLUSTER SETSLOT {slot} MIGRATING {ids[1]}")
        while keys := leaving.execute_command(f"CLUSTER GETKEYSINSLOT {slot} 10"):
            leaving.migrate("127.0.0.1", target.port, keys, 0, 60_000)
            time.sleep(0.05)
        time.sleep(0.2)
        for node in cluster.nodes:
            with node.client() as client:
                client.execute_command(f"CLUSTER SETSLOT {slot} NODE {ids[1]}")


def test_a_slot_moves_under_load(make_cluster: Callable[[], Any]) -> None:
    """Never more than the limit, and no error but while a decision's keys lie on both nodes."""
    cluster = make_cluster()
    try:
        store = storage_from_string(cluster.uri, remember_denials=0)
        items = [Limit(2000, 30, "day", strategy=strategy) for strategy in STRATEGIES]
        (slot,) = store._codec.slots(items[:1], "moving")
        with Crowd(lambda: store.decide(items, "moving").allowed, 3) as crowd:
            crowd.wait_for(200)
            for _ in range(2):
                source = cluster.node_of(slot)
                target = next(node for node in cluster.nodes if node is not source)
                move_slot(cluster, slot, source, target)
                crowd.wait_for(200)
            crowd.wait_for(2500)
        assert not crowd.errors
        left = store.decide(items, "moving", [0] * 4, TEST)
        assert {verdict.remaining for verdict in left} == {0}
        assert crowd.allowed <= 2000
        store.close()
    finally:
        cluster.stop()


def test_a_node_that_is_stopped(make_cluster: Callable[[], Any], tmp_path: Path) -> None:
    """Requests to other nodes are delayed by at most two deadlines."""
    cluster = make_cluster()
    try:
        deadline = 2.0
        store = storage_from_string(cluster.uri, remember_denials=0, socket_timeout=deadline)
        item = weir.parse("1000/hour")
        first, second = slots_apart(store, item, cluster)
        for key in (first, second):
            store.decide([item], key)
        (slot,) = store._codec.slots([item], second)
        with cluster.node_of(slot).frozen():

            def away() -> float:
                start = time.perf_counter()
                with pytest.raises(StorageError):
                    store.decide([item], second)
                return time.perf_counter() - start

            def there() -> float:
                start = time.perf_counter()
                assert store.decide([item], first).allowed
                return time.perf_counter() - start

            assert quickest(away, 6 * deadline) < 6 * deadline
            assert quickest(there, 2.8 * deadline) < 2.8 * deadline
        store.close()
    finally:
        cluster.stop()
