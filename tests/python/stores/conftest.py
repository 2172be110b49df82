"""Fixtures for the tests of stores: real servers, the stores, and their clock."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from servers.memcached_server import Memcached
from servers.ports import free_port, wait_for
from servers.recorded_hits import Run
from servers.redis_server import RedisServer, ValkeyServer
from servers.redis_topology import Cluster, Sentinels
from servers.session import Servers
from weir import Table
from weir.storage import storage_from_string
from weir.stores import sync
from weir.stores.memcached import MemcachedStorage
from weir.stores.mongodb import MongoDBStorage
from weir.stores.postgresql import PostgreSQLStorage
from weir.stores.redis import RedisStorage

T0 = 1_700_000_000.0


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.stop()


@pytest.fixture
def default_deadline() -> None:
    """For tests of the deadline itself: calls have the one that they have by default."""


@pytest.fixture(autouse=True)
def _patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All others wait longer: a busy machine may hold a call up for a quarter of a second."""
    if "default_deadline" not in request.fixturenames:
        monkeypatch.setattr("weir.stores.base.DEADLINE", 20.0)
        for kind in (MemcachedStorage, MongoDBStorage, PostgreSQLStorage):
            defaults = kind.__init__.__defaults__
            assert defaults is not None
            patient = tuple(20.0 if value == 0.25 else value for value in defaults)
            assert patient != defaults
            monkeypatch.setattr(kind.__init__, "__defaults__", patient)


@pytest.fixture(autouse=True)
def _every_key_goes_away(servers: Servers) -> Iterator[None]:
    """No test leaves a key without expiry on a server, or a thread that makes more."""
    yield
    for host in list(sync._syncs):
        host.stop()
    for server in servers.redis_servers():
        if not server.has_keys():
            continue
        with server.client() as client:
            if client.info("replication")["role"] != "master":
                continue
            keys = list(client.scan_iter(count=1000))
            stay = [key for key in keys if client.pttl(key) == -1]
            client.flushall()
        assert not stay, f"keys without a time to live: {stay}"


class Clock:
    """Sets the time that a store decides by."""

    def __init__(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store = store
        self._monkeypatch = monkeypatch
        self.now = T0
        self.set(T0)

    def set(self, seconds: float) -> None:
        self.now = seconds
        if isinstance(self._store, Table):
            self._monkeypatch.setattr(time, "time", lambda: seconds)
        else:
            self._store.set_clock(seconds, True)

    def move(self, seconds: float) -> None:
        self.set(self.now + seconds)


#: The stores that pass one suite, by how they are opened.
STORES: dict[str, Callable[[Servers], Any]] = {
    "table": lambda _: Table("memory://"),
    "redis": lambda servers: storage_from_string(servers.redis.uri),
    "redis-unix": lambda servers: storage_from_string(
        f"redis+unix://{servers.redis.directory}/socket?db=1"
    ),
    "rediss": lambda servers: storage_from_string(
        servers.tls.uri, ssl_ca_certs=str(servers.authority() / "ca.pem")
    ),
    "sentinel": lambda servers: storage_from_string(servers.sentinels.uri),
    "cluster": lambda servers: storage_from_string(servers.cluster.uri),
    "valkey": lambda servers: storage_from_string(servers.valkey.uri),
    "valkey-sentinel": lambda servers: storage_from_string(servers.valkey_sentinels.uri),
    "valkey-cluster": lambda servers: storage_from_string(servers.valkey_cluster.uri),
    "memcached": lambda servers: storage_from_string(servers.memcached.uri),
    "mongodb": lambda servers: storage_from_string(servers.mongodb.uri, socket_timeout=20.0),
    "postgresql": lambda servers: storage_from_string(servers.postgresql.uri, create=True),
}


def open_store(name: str, servers: Servers) -> Any:
    return STORES[name](servers)


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Any]:
    store = open_store(request.param, servers)
    yield store
    store.close()


@pytest.fixture
def redis_store(servers: Servers) -> Iterator[RedisStorage]:
    store = RedisStorage(servers.redis.uri)
    yield store
    store.close()


@pytest.fixture
def client(servers: Servers) -> Iterator[Any]:
    """A client of the shared Redis."""
    with servers.redis.client() as client:
        yield client


@pytest.fixture
def clock(store: Any, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(store, monkeypatch)


@pytest.fixture
def key() -> str:
    """One that no other test uses."""
    return f"client-{uuid.uuid4()}"


@pytest.fixture
def sql(servers: Servers) -> Iterator[Callable[..., list[Any]]]:
    """Runs a statement on the shared PostgreSQL; its rows."""
    with psycopg.connect(servers.postgresql.uri, autocommit=True) as connection:
        yield lambda *arguments: connection.execute(*arguments).fetchall()


@pytest.fixture
def make_redis(tmp_path: Path) -> Callable[..., RedisServer]:
    """A server of the test's own, not started yet. The test stops it."""
    return lambda *arguments: RedisServer(tmp_path / "redis", arguments)


@pytest.fixture
def postgresql_server(servers: Any) -> Iterator[Any]:
    """A PostgreSQL server for this test, in a directory that its user may enter."""
    server = type(servers.postgresql)(servers.directory / f"postgresql-{uuid.uuid4().hex[:8]}")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_memcached(tmp_path: Path) -> Callable[..., Memcached]:
    return lambda *arguments: Memcached(tmp_path / "memcached", arguments)


@pytest.fixture(params=[RedisServer, ValkeyServer], ids=["redis", "valkey"])
def server_kind(request: pytest.FixtureRequest) -> type[RedisServer]:
    return request.param


@pytest.fixture
def make_sentinels(tmp_path: Path, server_kind: type[RedisServer]) -> Callable[[], Sentinels]:
    return lambda: Sentinels(tmp_path, server_kind)


@pytest.fixture
def make_cluster(tmp_path: Path, server_kind: type[RedisServer]) -> Callable[[], Cluster]:
    return lambda: Cluster(tmp_path, server_kind)


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., Any]:
    return wait_for


@pytest.fixture(name="free_port")
def free_port_fixture() -> Callable[[], int]:
    return free_port


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a separate Python process."""

    def run(program: str, *arguments: str, timeout: float = 300) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    """Processes that record each admitted hit."""
    run = Run(tmp_path / "admitted")
    yield run
    run.stop()
    if run.admitted:
        run.report(request.node.name)
