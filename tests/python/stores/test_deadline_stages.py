"""One deadline at every stage of a call: accept, handshake, greeting, half a reply, each byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from servers.ports import quickest
from servers.relay import Relay
from weir import Limit, StoreAwayError
from weir.storage import storage_from_string

pytestmark = pytest.mark.slow

FIVE = Limit(5, 1, "hour")

DEADLINE = 0.5

#: Seconds that a busy machine may add.
PATIENCE = 2.0


class Between(Relay):
    """``stage``: how the replies of the server are forwarded."""

    def __init__(self, port: int) -> None:
        #: "fast", "silent", "half" (each chunk's first half, then nothing), or "trickle".
        self.stage = "fast"
        super().__init__(port)

    def answer(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self.stage == "fast":
                    client.sendall(data)
                elif self.stage == "half":
                    client.sendall(data[: len(data) // 2])
                elif self.stage == "trickle":
                    for at in range(len(data)):
                        client.sendall(data[at : at + 1])
                        time.sleep(0.05)


class Terminator(Between):
    """Uses TLS to the client, and none to the server."""

    def __init__(self, port: int, authority: Any) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(authority / "server.pem", authority / "server.key")
        super().__init__(port)

    def serve(self, client: socket.socket) -> None:
        with self._context.wrap_socket(client, server_side=True) as encrypted:
            self._open.append(encrypted)
            super().serve(encrypted)


STORES = [
    "redis",
    "valkey",
    "cluster",
    "rediss",
    "valkeys",
    "memcached",
    "memcacheds",
    "postgresql",
]


class Slow:
    """A store behind something that can be slow."""

    def __init__(self, servers: Any, name: str) -> None:
        self.closing: list[Any] = []
        options: dict[str, Any] = {"socket_timeout": DEADLINE, "remember_denials": 0}
        if name == "cluster":
            server = servers.cluster.nodes[0]
        elif name in ("rediss", "valkeys"):
            server = servers.tls
            options["ssl_ca_certs"] = str(servers.authority() / "ca.pem")
        elif name == "postgresql":
            server = servers.postgresql
            with contextlib.closing(storage_from_string(server.uri, create=True)) as made:
                made.decide([FIVE], "made")
        else:
            server = servers.memcached if "memcached" in name else getattr(servers, name)
        port = server.port
        if name == "memcacheds":
            terminator = Terminator(port, servers.authority())
            self.closing.append(terminator)
            port = terminator.port
            options["tls_context"] = ssl.create_default_context(
                cafile=str(servers.authority() / "ca.pem")
            )
        self.between = Between(port)
        self.closing.append(self.between)
        scheme = {"cluster": "redis+cluster", "memcacheds": "memcached"}.get(name, name)
        if name == "cluster":
            ports = {node.port: Between(node.port) for node in servers.cluster.nodes}
            self.closing += ports.values()
            self.betweens = [self.between, *ports.values()]
            options["address_remap"] = lambda address: (
                address[0],
                ports[address[1]].port if address[1] in ports else address[1],
            )
        else:
            self.betweens = [self.between]
        uri = f"{scheme}://localhost:{self.between.port}"
        if name == "postgresql":
            uri = f"postgresql://weir@localhost:{self.between.port}/postgres"
        self.store: Any = storage_from_string(uri, **options)

    def become(self, stage: str) -> None:
        for each in self.betweens:
            each.stage = stage

    def time_of_a_failure(self) -> float:
        start = time.monotonic()
        with pytest.raises(StoreAwayError):
            self.store.decide([FIVE], "a")
        return time.monotonic() - start

    def close(self) -> None:
        self.become("silent")
        for each in self.closing:
            each.close()
        self.store.close()


@pytest.fixture
def slow(servers: Any) -> Iterator[Callable[[str], Slow]]:
    made: list[Slow] = []

    def start(name: str) -> Slow:
        made.append(Slow(servers, name))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.mark.parametrize("stage", ["silent", "half", "trickle"])
@pytest.mark.parametrize("name", STORES)
def test_a_connection_that_is_made_slowly(slow: Any, name: str, stage: str) -> None:
    store = slow(name)
    store.become(stage)
    for _ in range(2):
        assert quickest(store.time_of_a_failure, DEADLINE + PATIENCE) < DEADLINE + PATIENCE


@pytest.mark.parametrize("stage", ["silent", "half", "trickle"])
@pytest.mark.parametrize("name", STORES)
def test_an_answer_that_comes_slowly(slow: Any, name: str, stage: str, wait_for: Any) -> None:
    store = slow(name)
    wait_for(lambda: store.store.decide([FIVE], "warm", [0]))
    store.become(stage)
    for _ in range(2):
        assert quickest(store.time_of_a_failure, DEADLINE + PATIENCE) < DEADLINE + PATIENCE
    store.become("fast")
    wait_for(lambda: store.store.decide([FIVE], "warm", [0]))
