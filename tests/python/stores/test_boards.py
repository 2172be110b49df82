"""What several hosts tell each other by way of Redis: their boards, and the rules they share."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from weir import StorageError, Table, parse
from weir._watched import Beat, Watched
from weir.boards import LIVES, RULES_MAX, Boards, SharedRule, apply_rules, snapshot
from weir.errors import ConfigurationError, ParseError
from weir.storage import storage_from_string

MINUTE = parse("10/minute")


class Host:
    """A host with its board, whose thread does nothing by itself."""

    def __init__(self, uri: str, name: str) -> None:
        self.storage = storage_from_string(uri)
        self.board = Table()
        self.watched = Watched(self.storage, self.board)
        assert self.watched.beat is not None
        self.beat = self.watched.beat
        self.beat.wake = lambda: None  # type: ignore[method-assign]
        type(self.beat).host = property(lambda beat: getattr(beat, "_host", "?"))  # type: ignore[method-assign,assignment]
        self.beat._host = name  # type: ignore[attr-defined]

    def hit(self, client: str, times: int = 1) -> bool:
        for _ in range(times):
            decision = self.watched.decide([MINUTE], f"{client}/{time.monotonic_ns()}")
        return decision.allowed

    def sync(self) -> None:
        self.beat.once(force=True)


@pytest.fixture(params=["redis", "cluster"])
def uri(request: pytest.FixtureRequest, servers: Any) -> str:
    return str(getattr(servers, request.param).uri)


@pytest.fixture
def hosts(uri: str) -> Iterator[tuple[Host, Host]]:
    host = Beat.host
    yield Host(uri, "one"), Host(uri, "two")
    Beat.host = host  # type: ignore[method-assign]
    boards = Boards(storage_from_string(uri))
    for rule in boards.rules():
        boards.remove_rule(rule.client)
    boards._do("DEL", boards._boards)
    for name in ("one", "two"):
        boards._do("DEL", boards._board + name)
    boards._do("DEL", boards._version)


Two = tuple[Host, Host]


def test_every_host_sees_all_boards(hosts: Two) -> None:
    one, two = hosts
    one.hit("10.0.0.1", 3)
    two.watched.decide([MINUTE], "10.0.0.2/x", [11])
    one.sync()
    two.sync()
    boards = {board["host"]: board for board in one.beat.boards.read()}
    assert set(boards) == {"one", "two"}
    assert boards["one"]["counts"] == [["10 per 1 minute", 3, 0, 0, 0]]
    assert boards["two"]["counts"] == [["10 per 1 minute", 0, 1, 0, 0]]
    (heavy,) = boards["two"]["heaviest"]["denied"]
    assert heavy[0] == "10.0.0.2"
    assert boards["one"]["time"] == pytest.approx(time.time(), abs=30)
    assert boards["one"]["info"]["keys_max"] > 0


def test_secrets_are_not_published(hosts: Two) -> None:
    one, _ = hosts
    one.hit("k-secret", 3)
    one.sync()
    assert "k-secret" not in json.dumps(one.beat.boards.read())


def test_every_name_has_a_time_to_live_but_rules_for_good(hosts: Two) -> None:
    one, _ = hosts
    boards = one.beat.boards
    one.hit("10.0.0.1")
    one.sync()

    def ttl(name: str) -> int:
        return int(boards._do("TTL", name))

    assert 0 < ttl(boards._board + "one") <= LIVES
    assert 0 < ttl(boards._boards) <= LIVES
    boards.set_rule("10.0.0.9", "block", time.time() + 100)
    assert 100 <= ttl(boards._rules) <= 101 + LIVES
    assert 100 <= ttl(boards._version) <= 101 + LIVES
    boards.set_rule("10.0.0.8", "allow")
    assert ttl(boards._rules) == ttl(boards._version) == -1
    boards.remove_rule("10.0.0.8")
    assert ttl(boards._rules) > 0
    boards.remove_rule("10.0.0.9")
    assert ttl(boards._rules) == -2
    assert ttl(boards._version) > 0


def test_a_rule_that_one_host_sets_holds_on_all(hosts: Two) -> None:
    one, two = hosts
    assert two.hit("192.0.2.7")
    one.watched.block("192.0.2.0/24", time.time() + 60)
    assert not one.hit("192.0.2.7"), "where it is set it holds at once"
    two.sync()
    assert not two.hit("192.0.2.7")
    two.watched.allow("192.0.2.7")
    assert two.hit("192.0.2.7")
    one.sync()
    assert one.hit("192.0.2.7")
    assert not one.hit("192.0.2.8")
    assert [rule[:2] for rule in one.beat.boards.rules()] == [
        ("192.0.2.0/24", "block"),
        ("192.0.2.7", "allow"),
    ]
    assert two.watched.unlist("192.0.2.0/24")
    assert not two.watched.unlist("192.0.2.0/24")
    one.sync()
    assert one.hit("192.0.2.8")


def test_rules_that_have_ended_are_cleaned(hosts: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = hosts
    boards = one.beat.boards
    now = time.time()
    boards.set_rule("10.0.0.1", "block", now + 10)
    boards.set_rule("10.0.0.2", "block")
    monkeypatch.setattr(time, "time", lambda: now + 11)
    assert [rule.client for rule in boards.rules()] == ["10.0.0.2"]
    one.beat._cleaned -= 61
    one.sync()
    assert boards._do("HLEN", boards._rules) == 1


def test_a_rule_stays_while_the_server_is_away(hosts: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = hosts
    one.watched.block("10.0.0.1")

    def away(*command: Any) -> None:
        raise StorageError("away")

    with monkeypatch.context() as patch:
        patch.setattr(one.beat.boards, "_do", away)
        with pytest.raises(StorageError):
            one.watched.unlist("10.0.0.1")
    assert [rule.client for rule in one.board.rules()] == ["10.0.0.1"]
    assert one.watched.unlist("10.0.0.1")
    assert one.board.rules() == []


def test_a_full_list_takes_what_needs_no_room(hosts: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    boards = hosts[0].beat.boards
    monkeypatch.setattr("weir.boards.RULES_MAX", 3)
    now = time.time()
    for i in range(3):
        boards.set_rule(f"10.0.0.{i}", "block", now + 1000 if i == 0 else None)
    with pytest.raises(ValueError, match="room for 3 rules"):
        boards.set_rule("10.0.0.9", "block")
    # Another rule in the place of the one that there is.
    boards.set_rule("10.0.0.2", "allow", now + 60)
    assert [rule.kind for rule in boards.rules()] == ["block", "block", "allow"]
    # One that has ended is in nobody's way.
    monkeypatch.setattr("time.time", lambda: now + 61)
    boards.set_rule("10.0.0.9", "block")
    assert [rule.client for rule in boards.rules()] == ["10.0.0.0", "10.0.0.1", "10.0.0.9"]


def test_what_is_no_rule_is_refused(hosts: Two) -> None:
    boards = hosts[0].beat.boards
    with pytest.raises(ParseError):
        boards.set_rule("10.1.2.3/8", "block")
    with pytest.raises(ValueError, match="block, allow"):
        boards.set_rule("10.0.0.1", "delay")
    with pytest.raises(ValueError, match="not passed"):
        boards.set_rule("10.0.0.1", "block", time.time() - 1)
    assert boards.rules() == []


def test_garbage_of_others_is_passed_over(hosts: Two) -> None:
    boards = hosts[0].beat.boards
    boards.set_rule("10.0.0.1", "block")
    for text in ("", "[]", "{}", '{"kind": "delay", "since": 1, "until": null}', "x"):
        boards._do("HSET", boards._rules, f"bad{len(text)}", text)
    boards._do("SET", boards._board + "one", "no JSON", "EX", 5)
    boards._do("ZADD", boards._boards, time.time(), "one")
    assert [rule.client for rule in boards.rules()] == ["10.0.0.1"]
    assert boards.read() == []


def test_one_host_in_a_second_is_enough(servers: Any) -> None:
    """All workers of a host share the board; the first of them does the work."""
    storage = storage_from_string(servers.redis.uri)
    board = Table()
    done: list[str] = []
    for name in ("worker 1", "worker 2", "worker 3"):
        beat = Beat(board, Boards(storage), "redis")
        beat._sync = lambda name=name: done.append(name)  # type: ignore[method-assign,misc]
        beat.once()
    assert len(done) <= 2  # two if a second has just ended
    boards = Boards(storage)
    boards._do("DEL", boards._boards, boards._board + beat.host)


def test_a_server_that_is_away_harms_nobody(
    make_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis().start()
    host = Watched(storage_from_string(server.uri), Table())
    assert host.beat is not None
    server.stop()
    with caplog.at_level(logging.WARNING, logger="weir"):
        host.beat.once(force=True)
        host.beat.once(force=True)
    assert len([r for r in caplog.records if "cannot see each other" in r.getMessage()]) == 1
    with pytest.raises(StorageError):
        host.block("10.0.0.1")
    assert host.board.rules() == [], "all hosts or none"


def test_the_thread_syncs_by_itself_and_again_in_a_child(make_redis: Any, wait_for: Any) -> None:
    server = make_redis().start()
    uri = server.uri
    watched = Watched(storage_from_string(uri), Table())
    watched.decide([MINUTE], "10.0.0.1")
    boards = Boards(storage_from_string(uri))
    wait_for(lambda: len(boards.read()) == 1)
    boards.set_rule("10.0.0.9", "block")
    began = time.monotonic()
    wait_for(lambda: watched.board.rule_of("10.0.0.9"))
    assert time.monotonic() - began < 10
    pid = os.fork()
    if pid == 0:
        try:
            names = [t.name for t in threading.enumerate()]
            watched.decide([MINUTE], "10.0.0.1")
            wait_for(lambda: "weir.board" in [t.name for t in threading.enumerate()])
            os._exit(0 if "weir.board" not in names else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    server.stop()


def test_other_stores_keep_rules_to_themselves(servers: Any) -> None:
    storage = storage_from_string(servers.memcached.uri)
    with pytest.raises(ConfigurationError, match="Redis"):
        Boards(storage)
    watched = Watched(storage, Table())
    assert watched.beat is None
    watched.block("10.0.0.1")
    assert watched.decide([MINUTE], "10.0.0.1").rule == "block"


def test_a_snapshot_is_json() -> None:
    table = Table()
    table.register(MINUTE, "", "/view")
    table.decide([MINUTE], "10.0.0.1/view")
    board = json.loads(json.dumps(snapshot(table)))
    assert board["catalogue"] == [["10 per 1 minute", "fixed-window", "", "/view"]]
    assert board["heaviest"]["allowed"][0][:3] == ["10.0.0.1", "10 per 1 minute", 1]
    assert SharedRule("10.0.0.1", "block", 1.0, None).until is None


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
    boards = Boards(storage_from_string(server.uri))
    boards.set_rules([("192.0.2.1", "block", None), ("192.0.2.2", "allow", None)])
    good = json.dumps({"kind": "block", "since": 0, "until": None})
    with server.client() as client:
        for i, text in enumerate(UNREADABLE):
            client.hset("weir:rules", f"192.0.2.{i + 10}", text)
        for name in ("10.0.0.0/33", "10.0.0/8", "x" * 5000, "", b"\xff\xfe/99", "fe80::1%/999"):
            client.hset("weir:rules", name, good)
        client.hset("weir:rules", "not-a-number", '{"kind": "block", "since": 0, "until": NaN}')
        table = Table("memory://?keys=100&rules=1000")
        apply_rules(table, boards.rules())
        assert table.rule_of("192.0.2.1").kind == "block"
        assert table.rule_of("192.0.2.2").kind == "allow"
        assert table.rule_of("192.0.2.10") is None
        client.delete("weir:rules", "weir:rules:version")


def test_more_rules_than_there_is_room_for_are_cut(servers: Any) -> None:
    boards = Boards(storage_from_string(servers.redis.uri))
    text = json.dumps({"kind": "block", "since": 0, "until": None})
    with servers.redis.client() as client:
        client.hset("weir:rules", mapping={f"client-{i:05}": text for i in range(RULES_MAX + 50)})
        assert len(boards.rules()) == RULES_MAX
        client.delete("weir:rules")


def test_what_other_hosts_show_is_cleaned(servers: Any) -> None:
    boards = Boards(storage_from_string(servers.redis.uri))
    nasty = "evil\x1b[2J\n\u202e" + "x" * 5000
    deep: Any = nasty
    for _ in range(500):
        deep = [deep]
    boards.publish(nasty, {nasty: [nasty] * 50, "deep": deep, "huge": 10**400, "inf": 1e999})
    with servers.redis.client() as client:
        client.zadd("weir:boards", {"loop": 2e9, "large": 2e9, "list": 2e9})
        client.set("weir:board:loop", "[" * 100_000, ex=60)
        client.set("weir:board:large", '"' + "x" * 2_000_000 + '"', ex=60)
        client.set("weir:board:list", "[1]", ex=60)
    (board,) = boards.read()
    shown = json.dumps(board, ensure_ascii=False)
    assert shown.isprintable()
    assert len(shown) < 2_000_000
    assert len(board["host"]) <= 256
    assert board["huge"] is None
    assert board["inf"] is None
