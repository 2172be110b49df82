"""The servers that the tests of stores share."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pymemcache.client.base import Client as PymemcacheClient

from servers.memcached_server import Memcached
from servers.mongodb_server import MongoProtocol, mongo_server
from servers.postgresql_server import PostgreSQL
from servers.redis_server import RedisServer, TlsServer, ValkeyServer
from servers.redis_topology import Cluster, Sentinels

#: Milliseconds after which a silent server is replaced. The tests that share these replace none.
PATIENT = 15_000


class Servers:
    """All servers of a test session, started at first use."""

    def __init__(self) -> None:
        # The path of a Unix socket must be short.
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
        path = self.directory / "sentinels"
        return self.get("sentinels", lambda: Sentinels(path, down_after=PATIENT))

    @property
    def cluster(self) -> Cluster:
        return self.get("cluster", lambda: Cluster(self.directory / "cluster", down_after=PATIENT))

    @property
    def valkey_sentinels(self) -> Sentinels:
        path = self.directory / "valkey-sentinels"
        return self.get("valkey-sentinels", lambda: Sentinels(path, ValkeyServer, PATIENT))

    @property
    def valkey_cluster(self) -> Cluster:
        path = self.directory / "valkey-cluster"
        return self.get("valkey-cluster", lambda: Cluster(path, ValkeyServer, PATIENT))

    @property
    def postgresql(self) -> PostgreSQL:
        return self.get("postgresql", lambda: PostgreSQL(self.directory / "postgresql").start())

    @property
    def mongodb(self) -> MongoProtocol:
        return self.get("mongodb", lambda: mongo_server(self.directory / "mongodb"))

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
