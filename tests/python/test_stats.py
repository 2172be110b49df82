"""The statistics of a table: counts, top clients, and the registry of limits."""

from __future__ import annotations

import multiprocessing
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from flask import Flask

import weir
from weir import Decision, Limit, Table, TableError, Verdict, parse
from weir.flask import Limiter
from weir.observe.hosts import read_host
from weir.stores.shared_stats import snapshot

NOW = 1_700_000_040.0


@pytest.fixture(autouse=True)
def clock() -> Iterator[mock.Mock]:
    with mock.patch.object(time, "time", return_value=NOW) as stopped:
        yield stopped


@pytest.fixture
def table() -> Table:
    return Table("memory://?keys=64")


@pytest.fixture
def shared() -> Iterator[str]:
    uri = f"shm://test-{uuid.uuid4()}"
    yield uri
    weir.unlink(uri)


def counts(table: Table) -> dict[str, tuple[int, int, int, int]]:
    return {row.limit: row[1:] for row in table.counts()}


# -- counts


def test_a_limiter_counts_under_the_text_of_its_limit(table: Table) -> None:
    limiter = weir.RateLimiter(table, "moving-window")
    ten, burst = parse("10 per minute"), parse("2/second burst 5")
    assert table.counts() == []
    allowed = [limiter.hit(ten, "10.0.0.1", "view") for _ in range(13)]
    assert sum(allowed) == 10
    limiter.test(ten, "10.0.0.1")
    limiter.refund(ten, "10.0.0.1")
    limiter.get_window_stats(ten, "10.0.0.1")
    assert limiter.decide(burst, "10.0.0.1").allowed
    assert counts(table) == {
        "10 per 1 minute": (10, 3, 3, 0),
        "2 per 1 second burst 5": (1, 0, 0, 0),
    }


def test_equal_texts_count_as_one_whatever_the_strategy_or_namespace(table: Table) -> None:
    for strategy in weir.strategies.STRATEGIES:
        weir.RateLimiter(table, strategy).hit(parse("10/minute"), "a")
    weir.RateLimiter(table).hit(Limit(10, namespace="other"), "a")
    assert {limit: row[:2] for limit, row in counts(table).items()} == {
        "10 per 1 minute": (len(weir.strategies.STRATEGIES) + 1, 0)
    }


def test_a_limit_counts_in_each_of_several_tables() -> None:
    tables = [Table("memory://?keys=64") for _ in range(3)]
    limit = parse("10/minute")
    for i in range(90):
        weir.RateLimiter(tables[i % 3]).hit(limit, i)
    assert [counts(table)["10 per 1 minute"][0] for table in tables] == [30, 30, 30]


def test_of_several_limits_those_that_denied_count(table: Table) -> None:
    limits = [parse("2/minute"), parse("100/hour")]
    for _ in range(5):
        table.decide(limits, "a")
    assert counts(table) == {"2 per 1 minute": (2, 3, 1, 0), "100 per 1 hour": (2, 0, 0, 0)}
    table.decide(limits, "a", None, weir.EACH)
    assert counts(table)["100 per 1 hour"] == (3, 0, 0, 0)


def test_more_than_63_limits_count_as_other(table: Table) -> None:
    for amount in range(1, 101):
        table.decide([Limit(amount)], "a")
    rows = table.counts()
    assert len(rows) == 64
    assert rows[-1] == ("other", 37, 0, 0, 0)
    assert {top.limit for top in table.top_clients("allowed", limit="other")} == {"other"}


def test_decisions_of_a_remote_store_are_recorded(table: Table) -> None:
    limits = [parse("10/minute"), parse("5/minute")]
    passed, also = Verdict(True, 10, 2, NOW, 0.0, 0.0), Verdict(True, 5, 2, NOW, 0.0, 0.0)
    refused = Verdict(False, 5, 0, NOW, 9.0, 0.0)
    table.record(limits, "10.0.0.1/view", Decision([passed, also], 0, NOW))
    table.record(limits, ["10.0.0.1/view", "10.0.0.2"], Decision([passed, refused], 1, NOW))
    table.record(limits, "10.0.0.3", Decision([passed, refused], 1, NOW), shadow=True)
    assert counts(table) == {"10 per 1 minute": (1, 0, 1, 0), "5 per 1 minute": (1, 1, 0, 1)}
    assert [top.client for top in table.top_clients()] == ["10.0.0.2"]
    assert table.info()["keys"] == 0
    with pytest.raises(ValueError, match="a decision of 2 limits for 1"):
        table.record(limits[:1], "a", Decision([passed, passed], 0, NOW))
    with pytest.raises(TypeError):
        table.record(limits, "a", (passed, passed))  # type: ignore[arg-type]


def decide_at_random(uri: str, seed: int, results: Any) -> None:
    table = Table(uri)
    limits = [Limit(amount, strategy="token-bucket") for amount in (50, 100, 200)]
    dice = random.Random(seed)
    seen: Counter[tuple[str, bool]] = Counter()
    for _ in range(3000):
        limit = dice.choice(limits)
        client = f"10.0.0.{dice.randrange(40)}"
        # At one time, so that no bucket is refilled. (This process reads the true clock.)
        decision = table.decide([limit], client, None, weir.HIT, NOW)
        seen[str(limit), decision.allowed] += 1
    results.put(seen)


def test_processes_count_together(shared: str) -> None:
    table = Table(shared)
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    workers = [
        spawn.Process(target=decide_at_random, args=(shared, seed, results)) for seed in range(3)
    ]
    for worker in workers:
        worker.start()
    seen: Counter[tuple[str, bool]] = sum((results.get(timeout=120) for _ in workers), Counter())
    for worker in workers:
        worker.join()
    rows = counts(table)
    for (limit, allowed), count in seen.items():
        assert rows[limit][0 if allowed else 1] == count
    assert sum(row[0] + row[1] for row in rows.values()) == 9000
    assert seen["50 per 1 minute", False] > 0
    table.verify()


# -- top clients


def test_the_client_is_the_first_identifier(table: Table) -> None:
    limit = parse("3/minute")
    limiter = weir.RateLimiter(table)
    for _ in range(5):
        limiter.hit(limit, "10.0.0.1", "a/b", 7)
        limiter.hit(limit, "::1")
        table.decide([limit], "10.0.0.3/view")
    table.decide([limit], "")
    limiter.hit(limit)
    assert [top[:5] for top in table.top_clients()] == [
        ("10.0.0.1", "3 per 1 minute", 3, 2, 0),
        ("10.0.0.3", "3 per 1 minute", 3, 2, 0),
        ("::1", "3 per 1 minute", 3, 2, 0),
    ]
    assert {top.last for top in table.top_clients()} == {NOW}


def test_a_limit_is_immutable(table: Table) -> None:
    limit = parse("3/minute")
    table.decide([limit], "10.0.0.1/view")
    for name in ("skip", "quiet", "label", "amount", "namespace"):
        with pytest.raises(AttributeError):
            setattr(limit, name, 5)


def test_peek_ignores_rules(table: Table) -> None:
    limit = parse("3/minute")
    table.block("10.0.0.1")
    assert not table.decide([limit], "10.0.0.1/view", None, weir.TEST).allowed
    assert table.peek([limit], "10.0.0.1/view")[0].remaining == 3


def test_clients_are_hashes_unless_revealed_or_addresses(table: Table) -> None:
    limit = parse("3/minute")
    limiter = weir.RateLimiter(table)
    limiter.hit(limit, "alice@example.org")
    name = table.name_of("alice@example.org")
    assert len(name) == 17
    assert name[0] == "#"
    assert table.top_clients("allowed")[0].client == name
    assert table.name_of("10.0.0.1") == "10.0.0.1"
    assert table.name_of("a/b") != table.name_of("a%2Fb")
    assert table.name_of(b"a/b") == table.name_of("a/b")
    assert Table("memory://?keys=64").name_of("alice@example.org") != name
    assert table.reveal is False
    table.reveal = True
    assert table.reveal is True
    limiter.hit(limit, "bob@example.org")
    assert {top.client for top in table.top_clients("allowed")} == {name, "bob@example.org"}
    with pytest.raises(ValueError, match="a client must not be empty"):
        table.name_of("")


def test_top_clients_by_denied_or_allowed_and_count(table: Table) -> None:
    limits = [parse("2/minute"), parse("5/minute")]
    for number in range(1, 6):
        for limit in limits:
            for _ in range(number + 1):
                table.decide([limit], f"10.0.0.{number}")
    assert [top.client[-1] for top in table.top_clients(count=2)] == ["5", "4"]
    denied = [(top.client[-1], top.denied) for top in table.top_clients(limit=limits[0])]
    assert denied == [("5", 4), ("4", 3), ("3", 2), ("2", 1)]
    assert len(table.top_clients("allowed", limit="5 per 1 minute")) == 5
    assert table.top_clients(limit="7 per 1 minute") == []
    for wrong in (0, -1, 4097):
        with pytest.raises(ValueError, match="count must be"):
            table.top_clients(count=wrong)
    with pytest.raises(ValueError, match='by must be "denied" or "allowed"'):
        table.top_clients("hits")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="limit must be Limit, str or None"):
        table.top_clients(limit=7)  # type: ignore[arg-type]


# -- registry


def test_limits_are_registered_once_and_by_namespace(shared: str) -> None:
    ours, theirs = Table(shared), Table(shared, namespace=3)
    limit = Limit(10, strategy="leaky-bucket", max_delay=0.25, namespace="a/b")
    for _ in range(3):
        assert ours.register(limit, "shop/", "/view")
        assert theirs.register(parse("5/minute"), "", "")
    (found,) = Table(shared).registry()
    assert found == (limit, "shop/", "/view")
    assert found.limit.max_delay == 0.25
    ours.decide([limit], "shop/10.0.0.1/view")
    assert (
        ours.decide([found.limit], found.before + "10.0.0.1" + found.after, None, 1)[0].remaining
        < 10
    )
    ((limit, *rest),) = theirs.registry()
    assert (str(limit), rest) == ("5 per 1 minute", ["", ""])
    assert ours.register(limit, "", "x" * 500) is False
    with pytest.raises(TypeError):
        ours.register(limit, "", 7)  # type: ignore[arg-type]


@pytest.mark.parametrize("tz", ["Europe/Berlin", "+05:30", None])
def test_a_limit_in_a_zone_is_registered_with_it(shared: str, tz: str | None) -> None:
    limit = Limit(3, 1, "day", strategy="calendar-window", tz=tz)
    assert Table(shared).register(limit, "", "/view")
    (found,) = Table(shared).registry()
    assert (found.limit, found.limit.tz) == (limit, tz)
    (read,) = read_host(snapshot(Table(shared))).limits
    assert (read.text, read.strategy, read.tz) == ("3 per 1 day", "calendar-window", tz)


def test_a_full_registry_is_reported(table: Table) -> None:
    added = [table.register(Limit(amount), "", "") for amount in range(1, 2000)]
    assert 0 < sum(added) < 1999
    assert sum(added) == len(table.registry())
    assert table.register(Limit(1), "", "")


# -- in Flask


def test_flask_registers_its_limits_and_counts_clients(shared: str) -> None:
    app = Flask(__name__)
    limiter = Limiter(
        lambda: "10.9.9.9", app=app, storage_uri=shared, key_prefix="a/b", default_limits=["9/hour"]
    )

    @app.route("/limited")
    @limiter.limit("3 per minute")
    def limited() -> str:
        return "x"

    @app.route("/plain")
    def plain() -> str:
        return "x"

    client = app.test_client()
    statuses = Counter(client.get("/limited").status_code for _ in range(5))
    client.get("/plain")
    assert statuses == {200: 3, 429: 2}
    table = Table(shared)
    rows = counts(table)
    assert rows["3 per 1 minute"][:2] == (3, 2)
    assert rows["9 per 1 hour"][:2] == (1, 0)
    assert [top[:4] for top in table.top_clients()] == [("10.9.9.9", "3 per 1 minute", 3, 2)]
    remaining = {
        str(limit): table.decide([limit], f"{before}10.9.9.9{after}", None, weir.TEST)[0].remaining
        for limit, before, after in table.registry()
    }
    assert remaining == {"3 per 1 minute": 0, "9 per 1 hour": 8}


def test_two_limiters_of_one_limit_skip_their_own_prefix(shared: str) -> None:
    limit = parse("5/minute")
    for prefix in ("", "one", "another"):
        app = Flask(__name__)
        Limiter(
            lambda: "10.9.9.9",
            app=app,
            storage_uri=shared,
            key_prefix=prefix,
            default_limits=[str(limit)],
        )
        app.add_url_rule("/", view_func=lambda: "x")
        assert app.test_client().get("/").status_code == 200
    (top,) = Table(shared).top_clients("allowed")
    assert top[:3] == ("10.9.9.9", "5 per 1 minute", 3)


# -- closed


def test_a_closed_table_raises(table: Table) -> None:
    limit = parse("5/minute")
    table.close()
    for call in (
        table.counts,
        table.top_clients,
        table.registry,
        lambda: table.register(limit, "", ""),
        lambda: table.name_of("a"),
        lambda: table.reveal,
        lambda: table.record([limit], "a", Decision([Verdict(True, 1, 1, 1.0, 0.0, 0.0)], 0, 1.0)),
    ):
        with pytest.raises(TableError, match="closed"):
            call()


def test_the_earlier_names_still_work() -> None:
    assert (weir.Look, weir.Heavy, weir.Described) == (
        weir.Peek,
        weir.TopClient,
        weir.RegisteredLimit,
    )
    table, limit = Table("memory://?keys=64"), Limit(1)
    assert table.describe(limit, "", "/a")
    assert table.catalogue() == table.registry()
    table.note([limit], "10.0.0.1", table.decide([limit], "10.0.0.1"))
    assert table.heaviest("allowed") == table.top_clients("allowed") != []
