"""Redis: what goes wrong."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import redis

import weir
from models import ZONELESS
from servers.ports import PATIENCE
from weir import TEST, StorageError
from weir.storage import storage_from_string
from weir.stores.redis import RedisStorage

THREE = [weir.parse("1000/minute"), weir.parse("10000/hour"), weir.parse("100000/day")]
TIGHT = weir.parse("2 per minute")


@pytest.fixture
def store(redis_store: RedisStorage) -> RedisStorage:
    return redis_store


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkey", None)
    with pytest.raises(weir.ConfigurationError, match="pip install valkey"):
        storage_from_string("valkey://localhost")


def test_no_server_listens(free_port: Callable[[], int]) -> None:
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
def test_no_server_of_a_topology_answers(free_port: Callable[[], int], scheme: str) -> None:
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


@pytest.mark.parametrize("strategy", ZONELESS)
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
    """If another script runs too long, the server reports that; decisions succeed afterwards."""
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
        endless.join(PATIENCE)
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
        serving.join(PATIENCE)
