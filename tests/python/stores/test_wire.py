"""Connections that are cut anywhere, replies that arrive in pieces, servers that are slow."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import weir.aio
from servers.ports import quickest
from servers.relay import Relay
from weir import REFUND, TEST, Limit, StorageError, StoreAwayError
from weir.storage import storage_from_string

STRATEGIES = ["fixed-window", "moving-window", "token-bucket"]


class Proxy(Relay):
    """Changes how the replies of a server arrive."""

    def __init__(self, port: int) -> None:
        #: Each connection is cut after this many bytes of replies; ``None``: never.
        self.cut: int | None = None
        #: Bytes that are sent at once.
        self.piece = 65536
        #: Seconds before each reply.
        self.delay = 0.0
        super().__init__(port)

    def answer(self, client: socket.socket, server: socket.socket) -> None:
        left = self.cut
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                time.sleep(self.delay)
                if left is not None:
                    data, left = data[:left], left - len(data)
                for at in range(0, len(data), self.piece):
                    client.sendall(data[at : at + self.piece])
                if left is not None and left <= 0:
                    break
        self.hang_up(client, server)


@pytest.fixture(params=["redis", "memcached"])
def proxy(request: pytest.FixtureRequest, servers: Any) -> Iterator[tuple[Proxy, str, str]]:
    """A proxy, and the URIs of the store through it and past it."""
    server = getattr(servers, request.param)
    proxy = Proxy(server.port)
    yield proxy, f"{request.param}://127.0.0.1:{proxy.port}", server.uri
    proxy.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_replies_in_pieces(proxy: Any, strategy: str, key: str) -> None:
    between, uri, _ = proxy
    between.piece = 1
    store = storage_from_string(uri, socket_timeout=20)
    items = [Limit(5 + n, 1, "hour", strategy=strategy) for n in range(8)]
    decision = store.decide(items, key)
    assert [verdict.remaining for verdict in decision] == list(range(4, 12))
    assert between.connections == 1
    store.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_connection_cut_anywhere(proxy: Any, strategy: str, key: str) -> None:
    """A verdict or an error of the store; and no hit is charged more than twice."""
    between, uri, direct = proxy
    sure = storage_from_string(direct, remember_denials=0, socket_timeout=10)
    item = Limit(1000, 1, "hour", strategy=strategy)
    for cut in range(0, 330, 7):
        between.cut = cut
        store = storage_from_string(uri, remember_denials=0, socket_timeout=10)
        passed = sent = 0
        name = f"{key}/{cut}"
        for _ in range(4):
            sent += 1
            with contextlib.suppress(StorageError):
                passed += store.decide([item], name).allowed
        charged = 1000 - sure.decide([item], name, [0], TEST)[0].remaining
        assert passed <= charged <= 2 * sent, (cut, passed, charged)
        store.close()
    sure.close()


def test_a_slow_server_costs_the_deadline(proxy: Any, key: str, default_deadline: None) -> None:
    between, uri, _ = proxy
    between.delay = 1.5
    store = storage_from_string(uri)

    def send() -> float:
        start = time.perf_counter()
        with pytest.raises(StorageError, match=r"no answer within 0\.25 s"):
            store.decide([Limit(5)], key)
        return time.perf_counter() - start

    assert quickest(send, 1.2) < 1.2
    assert not store.check()
    between.delay = 0.0
    store.close()
    patient = storage_from_string(uri, socket_timeout=20.0)
    assert patient.decide([Limit(5)], key).allowed
    patient.close()


def ask_often(store: Any, item: Limit, key: str, allowed: list[bool]) -> Callable[[], None]:
    def send() -> None:
        for _ in range(50):
            with contextlib.suppress(StorageError):
                allowed.append(store.decide([item], key).allowed)

    return send


def test_threads_whose_connections_are_cut(proxy: Any, key: str) -> None:
    """Each caller gets its own reply: no key is charged for another."""
    between, uri, _ = proxy
    between.cut = 1500
    store = storage_from_string(uri, remember_denials=0, socket_timeout=10)
    item = Limit(30, 1, "hour")
    answers: list[list[bool]] = [[] for _ in range(6)]
    threads = [
        threading.Thread(target=ask_often(store, item, f"{key}/{n}", allowed))
        for n, allowed in enumerate(answers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(10 < sum(allowed) <= 30 for allowed in answers), [sum(a) for a in answers]
    store.close()


# ----------------------------------------------------------------- closed after a command was sent


#: Commands of decisions; those that only read what Memcached keeps are the second kind.
_DECIDES = re.compile(rb"EVAL|DEL|^(m[ad]|cas|add|delete|incr|decr) ")
_READS = re.compile(rb"^mg ")


class Closing(Proxy):
    """Closes the connection when the server has answered a decision; the answer is lost."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        #: Commands that are forwarded, and their answers lost, from now on.
        self.losses = 0
        self.lost = 0
        self.loses_reads = False
        self.decides: dict[socket.socket, bool] = {}

    def forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                reads = self.loses_reads and _READS.search(data)
                self.decides[server] = bool(reads or _DECIDES.search(data))
                server.sendall(data)
        self.hang_up(client, server)

    def answer(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self.losses > 0 and self.decides[server]:
                    self.losses -= 1
                    self.lost += 1
                    break
                client.sendall(data)
        self.hang_up(client, server)


#: How each store is opened through a proxy: the server's name, and the scheme.
THROUGH = {
    "redis": ("redis", "redis"),
    "valkey": ("valkey", "valkey"),
    "memcached": ("memcached", "memcached"),
    "cluster": ("cluster", "redis+cluster"),
    "valkey-cluster": ("valkey_cluster", "valkey+cluster"),
}


class Lossy:
    """A store behind proxies that lose answers, and the same store by the straight way."""

    def __init__(self, servers: Any, name: str) -> None:
        attribute, scheme = THROUGH[name]
        server = getattr(servers, attribute)
        nodes = getattr(server, "nodes", [server])
        self.proxies = {node.port: Closing(node.port) for node in nodes}
        options: dict[str, Any] = {"remember_denials": 0, "socket_timeout": 20}
        self.sure = storage_from_string(server.uri, **options)
        if "cluster" in scheme:
            options["address_remap"] = lambda address: (
                address[0],
                self.proxies[address[1]].port if address[1] in self.proxies else address[1],
            )
            self.uri = server.uri
        else:
            self.uri = f"{scheme}://127.0.0.1:{next(iter(self.proxies.values())).port}"
        self.store = storage_from_string(self.uri, **options)

    def lose(self, losses: int, *, reads: bool = False) -> None:
        for proxy in self.proxies.values():
            proxy.loses_reads = reads
            proxy.losses = losses

    @property
    def lost(self) -> int:
        return sum(proxy.lost for proxy in self.proxies.values())

    def close(self) -> None:
        self.store.close()
        self.sure.close()
        for proxy in self.proxies.values():
            proxy.close()


@pytest.fixture(params=list(THROUGH))
def lossy(request: pytest.FixtureRequest, servers: Any) -> Iterator[Lossy]:
    lossy = Lossy(servers, request.param)
    yield lossy
    lossy.close()


def left_of(store: Any, item: Limit, key: str) -> int:
    remaining: int = store.decide([item], key, [0], TEST)[0].remaining
    return remaining


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_may_have_been_executed_is_not_sent_again(
    lossy: Lossy, strategy: str, key: str
) -> None:
    """One hit charges once, one refund gives back once, whatever becomes of the answer."""
    item = Limit(1000, 1, "day", strategy=strategy)
    for _ in range(10):
        lossy.store.decide([item], key)
    assert left_of(lossy.sure, item, key) == 990
    lossy.lose(1)
    with pytest.raises(StoreAwayError):
        lossy.store.decide([item], key)
    assert lossy.lost == 1
    lossy.lose(0)
    assert left_of(lossy.sure, item, key) == 989
    assert lossy.store.decide([item], key, [0]).allowed
    lossy.lose(1)
    with pytest.raises(StoreAwayError):
        lossy.store.decide([item], key, None, REFUND)
    lossy.lose(0)
    assert left_of(lossy.sure, item, key) == 990


def test_a_lost_clear_is_not_repeated(lossy: Lossy, key: str) -> None:
    item = Limit(1000, 1, "day")
    lossy.store.decide([item], key)
    lossy.lose(1)
    with pytest.raises(StoreAwayError):
        lossy.store.clear([item], key)
    assert lossy.lost == 1


def test_a_request_that_charges_nothing_is_sent_again(lossy: Lossy, key: str) -> None:
    item = Limit(1000, 1, "day")
    lossy.store.decide([item], key)
    lossy.lose(1, reads=True)
    assert left_of(lossy.store, item, key) == 999
    assert lossy.lost == 1


@pytest.mark.parametrize("name", ["redis", "valkey"])
def test_asyncio_does_not_send_again(servers: Any, name: str, key: str) -> None:
    server = getattr(servers, name)
    proxy = Closing(server.port)
    item = Limit(1000, 1, "day")

    async def run() -> None:
        uri = f"async+{name}://127.0.0.1:{proxy.port}"
        storage = weir.aio.storage.storage_from_string(uri, socket_timeout=20)
        limiter = weir.aio.strategies.FixedWindowRateLimiter(storage)
        assert await limiter.hit(item, key)
        proxy.losses = 1
        with pytest.raises(StoreAwayError):
            await limiter.hit(item, key)
        assert (await limiter.get_window_stats(item, key)).remaining == 998
        await storage.close()

    asyncio.run(run())
    assert proxy.lost == 1
    proxy.close()
