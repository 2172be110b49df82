"""Redis: names, trips, connections, what is remembered, and what goes wrong."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import redis
from flask import Flask

import weir
from weir import EACH, REFUND, TEST, Limit, StorageError
from weir.flask import Limiter
from weir.flask.util import get_remote_address
from weir.storage import storage_from_string
from weir.stores.redis import RedisStorage

THREE = [weir.parse("1000/minute"), weir.parse("10000/hour"), weir.parse("100000/day")]
TIGHT = weir.parse("2 per minute")
STRATEGIES = [
    "fixed-window",
    "moving-window",
    "sliding-window-counter",
    "token-bucket",
    "leaky-bucket",
]


@pytest.fixture
def store(servers: Any) -> Iterator[RedisStorage]:
    store = RedisStorage(servers.redis.uri)
    yield store
    store.close()


@pytest.fixture
def client(servers: Any) -> Iterator[Any]:
    with servers.redis.client() as client:
        yield client


# ------------------------------------------------------------------------------------------- names


def test_names_are_readable_and_carry_the_strategy(store: Any, client: Any) -> None:
    limits = [
        weir.parse("10 per minute").replace(strategy=strategy, max_delay=0.5)
        if strategy == "leaky-bucket"
        else weir.parse("10 per minute").replace(strategy=strategy)
        for strategy in STRATEGIES
    ]
    store.decide(limits, weir.join_key("10.1.2.3", "api.view"))
    assert sorted(client.keys()) == [
        b"weir:fw:{LIMITER/10.1.2.3}/api.view/10/1/minute",
        b"weir:lb:{LIMITER/10.1.2.3}/api.view/10/1/minute",
        b"weir:mw:{LIMITER/10.1.2.3}/api.view/10/1/minute",
        b"weir:sw:{LIMITER/10.1.2.3}/api.view/10/1/minute",
        b"weir:tb:{LIMITER/10.1.2.3}/api.view/10/1/minute/10",
    ]


def test_a_prefix_keeps_applications_apart(servers: Any, store: Any, client: Any) -> None:
    other = RedisStorage(servers.redis.uri, key_prefix="shop-1*")
    for each in (store, other):
        assert [each.decide([TIGHT], "a").allowed for _ in range(3)] == [True, True, False]
    assert set(client.keys()) == {
        b"weir:fw:{LIMITER/a}/2/1/minute",
        b"shop-1*:fw:{LIMITER/a}/2/1/minute",
    }
    client.set("weir", "mine", ex=60)
    client.set("shop-12:fw:{x", "not of that prefix", ex=60)
    assert other.reset() == 1
    assert store.reset() == 1
    assert sorted(client.keys()) == [b"shop-12:fw:{x", b"weir"]
    other.close()
    with pytest.raises(weir.ConfigurationError, match="key_prefix"):
        RedisStorage(servers.redis.uri, key_prefix="{a}")


def test_reset_counts_what_it_deletes(store: Any) -> None:
    for i in range(1234):
        store.decide([TIGHT], f"client-{i}")
    assert store.reset() == 1234
    assert store.reset() == 0


def test_a_changed_strategy_is_no_wrong_type(store: Any) -> None:
    for strategy in STRATEGIES:
        assert store.decide([TIGHT.replace(strategy=strategy)], "a").allowed


# ------------------------------------------------------------------------------------------- trips


def test_a_check_is_one_trip_whatever_it_asks(servers: Any, store: Any) -> None:
    store.decide(THREE, "a")
    before = servers.redis.commands()
    for mode in (0, TEST, EACH, REFUND):
        store.decide(THREE, "a", None, mode)
        store.decide(THREE[:1], "a", None, mode)
    assert servers.redis.commands() == before + 8


@pytest.mark.parametrize("key_func", [get_remote_address, lambda: "somebody"])
def test_trips_of_a_request(servers: Any, key_func: Callable[[], str]) -> None:
    """What is only looked at goes with what is charged."""
    app = Flask(__name__)
    limiter = Limiter(key_func, app=app, storage_uri=servers.redis.uri, meta_limits=["5 per hour"])

    @app.get("/")
    @limiter.limit("100 per minute; 1000 per hour")
    @limiter.limit("3 per minute", deduct_when=lambda response: response.status_code == 200)
    def view() -> str:
        return "done"

    client = app.test_client()
    assert client.get("/").status_code == 200
    before = servers.redis.commands()
    assert client.get("/").status_code == 200
    # The meta limits before the view; its own; and once more when the response is known.
    assert servers.redis.commands() == before + 3
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]
    with servers.redis.client() as server:
        (name,) = server.keys("*/100/1/minute")
        assert struct.unpack("<dd", server.get(name))[1] == 3  # the refusal has charged nothing


def test_a_forgotten_script_is_sent_once(servers: Any, store: Any, client: Any) -> None:
    store.decide(THREE, "a")
    client.script_flush()
    before = servers.redis.commands()
    assert store.decide(THREE, "a").allowed
    assert servers.redis.commands() == before + 2
    assert store.decide(THREE, "a")[0].remaining == 997
    assert servers.redis.commands() == before + 3


def test_a_denial_is_remembered(servers: Any, store: Any) -> None:
    start = time.monotonic()
    assert [store.decide([TIGHT], "a").allowed for _ in range(3)] == [True, True, False]
    before = servers.redis.commands()
    first = store.decide([TIGHT], "a")
    time.sleep(0.01)
    later = store.decide([TIGHT], "a")
    assert servers.redis.commands() == before
    least = 60 - (time.monotonic() - start) - 0.001
    assert least < later[0].retry_after < first[0].retry_after <= 60
    assert later[0].reset_at == first[0].reset_at
    assert later.now > first.now
    # Anything else is asked.
    assert store.decide([TIGHT], "b").allowed
    assert store.decide([TIGHT], "a", [0]).allowed
    assert not store.decide([TIGHT], "a", None, EACH).allowed
    assert servers.redis.commands() == before + 3


@pytest.mark.parametrize("forget", ["clear", "refund", "reset"])
def test_what_frees_a_counter_here_forgets_the_denial(store: Any, forget: str) -> None:
    other = weir.parse("100/hour")
    assert [store.decide([TIGHT, other], "a").allowed for _ in range(3)] == [True, True, False]
    if forget == "clear":
        store.clear([TIGHT], "a")
    elif forget == "refund":
        store.decide([TIGHT], "a", None, REFUND)
    else:
        store.reset()
    assert store.decide([TIGHT, other], "a").allowed


def test_a_denial_is_told_until_it_could_pass(store: Any) -> None:
    second = weir.parse("1 per second")
    assert store.decide([second], "a").allowed
    sooner = time.monotonic()
    denied = store.decide([second], "a")[0]
    later = time.monotonic()
    told, ask = denied, 0.0
    while not told.allowed:  # asked before, and it ends by then
        assert ask < later + denied.retry_after + 0.001
        time.sleep(0.02)
        ask = time.monotonic()
        told = store.decide([second], "a")[0]
    assert time.monotonic() > sooner + denied.retry_after - 0.001


def test_how_many_and_how_long_is_bounded(servers: Any) -> None:
    store = RedisStorage(servers.redis.uri, remember_denials=0.05)  # seconds
    store._denials.capacity = 10
    for i in range(30):
        for _ in range(3):
            store.decide([TIGHT], f"client-{i}")
    assert len(store._denials.entries) == 10
    assert len(store._denials._requests) == len(store._denials._names) == 10
    time.sleep(0.06)
    before = servers.redis.commands()
    assert not store.decide([TIGHT], "client-29").allowed
    assert servers.redis.commands() == before + 1
    store.close()
    never = RedisStorage(servers.redis.uri, remember_denials=0)
    before = servers.redis.commands()
    for _ in range(5):
        assert not never.decide([TIGHT], "client-29").allowed
    assert servers.redis.commands() == before + 5
    never.close()


def test_long_keys_take_no_more_memory(store: Any) -> None:
    """Clients choose how long their keys are."""
    for i in range(20):
        key = f"{i}" + "x" * 100_000
        assert [store.decide([TIGHT], key).allowed for _ in range(3)] == [True, True, False]
    denials = store._denials
    names = [*denials.entries, *denials._requests, *itertools.chain(*denials._names.values())]
    assert len(denials.entries) == 20
    assert all(len(name) <= 64 for name in names)
    # They are found all the same.
    key = "0" + "x" * 100_000
    store._denials.seconds = 0.0
    store.clear([TIGHT], key)
    assert store.decide([TIGHT], key).allowed


# ------------------------------------------------------------------------------------- connections


def test_a_pool_of_ones_own(servers: Any) -> None:
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
def test_a_pool_of_ones_own_is_shared(servers: Any, options: dict[str, Any]) -> None:
    """Others, and other threads, get their turn: each check borrows a connection."""
    pool = redis.BlockingConnectionPool(
        port=servers.redis.port, max_connections=1, timeout=20, **options
    )
    with redis.Redis(connection_pool=pool, socket_timeout=5) as other:
        store = storage_from_string("redis://", connection_pool=pool)
        errors: list[Exception] = []

        def work() -> None:
            try:
                for i in range(20):
                    assert store.decide(THREE, f"client-{i}").allowed
                    other.ping()
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert store.check()
        assert store.reset() == 60
        other.ping()
        store.close()
    pool.disconnect()


def test_a_connection_that_broke_is_no_longer_counted(servers: Any, client: Any) -> None:
    """Else a pool would be exhausted by the restarts and the timeouts of a long life."""
    store = storage_from_string(servers.redis.uri, max_connections=2, socket_timeout=0.5)
    for _ in range(6):
        assert store.decide(THREE, "a").allowed
        client.client_kill_filter(_type="normal", skipme=True)
    with servers.redis.frozen(), pytest.raises(StorageError, match="no answer"):
        store.decide(THREE, "a")
    assert store.reset() == 3
    store.close()


def test_as_many_connections_as_callers(servers: Any, store: Any) -> None:
    """redis-py's own pool ends at 100."""
    together = threading.Barrier(120)
    errors: list[Exception] = []

    def work() -> None:
        try:
            connection = store._server._connect(None)
            together.wait(30)
            store._server._keep(connection)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(120)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
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
    allowed, errors = [], []

    def work() -> None:
        try:
            for _ in range(100):
                allowed.append(store.decide([item, *THREE], "threads").allowed)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sum(allowed) == 1000
    assert len(allowed) == 1600
    assert len(store._server._idle) <= 16


def test_a_child_makes_connections_of_its_own(servers: Any, store: Any) -> None:
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
assert len(turns) > 20, "nobody else had a turn"
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

    before = signal.signal(signal.SIGALRM, end)
    try:
        with servers.redis.frozen():
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(SystemExit):
                store.decide(THREE, "a")
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


# ---------------------------------------------------------------------------------- what goes wrong


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkey", None)
    with pytest.raises(weir.ConfigurationError, match="pip install valkey"):
        storage_from_string("valkey://localhost")


def test_nobody_listens(free_port: Callable[[], int]) -> None:
    port = free_port()
    store = RedisStorage(f"redis://:secret@127.0.0.1:{port}/0?password=secret")
    with pytest.raises(StorageError, match=rf"redis://127\.0\.0\.1:{port}/0: .*refused") as caught:
        store.decide(THREE, "a")
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.storage_error, redis.ConnectionError)
    assert not store.check()


def test_a_wrong_password(servers: Any) -> None:
    with servers.redis.client() as client:
        client.config_set("requirepass", "right")
        try:
            wrong = RedisStorage(f"redis://:wrong@127.0.0.1:{servers.redis.port}")
            with pytest.raises(StorageError, match="invalid username-password pair") as caught:
                wrong.decide(THREE, "a")
            assert "redis://127.0.0.1" in str(caught.value)
            assert "wrong@" not in str(caught.value)
            none = RedisStorage(servers.redis.uri)
            with pytest.raises(StorageError, match=r"Authentication required|already"):
                none.decide(THREE, "a")
            right = RedisStorage(servers.redis.uri, password="right")
            assert right.decide(THREE, "a").allowed
            right.close()
        finally:
            client.config_set("requirepass", "")


@pytest.mark.parametrize("scheme", ["redis+cluster", "valkey+cluster", "redis+sentinel"])
def test_nobody_answers_for_a_whole_topology(free_port: Callable[[], int], scheme: str) -> None:
    if scheme.startswith("valkey"):
        pytest.importorskip("valkey", reason="valkey-py is not installed")
    places = ",".join(f"127.0.0.1:{free_port()}" for _ in range(3))
    path = "/shop" if "sentinel" in scheme else ""
    store = storage_from_string(f"{scheme}://user:secret@{places}{path}")
    with pytest.raises(StorageError, match=f"{re.escape(scheme)}://127") as caught:
        store.decide(THREE, "a")
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert not store.check()
    with pytest.raises(StorageError):
        store.reset()


def test_a_cluster_that_is_none(servers: Any) -> None:
    with pytest.raises(StorageError, match="cluster support disabled"):
        storage_from_string(f"redis+cluster://127.0.0.1:{servers.redis.port}").decide(THREE, "a")


def test_a_wrong_database(servers: Any) -> None:
    store = RedisStorage(f"{servers.redis.uri}/99")
    with pytest.raises(StorageError, match="DB index is out of range"):
        store.decide(THREE, "a")


def test_wrong_tls(servers: Any, default_deadline: None) -> None:
    unknown = RedisStorage(servers.tls.uri, socket_timeout=20)
    with pytest.raises(StorageError, match="certificate verify failed"):
        unknown.decide(THREE, "a")
    with pytest.raises(StorageError, match=r"rediss://"):
        RedisStorage(f"rediss://127.0.0.1:{servers.redis.port}").decide(THREE, "a")
    with pytest.raises(StorageError):
        RedisStorage(f"redis://127.0.0.1:{servers.tls.port}").decide(THREE, "a")


@pytest.mark.parametrize(
    "uri",
    [
        "redis://127.0.0.1:port",
        "redis://127.0.0.1:99999",
        "redis://127.0.0.1/shop",
        "redis://127.0.0.1/0?socket_timeout=soon",
        "redis://127.0.0.1/0?socket_timeout=0",
        "redis+sentinel://127.0.0.1:26379",
        "redis+sentinel://",
        "redis+cluster://",
        "memcached://",
        "memcached://127.0.0.1:port",
        # Parts of a password that would be taken for something else.
        *(
            f"{scheme}://user:se{mark}cret@127.0.0.1:6379/{path}"
            for scheme, path in (("redis", 0), ("redis+cluster", ""), ("redis+sentinel", "shop"))
            for mark in "/?#"
        ),
    ],
)
def test_a_uri_that_cannot_be_read(uri: str) -> None:
    with pytest.raises(weir.ConfigurationError) as caught:
        storage_from_string(uri)
    assert "cret" not in str(caught.value)
    assert ":se" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"ssl": True}, {"port_": 1}, {"socket_timeout": -1}, {"socket_timeout": "1"}]
)
def test_options_that_are_none_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(weir.ConfigurationError, match="127"):
        RedisStorage("redis://127.0.0.1", **options)


def test_a_password_of_special_characters(servers: Any) -> None:
    password = "p@ss:w/o?r#d% é"
    with servers.redis.client() as client:
        client.config_set("requirepass", password)
        try:
            place = f"127.0.0.1:{servers.redis.port}/0"
            store = RedisStorage(f"redis://:{quote(password, safe='')}@{place}")
            assert store.name == f"redis://{place}"
            assert store.decide(THREE, "a").allowed
            store.close()
        finally:
            client.auth(password)
            client.config_set("requirepass", "")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("how", ["list", "hash", "text", "counter"])
def test_a_key_that_holds_something_else(store: Any, client: Any, strategy: str, how: str) -> None:
    """It is named, it is left alone, and nothing is charged."""
    item = TIGHT.replace(strategy=strategy)
    fine = weir.parse("5 per hour")
    store.decide([item], "a")
    (name,) = client.keys()
    client.delete(name)
    if how == "list":
        client.rpush(name, 1, 2)
    elif how == "hash":
        client.hset(name, "a", "b")
    elif how == "text":
        client.set(name, "1" * 200 if strategy == "fixed-window" else "1")
    else:
        client.set(name, 7)
    client.expire(name, 60)
    before = client.dump(name)
    with pytest.raises(StorageError, match=r"WRONGTYPE|is not a counter"):
        store.decide([fine, item], "a")
    assert client.dump(name) == before
    assert store.decide([fine], "a", [0], TEST)[0].remaining == 5


def test_a_full_server(servers: Any, store: Any, client: Any) -> None:
    fine = weir.parse("5 per hour")
    assert store.decide([fine], "a").allowed
    client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(StorageError, match="OOM"):
            store.decide([fine, TIGHT], "a")
    finally:
        client.config_set("maxmemory", "0")
    assert store.decide([fine], "a", [0], TEST)[0].remaining == 4


def test_a_script_that_is_killed(
    servers: Any, store: Any, client: Any, wait_for: Callable[..., Any]
) -> None:
    """While another's script runs too long, the server says so; once it is killed, all is well."""
    assert store.decide([TIGHT], "a").allowed
    client.config_set("busy-reply-threshold", "20")

    def loop() -> None:
        with servers.redis.client() as looping, pytest.raises(redis.ResponseError, match="kill"):
            looping.eval("while true do end", 0)

    def busy() -> bool:
        try:
            client.ping()
        except redis.ResponseError as error:
            return "busy" in str(error)
        return False

    endless = threading.Thread(target=loop)
    endless.start()
    try:
        wait_for(busy)
        with pytest.raises(StorageError, match="busy running a script"):
            store.decide([TIGHT], "a")
    finally:
        client.script_kill()
        endless.join(10)
        client.config_set("busy-reply-threshold", "5000")
    assert store.decide([TIGHT], "a").allowed


def test_a_server_that_answers_nonsense() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        store = RedisStorage(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(StorageError):
            store.decide(THREE, "a")
        with pytest.raises(StorageError):
            store.decide(THREE, "a")
        serving.join(5)


# ---------------------------------------------------------------------------- large moving windows


def test_a_large_window_neither_grows_nor_stalls(store: Any, client: Any) -> None:
    """Memory follows the hits, and a hit on a full window costs as much as on an empty one."""
    item = Limit(70_000, 1, "day", strategy="moving-window")
    start = 1_700_000_000.0
    for i in range(70_000):
        store.set_clock(start + i * 1.2, True)
        assert store.decide([item], "a").allowed
    (name,) = client.keys()
    assert client.memory_usage(name) < 70_000 * 10.5
    store.set_clock(start + 70_000 * 1.2, True)
    assert not store.decide([item], "a").allowed
    client.config_resetstat()
    for i in range(2_000):
        store.set_clock(start + 86_400 + i * 1.2, True)
        assert store.decide([item], "a").allowed
        assert not store.decide([item], "a").allowed
    # By the median: the server, too, is at times held up by others.
    told = client.execute_command("LATENCY HISTOGRAM evalsha")[b"evalsha"]
    counts = told[b"histogram_usec"].items()  # of calls that took so long or less
    median = min(usec for usec, count in counts if count >= told[b"calls"] / 2)
    assert median < 200
    assert client.memory_usage(name) < 70_000 * 10.5
    # After a pause only what is left is kept.
    store.set_clock(start + 86_400 * 1.999, True)
    assert store.decide([item], "a").allowed
    assert client.memory_usage(name) < 50_000
