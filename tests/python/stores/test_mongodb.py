"""MongoDB, on a server with its protocol: tests of this store only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

import weir
from weir.errors import KeyRefusedError, StorageError, is_outage
from weir.stores.mongodb import MongoDBStorage

pymongo = pytest.importorskip("pymongo")
MANY = weir.parse("1000000/day")


@pytest.fixture
def store(servers: Any) -> Iterator[MongoDBStorage]:
    store = MongoDBStorage(servers.mongodb.uri, socket_timeout=20.0, remember_denials=0)
    yield store
    store.close()


def test_what_was_charged_is_given_back_when_another_limit_has_changed(
    store: MongoDBStorage, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process charges the second counter after the first was charged, and builds on it."""
    first, second = weir.parse("10/day"), weir.parse("20/day")
    other = MongoDBStorage(store.uri or "", socket_timeout=20.0)
    store.decide([first, second], key)
    swap, calls = store._swap, []

    def overtaken(states: Any, name: str, *rest: Any) -> None:
        calls.append(name)
        if len(calls) == 2:
            other.decide([first, second], key)
        swap(states, name, *rest)

    monkeypatch.setattr(store, "_swap", overtaken)
    assert store.decide([first, second], key).allowed
    peeked = store.decide([first, second], key, [0, 0], weir.TEST)
    assert [verdict.remaining for verdict in peeked] == [7, 17]
    other.close()


def test_time_is_the_servers(store: MongoDBStorage, key: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 1.0)
        decision = store.decide([MANY], key)
    assert abs(decision.now - time.time()) < 60


def test_what_has_expired_is_removed_by_those_who_write(store: MongoDBStorage, key: str) -> None:
    store.decide([MANY], key)
    store._sweeps = True  # as on a server that has no TTL indexes
    old = datetime(2001, 1, 1, tzinfo=timezone.utc)
    states = store._collection()
    states.delete_many({})  # the expired documents of other tests
    states.insert_many({"_id": f"old-{n}", "value": b"x", "expires_at": old} for n in range(10))
    for n in range(5):
        store.decide([MANY], f"{key}-{n}")
    assert states.count_documents({"expires_at": old}) == 0


def test_a_server_that_is_away_is_an_error_without_a_password() -> None:
    store = MongoDBStorage("mongodb://app:secret@127.0.0.1:1/limits", socket_timeout=0.3)
    with pytest.raises(StorageError, match=r"^mongodb://127\.0\.0\.1:1/limits: ") as raised:
        store.decide([MANY], "a")
    assert "secret" not in str(raised.value)
    assert not store.check()
    store.close()


def test_a_silent_server_takes_no_longer_than_the_deadline(
    servers: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = type(servers.mongodb)(tmp_path_factory.mktemp("silent")).start()
    store = MongoDBStorage(server.uri, socket_timeout=1.0)
    store.decide([MANY], "a")
    with server.frozen():
        start = time.monotonic()
        with pytest.raises(StorageError):
            store.decide([MANY], "a")
        assert time.monotonic() - start < 10
    store.close()
    server.stop()


@pytest.mark.parametrize("value", ["text", 7, None, ["x"], 2**40])
def test_a_document_that_is_no_counter_refuses_its_key(
    store: MongoDBStorage, key: str, value: Any
) -> None:
    store.decide([MANY], f"other {key}")
    (name,) = store.make_request([MANY], key, None, weir.HIT).names
    store._states.insert_one({"_id": name, "value": value})
    with pytest.raises(KeyRefusedError, match="holds something that is not a counter"):
        store.decide([MANY], key)
    assert store.decide([MANY], f"other {key}").allowed
    store._states.delete_one({"_id": name})


@pytest.mark.parametrize(("code", "outage"), [(112, False), (10334, False), (13435, True)])
def test_an_error_of_one_document_is_no_outage(
    store: MongoDBStorage, key: str, monkeypatch: pytest.MonkeyPatch, code: int, outage: bool
) -> None:
    """WriteConflict, BSONObjectTooLarge, NotPrimaryNoSecondaryOk."""
    store.decide([MANY], key)

    class States:
        def __getattr__(self, name: str) -> Any:
            return getattr(states, name)

        def update_one(self, *_: Any) -> Any:
            raise pymongo.errors.OperationFailure("made by a test", code)

    states = store._states
    with monkeypatch.context() as patch:
        patch.setattr(store, "_states", States())
        with pytest.raises(StorageError) as raised:
            store.decide([MANY], key)
        assert is_outage(raised.value) is outage
    assert store.decide([MANY], key).allowed
