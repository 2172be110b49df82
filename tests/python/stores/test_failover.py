"""A store that is away: what is decided meanwhile, who waits, and how it comes back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import weir
from clocks import Clock
from servers.ports import PATIENCE, quickest
from weir import (
    HIT,
    REFUND,
    TEST,
    KeyRefusedError,
    Limit,
    StorageError,
    StoreAwayError,
    Table,
    TableError,
    policy,
)
from weir.errors import is_outage
from weir.storage import FailoverStorage, Storage, storage_from_string

TIGHT = weir.parse("2 per minute")


class Flaky(Storage):
    """A table that a test can make unavailable."""

    def __init__(self) -> None:
        super().__init__("flaky://")
        self.table = Table()
        self.away = False
        self.calls = 0
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.leave.set()

    def decide(self, *args: Any) -> weir.Decision:
        self.calls += 1
        self.entered.set()
        self.leave.wait(PATIENCE)
        if self.away:
            raise StorageError("flaky: away")
        return self.table.decide(*args)

    def clear(self, limits: Sequence[Limit], keys: Any, /) -> None:
        if self.away:
            raise StorageError("flaky: away")
        self.table.clear(limits, keys)


@pytest.fixture
def manual_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the pauses, which the test moves."""
    manual_clock = Clock(1000.0)
    monkeypatch.setattr(policy, "monotonic", manual_clock)
    return manual_clock


@pytest.fixture
def flaky() -> Flaky:
    return Flaky()


def test_raise_is_the_callers_matter(flaky: Flaky) -> None:
    failover = FailoverStorage(flaky, "raise")
    assert failover.decide([TIGHT], "a").allowed
    flaky.away = True
    for n in range(3):
        with pytest.raises(StorageError, match="flaky: away"):
            failover.decide([TIGHT], "a")
        assert failover.counters["failures"] == n + 1
    with pytest.raises(StorageError):
        failover.clear([TIGHT], "a")
    flaky.away = False
    assert failover.decide([TIGHT], "a").allowed


def test_open_admits_every_request(flaky: Flaky, manual_clock: Clock) -> None:
    failover = FailoverStorage(flaky, "open")
    flaky.away = True
    for _ in range(10):
        decision = failover.decide([TIGHT, weir.parse("1/hour burst 7")], ["a", "b"])
        assert decision.allowed
        assert [verdict.remaining for verdict in decision] == [2, 7]
    assert flaky.calls == 1
    assert failover.counters["answered"] == 10
    failover.clear([TIGHT], "a")


def test_closed_denies_all_and_reports_when_to_retry(flaky: Flaky, manual_clock: Clock) -> None:
    failover = FailoverStorage(flaky, "closed")
    flaky.away = True
    for _ in range(3):
        before = time.time()
        decision = failover.decide([TIGHT], "a")
        assert not decision.allowed
        assert decision[0].retry_after == 1.0
        assert before + 1 - 1e-6 <= decision[0].reset_at <= time.time() + 1 + 1e-6
    assert not failover.decide([TIGHT], "a", None, TEST).allowed
    assert failover.decide([TIGHT], "a", None, REFUND).allowed


def test_local_counts_in_another_store(flaky: Flaky, manual_clock: Clock) -> None:
    failover = FailoverStorage(flaky, "local", Table())
    assert failover.decide([TIGHT], "a").allowed
    flaky.away = True
    assert [failover.decide([TIGHT], "a").allowed for _ in range(3)] == [True, True, False]
    failover.clear([TIGHT], "a")
    assert failover.decide([TIGHT], "a").allowed
    manual_clock.now += 1
    flaky.away = False
    assert failover.decide([TIGHT], "a").allowed
    assert not failover.decide([TIGHT], "a").allowed
    assert not failover.away


def test_the_store_is_probed_after_1_2_4_up_to_32_seconds(
    flaky: Flaky, manual_clock: Clock
) -> None:
    failover = FailoverStorage(flaky, "open")
    flaky.away = True
    start, probed_at = manual_clock.now, []
    for _ in range(1200):
        before = flaky.calls
        failover.decide([TIGHT], "a")
        if flaky.calls > before:
            probed_at.append(manual_clock.now - start)
        manual_clock.now += 0.125
    assert probed_at == [0, 1, 3, 7, 15, 31, 63, 95, 127]
    flaky.away = False
    manual_clock.now += 32
    failover.decide([TIGHT], "a")
    flaky.away = True
    manual_clock.now += 1
    failover.decide([TIGHT], "a")
    calls = flaky.calls
    manual_clock.now += 1
    failover.decide([TIGHT], "a")
    assert flaky.calls == calls + 1  # the pauses start again at 1 second


def test_the_switch_and_the_return_are_logged_once(
    flaky: Flaky, manual_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    failover = FailoverStorage(flaky, "local", Table())
    with caplog.at_level(logging.INFO, "weir"):
        flaky.away = True
        for _ in range(5):
            failover.decide([TIGHT], "a")
            manual_clock.now += 2
        flaky.away = False
        manual_clock.now += 32
        for _ in range(5):
            failover.decide([TIGHT], "a")
    away, back = (record.getMessage() for record in caplog.records)
    assert away == "flaky: away; until it is back, each host counts separately"
    assert back == "the store answers again after 42.0 s"
    assert failover.counters["switches"] == failover.counters["returns"] == 1


def test_one_caller_probes_and_the_others_do_not_wait(flaky: Flaky, manual_clock: Clock) -> None:
    failover = FailoverStorage(flaky, "open")
    flaky.away = True
    failover.decide([TIGHT], "a")
    manual_clock.now += 1
    flaky.entered.clear()
    flaky.leave.clear()
    asking = threading.Thread(target=failover.decide, args=([TIGHT], "a"))
    asking.start()
    assert flaky.entered.wait(PATIENCE)
    calls = flaky.calls
    assert all(failover.decide([TIGHT], "a").allowed for _ in range(20))
    assert flaky.calls == calls
    flaky.leave.set()
    asking.join(PATIENCE)


def test_a_callers_mistake_is_no_failure(flaky: Flaky, manual_clock: Clock) -> None:
    failover = FailoverStorage(flaky, "open")
    with pytest.raises(TypeError):
        failover.decide([TIGHT], [None])  # type: ignore[list-item]
    assert not failover.away
    flaky.away = True
    failover.decide([TIGHT], "a")
    flaky.away = False
    manual_clock.now += 1
    with pytest.raises(TypeError):
        failover.decide([TIGHT], [None])  # type: ignore[list-item]
    assert failover.decide([TIGHT], "a").allowed
    assert not failover.away


def test_an_unknown_policy_is_refused(flaky: Flaky) -> None:
    with pytest.raises(weir.ConfigurationError, match="raise, open, closed, local"):
        FailoverStorage(flaky, "maybe")


DEADLINE = 1.0


@pytest.fixture
def frozen(servers: Any) -> Iterator[Any]:
    """A Redis server that was used before it stopped."""
    store = storage_from_string(servers.redis.uri, socket_timeout=DEADLINE)
    store.deadline = 20.0
    assert store.decide([TIGHT], "a", [0], HIT).allowed
    store.deadline = DEADLINE
    with servers.redis.frozen():
        yield store
    store.close()


@pytest.mark.parametrize("name", ["raise", "open", "local"])
def test_a_stopped_server_costs_one_deadline_per_probe(
    frozen: Any, manual_clock: Clock, name: str
) -> None:
    def send(failover: FailoverStorage) -> float:
        start = time.perf_counter()
        if name == "raise":
            with pytest.raises(StorageError, match=r"no answer within 1 s"):
                failover.decide([TIGHT], "a")
        else:
            failover.decide([TIGHT], "a")
        return time.perf_counter() - start

    def probe() -> float:
        return send(FailoverStorage(frozen, name, Table()))

    # Once one deadline, whatever a busy machine adds to single calls.
    assert 0.9 * DEADLINE < quickest(probe, 1.9 * DEADLINE) < 1.9 * DEADLINE
    failover = FailoverStorage(frozen, name, Table())
    waits = [send(failover) for _ in range(3 if name == "raise" else 50)]
    assert waits[0] > 0.9 * DEADLINE
    if name == "raise":
        assert min(waits) > 0.9 * DEADLINE
    else:
        assert sorted(waits)[25] < 0.5 * DEADLINE


def test_the_deadline(servers: Any, default_deadline: None) -> None:
    store = storage_from_string(servers.redis.uri)
    store.deadline = 20.0
    assert store.decide([TIGHT], "a", [0], HIT).allowed
    store.deadline = 0.25
    with servers.redis.frozen():
        start = time.perf_counter()
        with pytest.raises(StorageError, match=r"no answer within 0\.25 s"):
            store.decide([TIGHT], "a")
        assert time.perf_counter() - start > 0.2
    store.close()


class Picky(Flaky):
    """Cannot decide about the key "greedy"."""

    def decide(self, *args: Any) -> weir.Decision:
        decision = super().decide(*args)
        if args[1] == "greedy":
            raise KeyRefusedError("picky: this key is of another type")
        return decision


@pytest.mark.parametrize("policy_name", ["open", "closed", "local"])
def test_a_refused_key_is_denied_and_changes_nothing_for_others(policy_name: str) -> None:
    failover = FailoverStorage(Picky(), policy_name, Table())
    assert [failover.decide([TIGHT], "other").allowed for _ in range(3)] == [True, True, False]
    for _ in range(5):
        refused = failover.decide([TIGHT], "greedy")
        assert not refused.allowed
        assert refused[0].retry_after == 1.0
        assert not failover.away
    assert not failover.decide([TIGHT], "other").allowed
    assert failover.counters == {"refused": 5}
    assert failover.decide([TIGHT], "greedy", None, REFUND).allowed


def test_a_refused_key_raises_where_errors_do() -> None:
    failover = FailoverStorage(Picky(), "raise")
    with pytest.raises(KeyRefusedError):
        failover.decide([TIGHT], "greedy")
    assert failover.counters == {"refused": 1}


def test_a_refused_key_leaves_the_next_caller_to_find_out(
    flaky: Flaky, manual_clock: Clock
) -> None:
    picky = Picky()
    failover = FailoverStorage(picky, "open")
    picky.away = True
    failover.decide([TIGHT], "a")
    manual_clock.now += 2
    picky.away = False
    assert not failover.decide([TIGHT], "greedy").allowed
    assert failover.away
    assert failover.decide([TIGHT], "a").allowed
    assert not failover.away


def test_a_store_that_answers_but_does_not_count_is_not_back(manual_clock: Clock) -> None:
    class Replica(Flaky):
        counts = False

        def check(self) -> bool:
            return self.counts

    replica = Replica()
    failover = FailoverStorage(replica, "open")
    replica.away = True
    failover.decide([TIGHT], "a")
    replica.away = False
    manual_clock.now += 2
    failover.decide([TIGHT], "a", None, TEST)
    assert failover.away
    replica.counts = True
    manual_clock.now += 4
    failover.decide([TIGHT], "a", None, TEST)
    assert not failover.away


def test_is_outage_of_errors() -> None:
    table = Table()
    with pytest.raises(ValueError, match="cost") as bad_cost:
        table.decide([TIGHT], "a", [-5])
    with pytest.raises((ValueError, TableError)) as too_many:
        table.decide([TIGHT] * 99, "a")
    table.close()
    with pytest.raises(TableError) as closed:
        table.decide([TIGHT], "a")
    outages = [StorageError(), StoreAwayError(), TimeoutError(), closed.value]
    others = [KeyRefusedError(), bad_cost.value, too_many.value, weir.ParseError(), TypeError()]
    assert [is_outage(error) for error in outages] == [True] * len(outages)
    assert [is_outage(error) for error in others] == [False] * len(others)
