"""A deadline covers the whole call: names, connecting, every reply, signals, several servers."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from servers.ports import quickest, wait_for
from servers.relay import Listener
from weir import Limit, StorageError, StoreAwayError
from weir.storage import storage_from_string
from weir.stores.hosts import Resolver

pytestmark = pytest.mark.slow

FIVE = Limit(5, 1, "hour")

DEADLINE = 0.5

#: Seconds that a busy machine may add.
PATIENCE = 1.5
LONGEST = DEADLINE + PATIENCE


class AnsweringServer(Listener):
    """A server whose answers a test sets."""

    def __init__(self, answer: Callable[[socket.socket], object]) -> None:
        self.serve = answer  # type: ignore[method-assign, assignment]
        super().__init__()


def trickle(client: socket.socket) -> None:
    """A byte of an endless answer every 50 ms."""
    client.recv(65536)
    client.sendall(b"$60000\r\n")
    for _ in range(200):
        client.sendall(b"x")
        time.sleep(0.05)


def trickle_later(client: socket.socket) -> None:
    """The handshake is answered; after that, bytes come one by one."""
    while True:
        received = client.recv(65536)
        if b"EVAL" in received or b"ma weir" in received or not received:
            break
        if received.startswith(b"version"):
            client.sendall(b"VERSION 1.6.18\r\n")
        for _ in range(received.count(b"*")):
            client.sendall(b"+OK\r\n")
    client.sendall(b"$60000\r\n")
    for _ in range(200):
        client.sendall(b"x")
        time.sleep(0.05)


def keep_silent(client: socket.socket) -> None:
    while client.recv(65536):
        pass


@pytest.fixture
def answering_server() -> Iterator[Callable[..., AnsweringServer]]:
    servers_started: list[AnsweringServer] = []

    def start(answer: Callable[[socket.socket], object]) -> AnsweringServer:
        servers_started.append(AnsweringServer(answer))
        return servers_started[-1]

    yield start
    for each in servers_started:
        each.close()


def time_of_a_failure(store: Any) -> float:
    """How long it took to find out that the store is away."""
    start = time.monotonic()
    with pytest.raises(StoreAwayError):
        store.decide([FIVE], "a")
    return time.monotonic() - start


SCHEMES = ["redis", "valkey", "redis+cluster", "valkey+cluster", "redis+sentinel", "memcached"]


@pytest.mark.parametrize("answer", [trickle, trickle_later, keep_silent])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_trickles_costs_one_deadline(
    answering_server: Any, scheme: str, answer: Callable[[socket.socket], object]
) -> None:
    path = "/service" if "sentinel" in scheme else ""
    uri = f"{scheme}://127.0.0.1:{answering_server(answer).port}{path}"
    store = storage_from_string(uri, socket_timeout=DEADLINE)
    for _ in range(2):
        assert quickest(lambda: time_of_a_failure(store), LONGEST) < LONGEST
    store.close()


@contextlib.contextmanager
def signals_every(seconds: float) -> Iterator[list[int]]:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield seen
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["redis", "valkey", "memcached", "cluster", "tls"])
def test_signals_do_not_prolong_a_call(servers: Any, name: str) -> None:
    server = getattr(servers, name)
    options = {"ssl_ca_certs": f"{servers.authority()}/ca.pem"} if name == "tls" else {}
    store = storage_from_string(server.uri, socket_timeout=DEADLINE, **options)
    wait_for(lambda: store.decide([FIVE], "a", [0]))
    with contextlib.ExitStack() as stack:
        for each in getattr(server, "nodes", [server]):
            stack.enter_context(each.frozen())
        with signals_every(0.05) as seen:
            for _ in range(2):
                assert quickest(lambda: time_of_a_failure(store), LONGEST) < LONGEST
        assert len(seen) > 2
    store.close()


def test_a_call_goes_on_after_a_signal(servers: Any) -> None:
    store = storage_from_string(servers.redis.uri, socket_timeout=30)
    store.decide([FIVE], "a", [0])
    with signals_every(0.001) as seen:
        end = time.monotonic() + 30
        while len(seen) < 200 and time.monotonic() < end:
            assert store.decide([FIVE], "a", [0]).allowed
    store.close()


# ------------------------------------------------------------------------------------------- names


class Names:
    """Stands in for the system's resolver."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.silent = False
        self.fails = False
        self._resolve = socket.getaddrinfo
        self.release = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", self.resolve)

    def resolve(self, host: Any, *args: Any, **options: Any) -> Any:
        if host != "store.example":
            return self._resolve(host, *args, **options)
        self.calls += 1
        if self.silent:
            self.release.wait(120)
        if self.fails:
            raise socket.gaierror(-2, "Name or service not known")
        return self._resolve("127.0.0.1", *args, **options)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names(monkeypatch)
    yield names
    names.release.set()


@pytest.mark.parametrize("name", ["redis", "valkey", "memcached", "cluster"])
def test_a_silent_resolver_costs_one_deadline(servers: Any, names: Names, name: str) -> None:
    names.silent = True
    server = getattr(servers, name)
    port = getattr(server, "port", None) or server.nodes[0].port
    scheme = server.uri.partition("://")[0]
    store = storage_from_string(f"{scheme}://store.example:{port}", socket_timeout=DEADLINE)
    for _ in range(3):
        assert quickest(lambda: time_of_a_failure(store), LONGEST) < LONGEST
    store.close()


@pytest.mark.parametrize("name", ["redis", "valkey", "memcached"])
@pytest.mark.parametrize("fault", ["silent", "fails"])
def test_the_last_good_answer_is_kept(servers: Any, names: Names, name: str, fault: str) -> None:
    server = getattr(servers, name)
    scheme = server.uri.partition("://")[0]
    store = storage_from_string(f"{scheme}://store.example:{server.port}", socket_timeout=20)
    assert store.decide([FIVE], "kept", [0]).allowed
    setattr(names, fault, True)
    calls = names.calls
    for _ in range(3):
        store.close()
        assert store.decide([FIVE], "kept", [0]).allowed
    assert names.calls > calls
    store.close()


def test_a_name_without_an_address_is_an_error(names: Names) -> None:
    names.fails = True
    store = storage_from_string("redis://store.example:6379")
    with pytest.raises(StorageError, match="not known"):
        store.decide([FIVE], "a")


def test_a_name_is_resolved_once_at_a_time(names: Names) -> None:
    names.silent = True
    resolver = Resolver()

    def send() -> None:
        with contextlib.suppress(TimeoutError):
            resolver.addresses("store.example", 0.05)

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names.calls == 1
    names.release.set()


# ----------------------------------------------------------------------------------------- Clusters


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_callers_of_a_silent_cluster_do_not_queue(answering_server: Any, scheme: str) -> None:
    nodes = ",".join(f"127.0.0.1:{answering_server(keep_silent).port}" for _ in range(3))
    store = storage_from_string(f"{scheme}+cluster://{nodes}", socket_timeout=DEADLINE)

    def send_twenty() -> float:
        """The median of how long callers wait; half of the sum, if they queued."""
        with ThreadPoolExecutor(20) as pool:
            took = list(pool.map(lambda _: time_of_a_failure(store), range(20)))
        return sorted(took)[10]

    assert quickest(send_twenty, LONGEST) < LONGEST
    store.close()


@pytest.mark.parametrize("name", ["cluster", "valkey_cluster"])
def test_what_timed_out_is_not_charged_again(servers: Any, name: str, key: str) -> None:
    """A call that was sent is executed once, when the server goes on."""
    cluster = getattr(servers, name)
    store = storage_from_string(cluster.uri, remember_denials=0, socket_timeout=DEADLINE)
    sure = storage_from_string(cluster.uri, remember_denials=0, socket_timeout=20)
    many = Limit(1000, 1, "hour")
    wait_for(lambda: store.decide([many], key, [0]))
    assert sure.decide([many], key)[0].remaining == 999
    (slot,) = store._codec.slots([many], key)
    with cluster.node_of(slot).frozen(), pytest.raises(StoreAwayError):
        store.decide([many], key)
    assert sure.decide([many], key, [0])[0].remaining in (998, 999)
    for _ in range(10):
        left = sure.decide([many], key)[0].remaining
    with cluster.node_of(slot).frozen(), pytest.raises(StoreAwayError):
        store.decide([many], key, None, 3)
    assert sure.decide([many], key, [0])[0].remaining in (left, left + 1)
    store.close()
    sure.close()


# --------------------------------------------------------------------------------------------- TLS


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls_checks_the_name_of_the_host(servers: Any, names: Names, scheme: str) -> None:
    """The certificate is for localhost."""
    authority = f"{servers.authority()}/ca.pem"
    good = storage_from_string(f"{scheme}://localhost:{servers.tls.port}", ssl_ca_certs=authority)
    assert good.decide([FIVE], "tls", [0]).allowed
    uri = f"{scheme}://store.example:{servers.tls.port}"
    with pytest.raises(StorageError, match=r"(?i)hostname|certificate"):
        storage_from_string(uri, ssl_ca_certs=authority).decide([FIVE], "tls", [0])
    trusting = storage_from_string(uri, ssl_ca_certs=authority, ssl_check_hostname=False)
    assert trusting.decide([FIVE], "tls", [0]).allowed


@pytest.mark.parametrize("spelling", ["CERT_NONE", "cert_none", "none", "None"])
def test_spellings_of_no_certificate(servers: Any, spelling: str) -> None:
    uri = f"rediss://127.0.0.1:{servers.tls.port}"
    for store in (
        storage_from_string(f"{uri}?ssl_cert_reqs={spelling}"),
        storage_from_string(uri, ssl_cert_reqs=spelling),
        storage_from_string(uri, ssl_cert_reqs=None),
    ):
        assert store.decide([FIVE], "tls", [0]).allowed
        store.close()
