"""Breaches as events: the first of a window, one summary, the exact count over all processes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import freezegun
import pytest

from clocks import Clock, stop_clock
from weir import Limit, Table, audit, parse, unlink
from weir._text import NAME_MAX, printable
from weir.audit import KEYS_MAX, SPAN, WINDOWS, Audit, Breach

T0 = 1_700_000_000.25


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stop_clock(monkeypatch, T0)


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """What is logged, each line read as JSON."""
    lines: list[dict[str, Any]] = []

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            assert "\n" not in text
            event = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
            assert event == record.event  # type: ignore[attr-defined]
            lines.append(event)

    handler = Reader()
    audit.logger.addHandler(handler)
    audit.logger.propagate = False
    yield lines
    audit.logger.removeHandler(handler)
    audit.logger.propagate = True


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No summaries of an earlier test."""
    yield
    for known in list(audit._audits):
        known._reset()


MINUTE = parse("10/minute")


def breach(audit: Audit, key: str = "10.0.0.1", limit: Limit = MINUTE, **other: Any) -> None:
    about: dict[str, Any] = {
        "time": time.time(),
        "limit": str(limit),
        "scope": "login",
        "endpoint": "login",
        "key": audit.name_of(key),
        "cost": 1,
        "remaining": 0,
        "retry_after": 59.75,
        "shadow": False,
        "store": "memory://",
        **other,
    }
    audit.note(Breach(**about), limit, f"{key}/login")


def test_the_first_breach_is_logged_and_one_summary(clock: Clock, events: list[Any]) -> None:
    audit = Audit(Table())
    for _ in range(1000):
        breach(audit)
    assert events == [
        {
            "event": "breach",
            "time": "2023-11-14T22:13:20.250000Z",
            "limit": "10 per 1 minute",
            "scope": "login",
            "endpoint": "login",
            "key": "10.0.0.1",
            "cost": 1,
            "remaining": 0,
            "retry_after": 59.75,
            "shadow": False,
            "store": "memory://",
            "rule": "",
        }
    ]
    clock.now += 59.9
    assert audit.flush() == pytest.approx(T0 + 60)
    assert len(events) == 1, "the window has not ended"
    clock.now += 0.2
    assert audit.flush() is None
    assert events[1:] == [
        {
            "event": "summary",
            "time": "2023-11-14T22:14:20.350000Z",
            "limit": "10 per 1 minute",
            "scope": "login",
            "endpoint": "login",
            "key": "10.0.0.1",
            "shadow": False,
            "store": "memory://",
            "count": 1000,
            "since": "2023-11-14T22:13:20.250000Z",
            "until": "2023-11-14T22:14:20.250000Z",
        }
    ]
    audit.flush()
    audit.close()
    assert len(events) == 2, "reported once"


def test_the_next_window_is_reported_again(clock: Clock, events: list[Any]) -> None:
    audit = Audit(Table())
    breach(audit)
    clock.now += 61
    breach(audit)
    breach(audit)
    clock.now += 61
    audit.flush()
    assert [(e["event"], e.get("count")) for e in events] == [
        ("breach", None),
        ("summary", 1),
        ("breach", None),
        ("summary", 2),
    ], "the summary comes with the next event at the latest"


def test_each_limit_and_key_is_its_own(clock: Clock, events: list[Any]) -> None:
    audit = Audit(Table())
    for key in ("10.0.0.1", "10.0.0.2"):
        for limit in (MINUTE, parse("20/hour")):
            for shadow in (False, True):
                breach(audit, key, limit, shadow=shadow)
                breach(audit, key, limit, shadow=shadow)
    assert len(events) == 8
    assert len({(e["key"], e["limit"], e["shadow"]) for e in events}) == 8


def test_a_key_that_goes_on_for_hours_fills_no_log(clock: Clock, events: list[Any]) -> None:
    audit = Audit(Table())
    second = parse("5/second")
    total = 0
    while clock.now < T0 + 3600:
        breach(audit, limit=second)
        total += 1
        clock.now += 0.7
    spans = 3600 / SPAN
    assert len(events) <= (2 * WINDOWS + 1) * (spans + 1)
    clock.now += 2 * SPAN
    audit.flush()
    assert sum(e["count"] for e in events if e["event"] == "summary") == total, "none is lost"


def test_many_keys_fill_neither_memory_nor_log(clock: Clock, events: list[Any]) -> None:
    audit = Audit(Table("memory://?keys=100000"))
    for i in range(KEYS_MAX + 500):
        breach(audit, f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}")
    assert len(events) == KEYS_MAX + 1
    assert events[-1]["key"] is None
    assert len(audit._windows) <= KEYS_MAX + 1
    clock.now += 61
    audit.flush()
    rest = [e for e in events if e["event"] == "summary" and e["key"] is None]
    assert [e["count"] for e in rest] == [500]
    assert sum(e["count"] for e in events if e["event"] == "summary") == KEYS_MAX + 500
    assert not audit._windows
    assert not audit._due


def test_a_key_that_is_no_address_is_shown_as_its_hash(events: list[Any]) -> None:
    table = Table()
    hidden = Audit(table)
    assert hidden.name_of("192.0.2.7") == "192.0.2.7"
    assert hidden.name_of("2001:db8:1:2::/64") == "2001:db8:1:2::/64"
    name = hidden.name_of("k-secret")
    assert name.startswith("#")
    assert "secret" not in name
    assert name == hidden.name_of("k-secret") == Audit(table).name_of("k-secret")
    assert name != hidden.name_of("k-other")
    breach(hidden, "k-secret")
    assert "secret" not in json.dumps(events)
    assert Audit(table, reveal=True).name_of("k-secret") == "k-secret"


def test_hostile_keys_make_one_clean_line(clock: Clock, events: list[Any]) -> None:
    audit = Audit(Table(), reveal=True)
    for key in ('"}\n{"event": "breach"', "\x00\x1b[2J", "é漢\u2028", "x" * 5000, "\udc80"):
        breach(audit, key)
        # The handler has checked that it is one line of JSON.
        assert events[-1]["key"] == printable(key)
        assert len(events[-1]["key"]) <= NAME_MAX
    assert len(events) == 5


def test_a_table_that_fails_costs_no_request(
    events: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    table = Table()
    audit = Audit(table)
    table.close()
    breach(audit, retry_after=float("inf"))
    breach(audit)
    audit.flush()
    audit.close()
    assert [e["retry_after"] for e in events] == [None], "reported once, uncounted"
    assert len([r for r in caplog.records if r.name == "weir"]) == 1


@pytest.mark.parametrize("off", ["level", "no handler"])
def test_nothing_is_counted_for_a_disabled_logger(clock: Clock, off: str) -> None:
    table = Table()
    quiet = Audit(table)
    if off == "level":
        audit.logger.setLevel(logging.CRITICAL)
    else:
        audit.logger.propagate = False
    try:
        breach(quiet)
    finally:
        audit.logger.setLevel(logging.INFO)
        audit.logger.propagate = True
    assert table.info()["keys"] == 0
    assert not quiet._windows


# ----------------------------------------------------------------------------------- processes


@pytest.fixture
def shared() -> Iterator[str]:
    uri = f"shm://test-audit-{uuid.uuid4()}"
    yield uri
    unlink(uri)


def log_to(path: Path) -> None:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(message)s"))
    audit.logger.handlers = [handler]
    audit.logger.propagate = False


def in_processes(work: Callable[[int], None], number: int) -> list[int]:
    """Runs ``work`` in forked processes that end as a server's workers do; their exit codes."""
    context = multiprocessing.get_context("fork")

    def run(i: int) -> None:
        work(i)
        audit._at_exit()

    processes = [context.Process(target=run, args=(i,)) for i in range(number)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    return [-1 if process.exitcode is None else process.exitcode for process in processes]


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_line_and_one_summary_of_all_processes(shared: str, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    table = Table(shared)
    parent = Audit(table)
    hour = parse("10/hour")

    def work(i: int) -> None:
        log_to(log)
        for _ in range(500):
            breach(parent, limit=hour)

    assert in_processes(work, 4) == [0] * 4
    lines = read(log)
    assert [line["event"] for line in lines] == ["breach", "summary"] or [
        line["event"] for line in lines if line["event"] == "breach"
    ] == ["breach"]
    assert sum(line["count"] for line in lines if line["event"] == "summary") == 2000


def test_windows_that_end_under_load_lose_no_breach(shared: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("WEIR_SEED", time.time_ns()))
    print(f"WEIR_SEED={seed}")
    log = tmp_path / "audit.log"
    ours = Audit(Table(shared))
    second = parse("5/second")
    total = 4 * 3 * 3000

    def work(i: int) -> None:
        log_to(log)
        dice = random.Random(seed + i)

        def hammer() -> None:
            for _ in range(3000):
                breach(ours, f"10.0.0.{dice.randrange(3)}", limit=second)
                if dice.random() < 0.01:
                    time.sleep(0.01)

        threads = [threading.Thread(target=hammer) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert in_processes(work, 4) == [0] * 4
    lines = read(log)
    assert sum(line["count"] for line in lines if line["event"] == "summary") == total
    assert [line["event"] for line in lines].count("breach") <= 3 * WINDOWS
    # Of each window and of the rest of the span one summary, and at most two more by each process:
    # of a breach that came late, and of those after which no other process was there.
    assert len(lines) <= 3 * (WINDOWS + (WINDOWS + 1) * (1 + 2 * 4)), lines


def test_all_processes_write_one_line_and_one_summary_of_each_window(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still while they count, and moves on while none does."""
    log, processes, keys, windows = tmp_path / "audit.log", 4, 3, WINDOWS + 3
    context = multiprocessing.get_context("fork")
    now = context.Value("d", T0)
    monkeypatch.setattr(time, "time", lambda: now.value)
    together = context.Barrier(processes)
    ours = Audit(Table(shared))
    second = parse("5/second")

    def work(i: int) -> None:
        log_to(log)
        for window in range(windows):
            for n in range(100 * keys):
                breach(ours, f"10.0.0.{n % keys}", limit=second)
            if together.wait(120) == 0 and window < windows - 1:
                now.value += 1.1
            together.wait(120)

    assert in_processes(work, processes) == [0] * processes
    lines = read(log)
    for key in {f"10.0.0.{n}" for n in range(keys)}:
        events = [line["event"] for line in lines if line["key"] == key]
        counts = [line["count"] for line in lines if line["key"] == key and "count" in line]
        assert events.count("breach") == WINDOWS
        # Each window that is reported, and the rest of the span.
        assert sorted(counts) == [100 * processes] * WINDOWS + [
            100 * processes * (windows - WINDOWS)
        ]
    assert len(lines) == keys * (2 * WINDOWS + 1)


def test_another_process_reports_the_window_of_a_killed_one(shared: str, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    ours = Audit(Table(shared))
    counted = multiprocessing.get_context("fork").Event()
    hour = parse("10/hour")

    def work(i: int) -> None:
        log_to(log)
        if i == 0:
            for _ in range(100):
                breach(ours, limit=hour)
            counted.set()
            os.kill(os.getpid(), signal.SIGKILL)
        assert counted.wait(120)
        breach(ours, limit=hour)
        window = next(iter(ours._windows.values()))
        window.end = 0.0  # as if the hour had passed
        ours._due = [(0.0, 0, window)]
        ours.flush()

    assert in_processes(work, 2) == [-signal.SIGKILL, 0]
    assert [(line["event"], line.get("count")) for line in read(log)] == [
        ("breach", None),
        ("summary", 101),
    ]


def test_a_summary_comes_by_itself(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"

    def work(i: int) -> None:
        log_to(log)
        ours = Audit(Table())
        for _ in range(5):
            breach(ours, limit=parse("1/second"))
        deadline = time.monotonic() + 120
        while len(log.read_text().splitlines()) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)

    assert in_processes(work, 1) == [0]
    lines = read(log)
    assert [line["event"] for line in lines[:2]] == ["breach", "summary"]
    assert sum(line.get("count", 0) for line in lines) == 5


def test_a_process_that_ends_lets_its_thread_write_the_summary(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"

    def work(i: int) -> None:
        log_to(log)
        ours: Any = Audit(Table())
        report, begun = ours._report, threading.Event()

        def slowly(window: Any) -> None:
            begun.set()
            time.sleep(0.3)  # the process ends meanwhile
            report(window)

        ours._report = slowly
        for _ in range(5):
            breach(ours, limit=parse("1/second"))
        assert begun.wait(120)

    assert in_processes(work, 1) == [0]
    assert [line["event"] for line in read(log)] == ["breach", "summary"]


def test_a_clock_that_tests_hold_still_ends_no_window(events: list[Any]) -> None:
    # The summary thread uses another clock than the test.
    ours = Audit(Table())
    with freezegun.freeze_time("2012-01-14 12:00:00") as frozen:
        for _ in range(50):
            for _ in range(20):
                breach(ours)
            threading.Event().wait(0.002)  # a turn for the thread
        assert [line["event"] for line in events] == ["breach"]
        frozen.tick(61)
        ours.flush()
        assert [line.get("count") for line in events] == [None, 1000]
