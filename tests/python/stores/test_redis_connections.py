"""Redis: pools, threads, forks, gevent, Valkey."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

import weir
from servers.ports import PATIENCE, wait_for
from weir import Limit, StorageError
from weir.storage import storage_from_string
from weir.stores.redis import RedisStorage

THREE = [weir.parse("1000/minute"), weir.parse("10000/hour"), weir.parse("100000/day")]
TIGHT = weir.parse("2 per minute")


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Call ``work`` in ``count`` threads at once. Raises an exception of one of them."""
    with ThreadPoolExecutor(count) as pool:
        for call in [pool.submit(work) for _ in range(count)]:
            call.result()


@pytest.fixture
def store(redis_store: RedisStorage) -> RedisStorage:
    return redis_store


def test_a_custom_pool(servers: Any) -> None:
    pool = redis.ConnectionPool(port=servers.redis.port, db=3, decode_responses=True)
    store = storage_from_string("redis://", connection_pool=pool)
    assert store.name == f"redis://localhost:{servers.redis.port}/3"
    assert [store.decide([TIGHT], "a").allowed for _ in range(3)] == [True, True, False]
    with servers.redis.client(db=3) as client:
        assert client.dbsize() == 1
    assert store.reset() == 1
    store.close()
    pool.disconnect()


@pytest.mark.parametrize("options", [{}, {"protocol": 3}, {"decode_responses": True}])
def test_a_custom_pool_is_shared(servers: Any, options: dict[str, Any]) -> None:
    """Others, and other threads, get their turn: each check borrows a connection."""
    pool = redis.BlockingConnectionPool(
        port=servers.redis.port, max_connections=1, timeout=PATIENCE, **options
    )
    with redis.Redis(connection_pool=pool, socket_timeout=PATIENCE) as other:
        store = storage_from_string("redis://", connection_pool=pool)

        def work() -> None:
            for i in range(20):
                assert store.decide(THREE, f"client-{i}").allowed
                other.ping()

        in_threads(6, work)
        assert store.check()
        assert store.reset() == 60
        other.ping()
        store.close()
    pool.disconnect()


def test_a_connection_that_broke_is_no_longer_counted(servers: Any, client: Any) -> None:
    """Otherwise restarts and timeouts would exhaust the pool over time."""
    store = storage_from_string(servers.redis.uri, max_connections=2, socket_timeout=20.0)
    for _ in range(6):
        assert store.decide(THREE, "a").allowed
        client.client_kill_filter(_type="normal", skipme=True)
    store.deadline = 0.5
    with servers.redis.frozen(), pytest.raises(StorageError, match="no answer"):
        store.decide(THREE, "a")
    store.deadline = 20.0
    assert store.reset() == 3
    store.close()


def test_as_many_connections_as_callers(servers: Any, store: Any) -> None:
    """redis-py's own pool ends at 100."""
    together = threading.Barrier(120)

    def work() -> None:
        connection = store._server._connect(None)
        together.wait(PATIENCE)
        store._server._keep(connection)

    in_threads(120, work)
    assert store.decide(THREE, "a").allowed


def test_options_are_the_clients(servers: Any) -> None:
    store = storage_from_string(
        f"{servers.redis.uri}/2?socket_timeout=1.5", client_name="weir-test", decode_responses=True
    )
    assert store.decide([TIGHT], "a").allowed
    with servers.redis.client() as client:
        assert any(c["name"] == "weir-test" and c["db"] == "2" for c in client.client_list())
    assert store.deadline == 1.5
    store.reset()
    store.close()


def test_threads_share_no_connection(servers: Any, store: Any) -> None:
    item = Limit(1000, 1, "hour")
    allowed = []

    def work() -> None:
        for _ in range(100):
            allowed.append(store.decide([item, *THREE], "threads").allowed)

    in_threads(16, work)
    assert sum(allowed) == 1000
    assert len(allowed) == 1600
    assert len(store._server._idle) <= 16


def test_a_child_opens_its_own_connections(servers: Any, store: Any) -> None:
    item = Limit(300, 1, "hour")
    store.decide([item], "forked", [0])
    reader, writer = os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                allowed = sum(store.decide([item], "forked").allowed for _ in range(100))
                os.write(writer, b"%d\n" % allowed)
            finally:
                os._exit(0)
        children.append(child)
    mine = sum(store.decide([item], "forked").allowed for _ in range(100))
    for child in children:
        os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert mine + sum(int(line) for line in pipe) == 300


GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys, gevent, weir
from weir.storage import storage_from_string

store = storage_from_string(sys.argv[1], socket_timeout=20)
item = weir.Limit(500, 1, "hour")
allowed, turns = [], []

def work():
    for _ in range(50):
        allowed.append(store.decide([item], "greenlets").allowed)

def other():
    while len(allowed) < 800:
        turns.append(1)
        gevent.sleep(0)

gevent.joinall([gevent.spawn(work) for _ in range(16)] + [gevent.spawn(other)], raise_error=True)
assert sum(allowed) == 500 and len(allowed) == 800, (sum(allowed), len(allowed))
assert len(turns) > 20, "other threads had no turn"
if hasattr(store, "_topology"):
    servers = list(store._topology.servers.values())
else:
    servers = [getattr(store, "_server", None) or store._nodes[0]]
idle = max(len(server._idle) for server in servers)
assert 2 <= idle <= 16, idle
store.close()
"""


@pytest.mark.parametrize("where", ["redis", "tls", "cluster", "memcached"])
def test_gevent_patched_workers(servers: Any, run_python: Callable[..., Any], where: str) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    uri = getattr(servers, where).uri
    if where == "tls":
        uri += f"?ssl_ca_certs={servers.authority()}/ca.pem"
    run_python(GEVENT, uri)


def test_an_interrupted_call_leaves_no_reply_behind(servers: Any, store: Any) -> None:
    """A worker's timeout may end a call between question and answer."""
    store.decide(THREE, "a")
    (connection,) = store._server._idle

    def end(*_: object) -> None:
        raise SystemExit

    def interrupt() -> None:
        wait_for(lambda: connection not in store._server._idle)  # the call uses it
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, end)
    interrupter = threading.Thread(target=interrupt)
    try:
        with servers.redis.frozen():
            interrupter.start()
            with pytest.raises(SystemExit):
                store.decide(THREE, "a")
        interrupter.join()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert connection not in store._server._idle
    assert store.decide([TIGHT], "other")[0].remaining == 1


def test_a_connection_that_the_server_closed_is_replaced(store: Any, client: Any) -> None:
    store.decide(THREE, "a")
    client.client_kill_filter(_type="normal", skipme=True)
    assert store.decide(THREE, "a").allowed


def test_valkey_by_valkey_py(servers: Any) -> None:
    """valkey-py against this server, which speaks the same protocol."""
    store = storage_from_string(f"valkey://127.0.0.1:{servers.redis.port}")
    assert type(store.client).__name__ == "Valkey"
    assert [store.decide([TIGHT], "a").allowed for _ in range(3)] == [True, True, False]
    store.close()


def test_a_valkey_server(servers: Any) -> None:
    """The suite of test_conformance.py runs against it, too."""
    store = storage_from_string(servers.valkey.uri)
    assert [store.decide([TIGHT], "a").allowed for _ in range(3)] == [True, True, False]
    assert store.reset() == 1
    store.close()
