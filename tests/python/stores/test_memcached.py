"""Memcached: what the server counts, in real time; names, trips, servers, what goes wrong."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import weir
from servers.ports import quickest
from weir import EACH, REFUND, TEST, Limit, StorageError
from weir.storage import storage_from_string
from weir.stores.memcached import MemcachedStorage
from weir.stores.memcached_servers import Servers

pytestmark = pytest.mark.slow

TIGHT = weir.parse("2 per minute")
STRATEGIES = [
    "fixed-window",
    "moving-window",
    "sliding-window-counter",
    "token-bucket",
    "leaky-bucket",
]


@pytest.fixture(params=["meta", "incr"])
def store(request: pytest.FixtureRequest, servers: Any) -> Iterator[MemcachedStorage]:
    """Once with meta commands and once with those of servers before 1.6."""
    meta = None if request.param == "meta" else False
    store = MemcachedStorage(servers.memcached.uri, meta=meta, remember_denials=0)
    servers.memcached.send(b"flush_all")
    yield store
    store.close()


def commands(server: Any) -> int:
    """How many commands the server has received, not counting this one."""
    total = 0
    for line in server.send(b"stats").split(b"\r\n"):
        words = line.split()
        if len(words) == 3 and words[1] in (b"cmd_get", b"cmd_set", b"cmd_meta"):
            total += int(words[2])
    return total


def trips(server: Any, send: Callable[[], object]) -> int:
    """How often something was sent to the server while ``send`` ran."""
    sent = []
    original = Servers.make_client

    def make_client(self: Servers, address: Any) -> Any:
        client = original(self, address)
        client.version()
        sock = client.sock

        class Counting:
            def __getattr__(self, name: str) -> Any:
                return getattr(sock, name)

            def sendall(self, data: bytes) -> None:
                sent.append(data)
                sock.sendall(data)

        client.sock = Counting()
        return client

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Servers, "make_client", make_client)
        send()
    return len(sent)


def test_the_limit_and_its_verdict(store: Any, key: str) -> None:
    item = weir.parse("5 per minute")
    start = time.time()
    for n in range(5):
        verdict = store.decide([item], [key])[0]
        assert (verdict.allowed, verdict.remaining) == (True, 4 - n)
        assert 59 <= verdict.reset_at - start <= 63
    denied = store.decide([item], [key])[0]
    assert (denied.allowed, denied.remaining) == (False, 0)
    assert 59 - (time.time() - start) <= denied.retry_after <= 62
    assert not store.decide([item], [key], None, TEST).allowed
    assert store.decide([item], [key], [0]).allowed


def test_a_denied_cost_is_taken_back(store: Any, key: str) -> None:
    item = weir.parse("10 per minute")
    assert store.decide([item], [key], [7])[0].remaining == 3
    assert store.decide([item], [key], [4])[0].remaining == 3
    assert store.decide([item], [key], [11])[0].retry_after == float("inf")
    assert store.decide([item], [key], [3])[0].remaining == 0
    assert not store.decide([item], [key]).allowed


def test_a_refund(store: Any, key: str) -> None:
    item = weir.parse("10 per minute")
    store.decide([item], [key], [7])
    assert store.decide([item], [key], [3], REFUND)[0].remaining == 6
    assert store.decide([item], [key], [100], REFUND)[0].remaining == 10
    assert store.decide([item], [f"{key}-unknown"], [100], REFUND)[0].remaining == 10
    assert store.decide([item], [key], [10]).allowed


def test_several_limits_are_all_or_nothing(store: Any, key: str) -> None:
    wide, tight = weir.parse("10 per minute"), weir.parse("1 per hour")
    moving = weir.parse("5 per day").replace(strategy="moving-window")
    group = [wide, tight, moving]
    assert store.decide(group, key).allowed
    denied = store.decide(group, key)
    assert [verdict.allowed for verdict in denied] == [True, False, True]
    assert [verdict.remaining for verdict in denied] == [9, 0, 4]
    assert [v.remaining for v in store.decide(group, key, [0] * 3, TEST)] == [9, 0, 4]
    each = store.decide(group, key, None, EACH)
    assert [verdict.remaining for verdict in each] == [8, 0, 3]


def until(moment: float) -> None:
    while time.time() < moment:
        time.sleep(max(0.0, min(0.01, moment - time.time())))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_denied_request_passes_after_retry_after(store: Any, key: str, strategy: str) -> None:
    """Not later, although Memcached has whole seconds; and not earlier."""
    item = weir.parse("2 per second").replace(strategy=strategy)
    for n in range(5):
        time.sleep(n * 0.13)  # other moments of Memcached's second
        decision = store.decide([item], key)
        for _ in range(100):
            if not decision.allowed:
                break
            decision = store.decide([item], key)
        assert not decision.allowed
        moment = decision.now + decision[0].retry_after
        early = store.decide([item], key, None, TEST)
        assert not early.allowed or early.now >= moment
        until(moment)
        late = store.decide([item], key)
        assert late.allowed, (n, decision, late)


def test_a_window_lasts_its_period(store: Any, key: str) -> None:
    """The next begins with the first request after ``reset_at``; each admits the limit."""
    item = weir.parse("3 per 2 seconds")
    reset_at = 0.0
    rounds = 0
    while rounds < 4:
        until(reset_at)
        began = time.time()
        verdicts = [store.decide([item], key)[0] for _ in range(3)]
        ended = time.time()
        denied = store.decide([item], key)[0]
        if time.time() >= began + 2:  # a busy machine: the window may have ended meanwhile
            reset_at = denied.reset_at
            continue
        rounds += 1
        assert [verdict.remaining for verdict in verdicts] == [2, 1, 0]
        reset_at = verdicts[0].reset_at
        assert began + 1.999999 <= reset_at <= ended + 2.00001
        assert not denied.allowed
        assert abs(denied.reset_at - reset_at) < 1e-5


def test_requests_that_arrive_together_open_one_window(store: Any, key: str) -> None:
    item = weir.parse("10 per second")
    store.deadline = 10.0
    reset_at = store.decide([item], key)[0].reset_at
    for _ in range(3):
        until(reset_at)
        verdicts: list[Any] = []

        def send(verdicts: list[Any] = verdicts) -> None:
            verdicts.extend(store.decide([item], key)[0] for _ in range(4))

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        windows: dict[float, int] = {}
        for verdict in verdicts:
            if verdict.allowed:
                end = round(verdict.reset_at, 3)
                windows[end] = windows.get(end, 0) + 1
        assert len(verdicts) == 32
        assert max(windows.values()) <= 10
        reset_at = max(windows)


def leave_hyphens(server: Any, name: str) -> None:
    """In free memory of the server, for items of any size up to that of the longest here."""
    values = {f"{name}-{length}": b"-" * length for length in range(8, 160, 4)}
    for key, value in values.items():
        assert server.send(b"set %b 0 0 %d\r\n%b" % (key.encode(), len(value), value))
    for key in values:
        assert server.send(b"delete " + key.encode())


def test_what_an_earlier_item_left_in_memory_does_not_matter(
    servers: Any, store: Any, key: str
) -> None:
    """``incr`` of Memcached fails if the number is above 2^63 and a hyphen follows it in memory."""
    for power in range(4, 27):  # at any time, some of these windows have a start with a high bit
        item = weir.parse(f"10 per {2**power} seconds")
        leave_hyphens(servers.memcached, key)
        decisions = [store.decide([item], key)[0] for _ in range(3)]
        assert [decision.remaining for decision in decisions] == [9, 8, 7], item
        assert store.decide([item], key, [2], REFUND)[0].remaining == 9


def test_a_set_clock_does_not_depend_on_the_servers(servers: Any, key: str) -> None:
    """The server's seconds go by while the clock of a test stands still."""
    store = MemcachedStorage(servers.memcached.uri)
    store.set_clock(1_700_000_000.0, True)
    for item in (weir.parse("1 per second"), TIGHT):
        for strategy in STRATEGIES:
            store.decide([item.replace(strategy=strategy)], key)
    dump = servers.memcached.send(b"lru_crawler metadump all").decode()
    ends = [
        int(line.split("exp=")[1].split()[0]) - time.time()
        for line in dump.splitlines()
        if key in line
    ]
    assert len(ends) == 2 * len(STRATEGIES)
    assert min(ends) > 3600
    store.close()


def test_an_undone_charge_is_not_taken_from_the_next_window(
    servers: Any, key: str, wait_for: Callable[..., Any]
) -> None:
    store = MemcachedStorage(servers.memcached.uri, remember_denials=0)
    item = weir.parse("2 per minute")
    store.decide([item], [key])
    store.decide([item], [key])
    begun = servers.memcached.seconds()
    wait_for(lambda: servers.memcached.seconds() > begun)
    undo = store.undo

    def window_ends_first(check: Any, count: Any) -> None:
        servers.memcached.send(b"delete " + check.name)
        store.decide([item], [key])  # another one opens the next
        undo(check, count)

    store.undo = window_ends_first  # type: ignore[method-assign]
    assert not store.decide([item], [key]).allowed
    store.undo = undo  # type: ignore[method-assign]
    assert store.decide([item], [key], [0])[0].remaining == 1
    store.close()


def test_a_fixed_window_is_one_trip(
    servers: Any, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weir.stores.denials.VERIFY", 3600.0)
    items = [weir.parse("10 per minute"), weir.parse("100 per hour"), weir.parse("3 per 2 months")]

    def send() -> None:
        store = MemcachedStorage(servers.memcached.uri)
        for _ in range(3):
            assert store.decide(items, key).allowed
        for _ in range(20):
            assert not store.decide(items, key).allowed  # cached from the first on
        store.close()

    # The version, three hits, the denied one; then each of its charges is taken back.
    assert trips(servers.memcached, send) == 1 + 3 + 1 + 3


def test_names_are_safe(servers: Any) -> None:
    store = MemcachedStorage(servers.memcached.uri, key_prefix="shop")
    for key in ("10.1.2.3", "a b", "a\r\nflush_all", "größe", "x" * 5000, b"\x00", ""):
        store.clear([TIGHT], key)
        assert [store.decide([TIGHT], key).allowed for _ in range(3)] == [True, True, False]
    dump = servers.memcached.send(b"lru_crawler metadump all")
    assert b"key=shop%3Afw%3A%7BLIMITER%2F10.1.2.3%7D%2F2%2F1%2Fminute" in dump
    assert dump.count(b"key=shop%3Afw%3A") >= 7
    for prefix in ("a b", "x" * 65, "é"):
        with pytest.raises(weir.ConfigurationError, match="key_prefix"):
            MemcachedStorage(key_prefix=prefix)
    store.close()


def test_every_value_has_an_end(servers: Any, key: str) -> None:
    store = MemcachedStorage(servers.memcached.uri)
    servers.memcached.send(b"flush_all")
    for strategy in STRATEGIES:
        for text in ("2 per minute", "2 per month", "2 per year"):
            store.decide([weir.parse(text).replace(strategy=strategy)], key)
    dump = servers.memcached.send(b"lru_crawler metadump all").decode()
    ends = {int(line.split("exp=")[1].split()[0]) - time.time() for line in dump.splitlines()[:-1]}
    assert len(dump.splitlines()) >= 15
    assert all(0 < end < 2 * 31_104_000 + 10 for end in ends)
    store.close()


def test_counters_are_spread_over_several_servers(servers: Any, make_memcached: Any) -> None:
    other = make_memcached().start()
    try:
        uri = f"{servers.memcached.uri},127.0.0.1:{other.port}"
        store = storage_from_string(uri)
        servers.memcached.send(b"flush_all")
        items = [
            weir.parse("2 per minute"),
            weir.parse("2 per hour").replace(strategy="token-bucket"),
        ]
        for i in range(40):
            assert store.decide(items, f"client-{i}").allowed
        for server in (servers.memcached, other):
            dump = server.send(b"lru_crawler metadump all")
            count = sum(dump.count(b"%%2Fclient-%d%%7D" % i) for i in range(40))
            assert 10 < count < 70
        for i in range(40):
            assert store.decide(items, f"client-{i}")[0].remaining == 0
        store.close()
    finally:
        other.stop()


def test_by_a_socket_file(make_memcached: Any, servers: Any) -> None:
    path = servers.directory / "memcached.sock"
    server = make_memcached("-s", str(path))

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
        return True

    server.answers = answers
    server.start()
    try:
        store = storage_from_string(f"memcached://{path}")
        assert [store.decide([TIGHT], "a").allowed for _ in range(3)] == [True, True, False]
        store.close()
    finally:
        server.stop()


def test_options_are_pymemcaches(servers: Any) -> None:
    store = storage_from_string(
        servers.memcached.uri,
        socket_timeout=1.5,
        no_delay=False,
        max_pool_size=10,
        client_getter=None,
    )
    assert store.check()
    assert store.deadline == 1.5
    store.close()


def test_threads_and_children(servers: Any) -> None:
    store = MemcachedStorage(servers.memcached.uri, remember_denials=0, socket_timeout=5)
    item = Limit(300, 1, "hour")
    store.clear([item], "shared")
    store.decide([item], "shared", [0])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            allowed = sum(store.decide([item], "shared").allowed for _ in range(100))
            os.write(writer, b"%d" % allowed)
        finally:
            os._exit(0)
    allowed = []

    def work() -> None:
        allowed.extend(store.decide([item], "shared").allowed for _ in range(40))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert sum(allowed) + int(pipe.read()) == 300
    store.close()


def test_reset_is_not_supported(servers: Any) -> None:
    store = MemcachedStorage(servers.memcached.uri)
    with pytest.raises(NotImplementedError, match="cannot delete only the counters"):
        store.reset()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_key_that_holds_something_else(servers: Any, strategy: str, key: str) -> None:
    store = MemcachedStorage(servers.memcached.uri)
    item = TIGHT.replace(strategy=strategy)
    name = f"weir:{ {'f': 'fw', 'm': 'mw', 's': 'sw', 't': 'tb', 'l': 'lb'}[strategy[0]] }:"
    name += f"{{LIMITER/{key}}}/2/1/minute" + ("/2" if strategy == "token-bucket" else "")
    servers.memcached.send(b"set %b 0 60 5\r\nhello" % name.encode())
    with pytest.raises(StorageError, match=r"non-numeric|not a counter"):
        store.decide([item], key)
    assert b"hello" in servers.memcached.send(b"get " + name.encode())
    store.close()


def test_a_long_log_is_bounded(key: str) -> None:
    """Hits of one moment join when there are many: the value fits, none is admitted twice."""
    item = Limit(300_000, 1, "day", strategy="moving-window")
    (check,) = weir._core.memcached_checks(b"weir", [item], key, None)
    # A hit every 200 ms, four bytes each, for the better part of a day.
    step, count = 0.2, 249_900
    first, last = 1_000_000.0, 1_000_000.0 + step * count
    words = [round(first * 1e9), round(last * 1e9), count + 1, 1]
    log = b"W1\x01" + b"".join(word.to_bytes(8, "little") for word in words)
    value: bytes = log + b"\x80\x84\xaf\x5f" * count
    assert len(value) == 999_635
    for hit in range(1, 301):
        verdict, value, _, _ = check.step(value, 0, last + hit * step)
        assert verdict.allowed
        assert verdict.remaining == 300_000 - count - 1 - hit
    # A record for each 16384th of the period: 5.3 s.
    assert len(value) < 999_635 + 15 * 20
    # The hits that joined count until their entry leaves, a day after the last of them.
    verdict = check.step(value, 1, last + 86_400.5)[0]
    assert verdict.remaining < 300_000 - 295
    verdict = check.step(value, 1, last + 86_400 + 300 * step + 0.001)[0]
    assert verdict.remaining == 300_000


def test_no_server_listens(free_port: Callable[[], int]) -> None:
    port = free_port()
    store = MemcachedStorage(f"memcached://127.0.0.1:{port}")
    with pytest.raises(StorageError, match=rf"memcached://127\.0\.0\.1:{port}: .*refused"):
        store.decide([TIGHT], "a")
    assert not store.check()


def test_the_deadline(servers: Any, default_deadline: None) -> None:
    store = MemcachedStorage(servers.memcached.uri)
    store.deadline = 20.0
    store.decide([TIGHT], "stopped", [0])
    store.deadline = 0.25
    with servers.memcached.frozen():
        start = time.perf_counter()
        with pytest.raises(StorageError, match=r"no answer within 0\.25 s"):
            store.decide([TIGHT], "stopped")
        assert time.perf_counter() - start > 0.2
    store.close()


def test_a_stopped_server_costs_one_deadline(servers: Any) -> None:
    store = MemcachedStorage(servers.memcached.uri, socket_timeout=1.0)
    moving = TIGHT.replace(strategy="moving-window")
    store.deadline = 20.0
    store.decide([TIGHT, moving], "stopped", [0, 0])
    store.deadline = 1.0
    with servers.memcached.frozen():
        for item in (TIGHT, moving):

            def send(item: Any = item) -> float:
                start = time.perf_counter()
                with pytest.raises(StorageError, match=r"no answer within 1 s"):
                    store.decide([item], "stopped")
                return time.perf_counter() - start

            assert 0.9 < quickest(send, 1.9) < 1.9
    store.close()


def test_a_restart(make_memcached: Any) -> None:
    server = make_memcached().start()
    store = MemcachedStorage(server.uri)
    assert store.decide([TIGHT], "a").allowed
    server.kill()
    server.start()
    assert store.decide([TIGHT], "a")[0].remaining == 1
    store.close()
    server.stop()


def test_a_wait_is_never_longer_than_the_window(servers: Any, key: str) -> None:
    store = MemcachedStorage(servers.memcached.uri, remember_denials=0)
    for period, seconds in (("hour", 3600), ("minute", 60), ("second", 1), ("day", 86400)):
        item = Limit(1, 1, period)
        while True:
            allowed, began = store.decide([item], key)[0], time.time()
            denied = store.decide([item], key)[0]
            if time.time() < began + seconds / 2:  # else the window may have ended meanwhile
                break
            store.clear([item], key)
        assert 0 < denied.retry_after <= seconds
        assert allowed.reset_at <= time.time() + seconds + 1
    store.close()
