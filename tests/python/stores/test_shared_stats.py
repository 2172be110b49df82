"""Statistics and rules that hosts share through Redis."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from weir import Rule, StorageError, Table, parse
from weir.errors import ConfigurationError, ParseError
from weir.storage import storage_from_string
from weir.stores.instrumented import InstrumentedStorage
from weir.stores.shared_stats import (
    HOST_TTL,
    RULES_MAX,
    SharedRule,
    SharedStats,
    apply_rules,
    snapshot,
)
from weir.stores.sync import HostSync

MINUTE = parse("10/minute")


class Host:
    """A host with its statistics table. Its thread does nothing by itself."""

    def __init__(self, uri: str, name: str) -> None:
        self.storage = storage_from_string(uri)
        self.table = Table()
        self.store = InstrumentedStorage(self.storage, self.table)
        assert self.store.sync is not None
        self.host_sync = self.store.sync
        self.host_sync.wake = lambda: None  # type: ignore[method-assign]
        type(self.host_sync).host = property(lambda sync: getattr(sync, "_host", "?"))  # type: ignore[method-assign,assignment]
        self.host_sync._host = name  # type: ignore[attr-defined]

    def hit(self, client: str, times: int = 1) -> bool:
        for _ in range(times):
            decision = self.store.decide([MINUTE], f"{client}/{time.monotonic_ns()}")
        return decision.allowed

    def sync(self) -> None:
        self.host_sync.once(force=True)


@pytest.fixture(params=["redis", "cluster"])
def uri(request: pytest.FixtureRequest, servers: Any) -> str:
    return str(getattr(servers, request.param).uri)


@pytest.fixture
def hosts(uri: str) -> Iterator[tuple[Host, Host]]:
    host = HostSync.host
    yield Host(uri, "one"), Host(uri, "two")
    HostSync.host = host  # type: ignore[method-assign]
    shared = SharedStats(storage_from_string(uri))
    for rule in shared.rules():
        shared.remove_rule(rule.client)
    shared._do("DEL", shared._hosts_key)
    for name in ("one", "two"):
        shared._do("DEL", shared._host_key + name)
    shared._do("DEL", shared._version_key)


Two = tuple[Host, Host]


def test_every_host_sees_all_hosts(hosts: Two) -> None:
    one, two = hosts
    one.hit("10.0.0.1", 3)
    two.store.decide([MINUTE], "10.0.0.2/x", [11])
    one.sync()
    two.sync()
    seen = {host["host"]: host for host in one.host_sync.shared.read()}
    assert set(seen) == {"one", "two"}
    assert seen["one"]["counts"] == [["10 per 1 minute", 3, 0, 0, 0]]
    assert seen["two"]["counts"] == [["10 per 1 minute", 0, 1, 0, 0]]
    (top,) = seen["two"]["top_clients"]["denied"]
    assert top[0] == "10.0.0.2"
    assert seen["one"]["time"] == pytest.approx(time.time(), abs=30)
    assert seen["one"]["info"]["keys_max"] > 0


def test_secrets_are_not_published(hosts: Two) -> None:
    one, _ = hosts
    one.hit("k-secret", 3)
    one.sync()
    assert "k-secret" not in json.dumps(one.host_sync.shared.read())


def test_every_name_has_a_time_to_live_but_rules_for_good(hosts: Two) -> None:
    one, _ = hosts
    shared = one.host_sync.shared
    one.hit("10.0.0.1")
    one.sync()

    def ttl(name: str) -> int:
        return int(shared._do("TTL", name))

    assert 0 < ttl(shared._host_key + "one") <= HOST_TTL
    assert 0 < ttl(shared._hosts_key) <= HOST_TTL
    shared.set_rule("10.0.0.9", "block", time.time() + 100)
    assert 100 <= ttl(shared._rules_key) <= 101 + HOST_TTL
    assert 100 <= ttl(shared._version_key) <= 101 + HOST_TTL
    shared.set_rule("10.0.0.8", "allow")
    assert ttl(shared._rules_key) == ttl(shared._version_key) == -1
    shared.remove_rule("10.0.0.8")
    assert ttl(shared._rules_key) > 0
    shared.remove_rule("10.0.0.9")
    assert ttl(shared._rules_key) == -2
    assert ttl(shared._version_key) > 0


def test_a_rule_that_one_host_sets_holds_on_all(hosts: Two) -> None:
    one, two = hosts
    assert two.hit("192.0.2.7")
    one.store.block("192.0.2.0/24", time.time() + 60)
    assert not one.hit("192.0.2.7"), "where it is set it holds at once"
    two.sync()
    assert not two.hit("192.0.2.7")
    two.store.allow("192.0.2.7")
    assert two.hit("192.0.2.7")
    one.sync()
    assert one.hit("192.0.2.7")
    assert not one.hit("192.0.2.8")
    assert [rule[:2] for rule in one.host_sync.shared.rules()] == [
        ("192.0.2.0/24", "block"),
        ("192.0.2.7", "allow"),
    ]
    assert two.store.unlist("192.0.2.0/24")
    assert not two.store.unlist("192.0.2.0/24")
    one.sync()
    assert one.hit("192.0.2.8")


def test_rules_that_have_ended_are_cleaned(hosts: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = hosts
    shared = one.host_sync.shared
    now = time.time()
    shared.set_rule("10.0.0.1", "block", now + 10)
    shared.set_rule("10.0.0.2", "block")
    monkeypatch.setattr(time, "time", lambda: now + 11)
    assert [rule.client for rule in shared.rules()] == ["10.0.0.2"]
    one.host_sync._cleaned -= 61
    one.sync()
    assert shared._do("HLEN", shared._rules_key) == 1


def test_a_rule_stays_while_the_server_is_away(hosts: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = hosts
    one.store.block("10.0.0.1")

    def away(*command: Any) -> None:
        raise StorageError("away")

    with monkeypatch.context() as patch:
        patch.setattr(one.host_sync.shared, "_do", away)
        with pytest.raises(StorageError):
            one.store.unlist("10.0.0.1")
    assert [rule.client for rule in one.table.rules()] == ["10.0.0.1"]
    assert one.store.unlist("10.0.0.1")
    assert one.table.rules() == []


def test_a_full_list_takes_what_needs_no_room(hosts: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = hosts[0].host_sync.shared
    monkeypatch.setattr("weir.stores.shared_stats.RULES_MAX", 3)
    now = time.time()
    for i in range(3):
        shared.set_rule(f"10.0.0.{i}", "block", now + 1000 if i == 0 else None)
    with pytest.raises(ValueError, match="room for 3 rules"):
        shared.set_rule("10.0.0.9", "block")
    # Another rule replaces the existing one.
    shared.set_rule("10.0.0.2", "allow", now + 60)
    assert [rule.kind for rule in shared.rules()] == ["block", "block", "allow"]
    # An expired one has no effect.
    monkeypatch.setattr("time.time", lambda: now + 61)
    shared.set_rule("10.0.0.9", "block")
    assert [rule.client for rule in shared.rules()] == ["10.0.0.0", "10.0.0.1", "10.0.0.9"]


def test_what_is_no_rule_is_refused(hosts: Two) -> None:
    shared = hosts[0].host_sync.shared
    with pytest.raises(ParseError):
        shared.set_rule("10.1.2.3/8", "block")
    with pytest.raises(ValueError, match="block, allow"):
        shared.set_rule("10.0.0.1", "delay")
    with pytest.raises(ValueError, match="in the future"):
        shared.set_rule("10.0.0.1", "block", time.time() - 1)
    assert shared.rules() == []


def test_garbage_of_others_is_passed_over(hosts: Two) -> None:
    shared = hosts[0].host_sync.shared
    shared.set_rule("10.0.0.1", "block")
    for text in ("", "[]", "{}", '{"kind": "delay", "since": 1, "until": null}', "x"):
        shared._do("HSET", shared._rules_key, f"bad{len(text)}", text)
    shared._do("SET", shared._host_key + "one", "no JSON", "EX", 5)
    shared._do("ZADD", shared._hosts_key, time.time(), "one")
    assert [rule.client for rule in shared.rules()] == ["10.0.0.1"]
    assert shared.read() == []


def test_one_host_in_a_second_is_enough(servers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers of a host share the table; the first of them does the work."""
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    storage = storage_from_string(servers.redis.uri)
    stats = Table()
    done: list[str] = []
    for name in ("worker 1", "worker 2", "worker 3"):
        sync = HostSync(stats, SharedStats(storage), "redis")
        sync._sync = lambda name=name: done.append(name)  # type: ignore[method-assign,misc]
        sync.once()
    assert done == ["worker 1"]
    shared = SharedStats(storage)
    shared._do("DEL", shared._hosts_key, shared._host_key + sync.host)


def test_sync_with_a_stopped_server_warns_once(
    make_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis().start()
    host = InstrumentedStorage(storage_from_string(server.uri), Table())
    assert host.sync is not None
    server.stop()
    with caplog.at_level(logging.WARNING, logger="weir"):
        host.sync.once(force=True)
        host.sync.once(force=True)
    assert len([r for r in caplog.records if "cannot share statistics" in r.getMessage()]) == 1
    with pytest.raises(StorageError):
        host.block("10.0.0.1")
    assert host.stats_table.rules() == [], "all hosts or none"


def test_the_thread_syncs_by_itself_and_again_in_a_child(make_redis: Any, wait_for: Any) -> None:
    server = make_redis().start()
    uri = server.uri
    store = InstrumentedStorage(storage_from_string(uri), Table())
    store.decide([MINUTE], "10.0.0.1")
    shared = SharedStats(storage_from_string(uri))
    wait_for(lambda: len(shared.read()) == 1)
    shared.set_rule("10.0.0.9", "block")
    wait_for(lambda: store.stats_table.rule_of("10.0.0.9"))
    pid = os.fork()
    if pid == 0:
        try:
            names = [t.name for t in threading.enumerate()]
            store.decide([MINUTE], "10.0.0.1")
            wait_for(lambda: "weir.sync" in [t.name for t in threading.enumerate()])
            os._exit(0 if "weir.sync" not in names else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    server.stop()


def test_other_stores_keep_rules_to_themselves(servers: Any) -> None:
    storage = storage_from_string(servers.memcached.uri)
    with pytest.raises(ConfigurationError, match="Redis"):
        SharedStats(storage)
    store = InstrumentedStorage(storage, Table())
    assert store.sync is None
    store.block("10.0.0.1")
    assert store.decide([MINUTE], "10.0.0.1").rule == "block"


def test_a_snapshot_is_json() -> None:
    table = Table()
    table.register(MINUTE, "", "/view")
    table.decide([MINUTE], "10.0.0.1/view")
    stats = json.loads(json.dumps(snapshot(table)))
    row = ["10 per 1 minute", "fixed-window", "", "/view", None, "LIMITER"]
    assert stats["registry"] == [row]
    assert stats["top_clients"]["allowed"][0][:3] == ["10.0.0.1", "10 per 1 minute", 1]
    assert SharedRule("10.0.0.1", "block", 1.0, None).until is None
    assert SharedRule is Rule


# ------------------------------------------------------------------ what others have put into Redis

#: Values of rules that no version of ours has written.
UNREADABLE = [
    "",
    "not JSON",
    "[" * 100_000,
    "null",
    "[]",
    '{"kind": "block"}',
    '{"kind": "ban", "since": 0, "until": null}',
    '{"kind": "block", "since": 0, "until": "soon"}',
    '{"kind": "block", "since": 0, "until": Infinity}',
    '{"kind": "block", "since": ' + "9" * 400 + ', "until": null}',
    '{"kind": "block", "since": 0, "until": ' + "9" * 400 + "}",
    b"\xff\xfe",
]


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_an_unreadable_rule_does_not_stop_the_others(servers: Any, scheme: str) -> None:
    server = getattr(servers, scheme)
    shared = SharedStats(storage_from_string(server.uri))
    shared.set_rules([("192.0.2.1", "block", None), ("192.0.2.2", "allow", None)])
    good = json.dumps({"kind": "block", "since": 0, "until": None})
    with server.client() as client:
        for i, text in enumerate(UNREADABLE):
            client.hset("weir:rules", f"192.0.2.{i + 10}", text)
        for name in ("10.0.0.0/33", "10.0.0/8", "x" * 5000, "", b"\xff\xfe/99", "fe80::1%/999"):
            client.hset("weir:rules", name, good)
        client.hset("weir:rules", "not-a-number", '{"kind": "block", "since": 0, "until": NaN}')
        table = Table("memory://?keys=100&rules=1000")
        apply_rules(table, shared.rules())
        assert table.rule_of("192.0.2.1").kind == "block"
        assert table.rule_of("192.0.2.2").kind == "allow"
        assert table.rule_of("192.0.2.10") is None
        client.delete("weir:rules", "weir:rules:version")


def test_more_rules_than_there_is_room_for_are_cut(servers: Any) -> None:
    shared = SharedStats(storage_from_string(servers.redis.uri))
    text = json.dumps({"kind": "block", "since": 0, "until": None})
    with servers.redis.client() as client:
        client.hset("weir:rules", mapping={f"client-{i:05}": text for i in range(RULES_MAX + 50)})
        assert len(shared.rules()) == RULES_MAX
        client.delete("weir:rules")


def test_what_other_hosts_show_is_cleaned(servers: Any) -> None:
    shared = SharedStats(storage_from_string(servers.redis.uri))
    nasty = "evil\x1b[2J\n\u202e" + "x" * 5000
    deep: Any = nasty
    for _ in range(500):
        deep = [deep]
    shared.publish(nasty, {nasty: [nasty] * 50, "deep": deep, "huge": 10**400, "inf": 1e999})
    with servers.redis.client() as client:
        client.zadd("weir:hosts", {"loop": 2e9, "large": 2e9, "list": 2e9})
        client.set("weir:stats:loop", "[" * 100_000, ex=60)
        client.set("weir:stats:large", '"' + "x" * 2_000_000 + '"', ex=60)
        client.set("weir:stats:list", "[1]", ex=60)
    (stats,) = shared.read()
    shown = json.dumps(stats, ensure_ascii=False)
    assert shown.isprintable()
    assert len(shown) < 2_000_000
    assert len(stats["host"]) <= 256
    assert stats["huge"] is None
    assert stats["inf"] is None
