"""The collector adds up the statistics of tables and stores, without text from clients."""

from __future__ import annotations

import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from clocks import stop_clock
from weir import Decision, Limit, StorageError, Table, Verdict, parse
from weir._core import EACH
from weir.metrics import Collector
from weir.observe.stats import BOUNDS, StoreMeters, kind_of
from weir.storage import FailoverStorage, Storage
from weir.stores.instrumented import InstrumentedStorage

MINUTE = parse("10/minute")
LABEL = "10 per 1 minute"


class Remote(Storage):
    """A store whose answers the test gives."""

    name = "fake://there"

    def __init__(self) -> None:
        super().__init__("fake://me:hush@there")
        self.error: Exception | None = None
        self.table = Table()

    def decide(self, *arguments: Any) -> Decision:
        if self.error is not None:
            raise self.error
        return self.table.decide(*arguments)

    def clear(self, limits: Any, keys: Any, /) -> None:
        pass


class Page:
    """What a registry with a collector shows."""

    def __init__(self, *stores: Any) -> None:
        self.collector = Collector(*stores)
        self.registry = CollectorRegistry()
        self.registry.register(self.collector)

    def __call__(self, name: str, **labels: str) -> float | None:
        self.collector._read_at = float("-inf")
        return self.registry.get_sample_value(name, labels)

    def text(self) -> str:
        self.collector._read_at = float("-inf")
        return generate_latest(self.registry).decode()


def test_decisions_of_all_limits_of_a_request_are_counted() -> None:
    table = Table()
    page = Page(table)
    hour = parse("15/hour")
    for i in range(40):
        table.decide([MINUTE, hour], f"10.0.0.{i % 2}")
    # Each of the two clients: 10 by the minute; the hour has room for 5 more, but is not charged.
    assert page("weir_decisions_total", limit=LABEL, verdict="allowed") == 20
    assert page("weir_decisions_total", limit=LABEL, verdict="denied") == 20
    assert page("weir_decisions_total", limit="15 per 1 hour", verdict="allowed") == 20
    assert page("weir_decisions_total", limit="15 per 1 hour", verdict="denied") == 0
    assert page("weir_near_limit_total", limit=LABEL) == 2 * 3  # the eighth, ninth and tenth
    assert page("weir_shadow_denied_total", limit=LABEL) == 0
    table.record([MINUTE], "10.0.0.1", table.decide([MINUTE], "10.0.0.1"), shadow=True)
    assert page("weir_shadow_denied_total", limit=LABEL) == 1


def test_peeks_and_refunds_are_no_decisions() -> None:
    from weir import REFUND, TEST

    table = Table()
    for mode in (TEST, REFUND):
        table.decide([MINUTE], "10.0.0.1", [1], mode)
    assert Page(table)("weir_decisions_total", limit=LABEL, verdict="allowed") in (None, 0)


def test_no_label_is_of_a_client() -> None:
    table = Table()
    table.reveal = True
    page = Page(table)
    for i in range(500):
        table.decide([Limit(1 + i % 3)], f'secret-{i}"\n')
        table.decide([Limit(1 + i % 3)], f'secret-{i}"\n')
    text = page.text()
    assert "secret" not in text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    assert {key for s in samples for key in s.labels} == {"limit", "verdict", "kind"}
    assert len(samples) < 40


def test_more_limits_than_a_table_has_labels_are_other() -> None:
    table = Table()
    page = Page(table)
    for i in range(100):
        table.decide([Limit(1 + i)], "10.0.0.1")
    assert page("weir_decisions_total", limit="other", verdict="allowed") == 100 - 63
    assert page.text().count('verdict="allowed"') == 64


def test_one_table_that_was_opened_twice_is_counted_once(tmp_path: Any) -> None:
    uri = f"file://{tmp_path}/table"
    first, second = Table(uri), Table(uri, namespace=7)
    first.decide([MINUTE], "10.0.0.1")
    second.decide([MINUTE], "10.0.0.1")
    page = Page(first, lambda: [second])
    assert page("weir_decisions_total", limit=LABEL, verdict="allowed") == 2
    assert page("weir_table_keys") == 2
    other = Table()
    other.decide([MINUTE], "10.0.0.1")
    assert Page(first, other)("weir_decisions_total", limit=LABEL, verdict="allowed") == 3


def test_the_top_client_is_measured_between_scrapes() -> None:
    table = Table()
    page = Page(table)

    def deny(client: str, times: int) -> None:
        for _ in range(times):
            table.decide([MINUTE], client, [11])

    def top_client() -> float | None:
        return page("weir_top_client_denied_total", limit=LABEL)

    deny("10.0.0.1", 1000)
    deny("10.0.0.2", 10)
    assert top_client() == 0, "nothing to compare with yet"
    deny("10.0.0.1", 5)
    deny("10.0.0.2", 300)
    assert top_client() == 300, "an old total does not hide the current rate"
    assert top_client() == 300
    deny("10.0.0.1", 7)
    deny("10.0.0.2", 7)
    assert top_client() == 307, "not the sum over clients"
    # Any process may scrape: another collector continues from the stored counts.
    deny("10.0.0.1", 3)
    assert Page(table)("weir_top_client_denied_total", limit=LABEL) == 310


def test_tables_rules_and_evictions_are_metrics() -> None:
    table = Table("memory://?keys=64")
    page = Page(table)
    table.block("192.0.2.0/24")
    table.allow("192.0.2.7")
    table.block("k-secret", time.time() + 60)
    for i in range(1000):
        table.decide([MINUTE], str(i))
    assert page("weir_rules", kind="block") == 2
    assert page("weir_rules", kind="allow") == 1
    assert page("weir_table_keys_max") == 64
    keys = page("weir_table_keys")
    assert keys is not None
    assert 32 < keys <= 64
    assert (page("weir_table_evictions_total") or 0) >= 1000 - 64
    assert page("weir_fallback_active") == 0


def test_reading_a_large_table_is_done_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table()
    collector = Collector(table)
    registry = CollectorRegistry()
    registry.register(collector)
    reads: list[float] = []
    read = collector._read
    monkeypatch.setattr(collector, "_read", lambda: reads.append(0.0) or read())
    now = [100.0]
    monkeypatch.setattr("weir.metrics.monotonic", lambda: now[0])
    for moment in (100.0, 100.5, 100.9, 101.1, 50.0):
        now[0] = moment
        generate_latest(registry)
    assert len(reads) == 3


# ------------------------------------------------------------------------------------- stores


def test_a_remote_store_is_timed_and_its_decisions_are_in_the_statistics() -> None:
    remote = Remote()
    instrumented = InstrumentedStorage(remote, Table())
    page = Page(instrumented)
    for _ in range(12):
        instrumented.decide([MINUTE], "10.0.0.1")
    assert page("weir_decisions_total", limit=LABEL, verdict="allowed") == 10
    assert page("weir_decisions_total", limit=LABEL, verdict="denied") == 2
    assert page("weir_store_seconds_count", store="fake://there") == 12
    assert page("weir_store_seconds_bucket", store="fake://there", le="+Inf") == 12
    assert 0 < (page("weir_store_seconds_sum", store="fake://there") or 0) < 10
    assert "hush" not in page.text()


@pytest.mark.parametrize("remote", [False, True])
def test_limits_that_each_decide_for_themselves_each_count(remote: bool) -> None:
    """EACH charges those that have room though another denies: so they have allowed it."""
    store = InstrumentedStorage(Remote(), Table()) if remote else Table()
    page = Page(store)
    hour = parse("100/hour")
    for _ in range(12):
        store.decide([MINUTE, hour], ["10.0.0.1/a", "10.0.0.1/b"], None, EACH)
    assert page("weir_decisions_total", limit=LABEL, verdict="allowed") == 10
    assert page("weir_decisions_total", limit=LABEL, verdict="denied") == 2
    assert page("weir_decisions_total", limit=str(hour), verdict="allowed") == 12
    assert page("weir_decisions_total", limit=str(hour), verdict="denied") == 0


def test_each_answer_is_in_the_class_of_its_time() -> None:
    meters = StoreMeters(Table(), "fake://there")
    for seconds in (0.00005, 0.0001, 0.0002, 0.3, 7.0, -0.1):
        meters.answered(seconds)
    seen = meters.read()
    assert len(seen.answers) == len(BOUNDS) + 1
    assert seen.answers[0] == 3
    assert seen.answers[1] == 1
    assert seen.answers[BOUNDS.index(0.5)] == 1
    assert seen.answers[-1] == 1
    assert seen.seconds == pytest.approx(7.30035)


def away(error: Exception) -> StorageError:
    failed = StorageError(f"fake://there: {error}")
    failed.__cause__ = error
    return failed


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (away(TimeoutError("no answer within 0.25 s")), "timeout"),
        (away(ConnectionRefusedError("refused")), "connection"),
        (away(OSError("no route to host")), "connection"),
        (away(ValueError("-ERR unknown command")), "answer"),
        (StorageError("fake://there: OOM command not allowed"), "answer"),
    ],
)
def test_failures_are_counted_by_their_kind(error: Exception, kind: str) -> None:
    remote = Remote()
    instrumented = InstrumentedStorage(remote, Table())
    remote.error = error
    page = Page(instrumented)
    with pytest.raises(StorageError):
        instrumented.decide([MINUTE], "10.0.0.1")
    assert kind_of(error) == kind
    assert page("weir_store_errors_total", store="fake://there", kind=kind) == 1
    assert sum(instrumented.meters.read().errors.values()) == 1
    assert page("weir_store_seconds_count", store="fake://there") == 0


@pytest.mark.parametrize("policy", ["open", "closed", "local"])
def test_a_fallback_shows_until_the_store_is_back(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = stop_clock(monkeypatch, 1_700_000_000.0)
    monkeypatch.setattr("weir.stores.failover.monotonic", clock)
    remote = Remote()
    table = Table()
    instrumented = InstrumentedStorage(remote, table)
    failover = FailoverStorage(instrumented, policy, table)
    page = Page(instrumented)
    remote.error = away(TimeoutError("no answer"))
    for _ in range(12):
        failover.decide([MINUTE], "10.0.0.1")
    assert page("weir_fallback_active") == 1
    allowed = {"open": 12, "closed": 0, "local": 10}[policy]
    assert page("weir_decisions_total", limit=LABEL, verdict="allowed") == allowed
    assert page("weir_decisions_total", limit=LABEL, verdict="denied") == 12 - allowed
    clock.now += 2
    remote.error = None
    failover.decide([MINUTE], "10.0.0.1")
    assert page("weir_fallback_active") == 0
    clock.now += 2
    remote.error = away(TimeoutError("no answer"))
    failover.decide([MINUTE], "10.0.0.1")
    assert page("weir_fallback_active") == 1
    clock.now += 301
    assert page("weir_fallback_active") == 0, "no request for minutes: unknown"


@pytest.mark.parametrize("policy", ["raise", "open", "closed", "local"])
def test_rules_hold_whatever_the_store_does(policy: str) -> None:
    remote = Remote()
    table = Table()
    instrumented = InstrumentedStorage(remote, table)
    store = instrumented if policy == "raise" else FailoverStorage(instrumented, policy, table)
    instrumented.block("192.0.2.0/24")
    instrumented.allow("198.51.100.1")
    for error in (None, away(TimeoutError("no answer"))):
        remote.error = error
        if error is None or policy != "raise":
            blocked = store.decide([MINUTE], "192.0.2.7")
            assert (blocked.allowed, blocked.rule) == (False, "block")
            for _ in range(12):
                through = store.decide([MINUTE], "198.51.100.1")
            assert (through.allowed, through.rule) == (True, "allow")
    assert instrumented.unlist("192.0.2.0/24")
    assert not instrumented.unlist("192.0.2.0/24")
    remote.error = None
    assert instrumented.decide([MINUTE], "192.0.2.7").allowed


def test_a_custom_store_needs_only_decide() -> None:
    """A store without statistics: the metrics are counted from its verdicts."""

    class Never(Storage):
        def decide(self, limits: Any, *rest: Any) -> Decision:
            return Decision([Verdict(False, 1, 0, 2.0, 1.0, 0.0) for _ in limits], 0, 1.0)

        def clear(self, limits: Any, keys: Any, /) -> None:
            pass

    instrumented = InstrumentedStorage(Never(), Table())
    assert not instrumented.decide([MINUTE], "10.0.0.1").allowed
    assert Page(instrumented)("weir_decisions_total", limit=LABEL, verdict="denied") == 1
    assert instrumented.name == "Never"
