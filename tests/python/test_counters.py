"""The storage interface of ``limits`` over Weir's stores, and as a storage of the real package."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import limits
import limits.aio.strategies
import limits.storage
import limits.strategies
import pytest

import weir
import weir.for_limits
import weir.storage
from clocks import Clock, stop_clock
from weir.counters import Counters

NOW = 1_000_000_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stop_clock(monkeypatch, NOW)


@pytest.fixture
def table() -> weir.Table:
    return weir.Table("memory://?keys=1000")


@pytest.fixture
def counters(table: weir.Table) -> Counters:
    return Counters(table)


@pytest.mark.parametrize("key", ["bare", "a/b", "LIMITER/alice/2/1/minute", "x/1/1/fortnight", "é"])
def test_a_counter_counts_until_its_window_ends(counters: Counters, key: str, clock: Clock) -> None:
    expiry = 60
    assert counters.get(key) == 0
    assert counters.get_expiry(key) == NOW
    assert [counters.incr(key, expiry) for _ in range(2)] == [1, 2]
    assert counters.get(key) == 2
    assert counters.get_expiry(key) == NOW + 60
    assert counters.decr(key) == 1
    clock.now += 60
    assert counters.get(key) == 0
    assert counters.incr(key, expiry, 2) == 2
    counters.clear(key)
    assert counters.get(key) == 0


def test_another_process_finds_what_a_bare_key_counts(table: weir.Table) -> None:
    Counters(table).incr("bare", 37, 5)
    assert Counters(table).get("bare") == 5
    Counters(table).acquire_sliding_window_entry("bare", 10, 60, 4)
    assert Counters(table).get_sliding_window("bare", 60)[2] == 4


def test_the_expiry_of_an_open_window_stays(counters: Counters, clock: Clock) -> None:
    counters.incr("bare", 60)
    assert counters.incr("bare", 10) == 2
    assert counters.get_expiry("bare") == NOW + 60
    clock.now += 61
    assert counters.incr("bare", 10) == 1
    assert counters.get_expiry("bare") == NOW + 71


def test_an_items_key_is_the_items_counter(table: weir.Table, counters: Counters) -> None:
    limiter = weir.RateLimiter(table)
    item = weir.parse("3/minute")
    key = item.key_for("alice", "a/b")
    assert limiter.hit(item, "alice", "a/b")
    assert counters.get(key) == 1
    assert counters.incr(key, 60) == 2
    assert limiter.get_window_stats(item, "alice", "a/b").remaining == 1
    assert [counters.incr(key, 60) for _ in range(3)] == [3, 4, 4]
    counters.clear(key)
    assert limiter.hit(item, "alice", "a/b", cost=3)


def test_clear_removes_counters_of_every_strategy(table: weir.Table, counters: Counters) -> None:
    for key in ("bare", "LIMITER/a/2/1/minute"):
        counters.incr(key, 60)
        assert counters.acquire_entry(key, 2, 60, 2)
        assert not counters.acquire_entry(key, 2, 60)
        assert counters.acquire_sliding_window_entry(key, 2, 60, 2)
        assert not counters.acquire_sliding_window_entry(key, 2, 60)
        counters.clear(key)
        assert counters.get(key) == 0
        assert counters.acquire_entry(key, 2, 60, 2)
        assert counters.acquire_sliding_window_entry(key, 2, 60, 2)
        counters.clear_sliding_window(key, 60)
        assert counters.acquire_sliding_window_entry(key, 2, 60, 2)


@pytest.mark.parametrize("of", ["theirs", "ours"])
def test_reset_returns_the_number_of_keys_of_any_form(of: str) -> None:
    """Values that Weir keeps beside counters are not counted."""
    storage: Any = (limits.storage if of == "theirs" else weir.storage).MemoryStorage()
    for key in ("x", "y", "LIMITER/a/10/1/hour"):
        storage.incr(key, 60 if len(key) == 1 else 3600)
    storage.incr("x", 60)
    assert storage.reset() == 3
    assert storage.reset() == 0
    storage.incr("x", 60)
    storage.incr("z", 90)
    assert storage.reset() == 2


@pytest.mark.parametrize("uri", ["memory://", "memory://name", "memory:///x", "memory://u:p@h:1/x"])
@pytest.mark.parametrize("of", ["theirs", "ours"])
def test_any_text_after_memory_is_accepted(of: str, uri: str) -> None:
    """Each is a storage for itself."""
    module: Any = limits.storage if of == "theirs" else weir.storage
    first, second = (module.storage_from_string(uri) for _ in range(2))
    assert first.incr("x", 60) == 1
    assert second.get("x") == 0
    assert module.MemoryStorage(uri).get("x") == 0


def test_reset_returns_the_number_of_counters(counters: Counters) -> None:
    for i in range(3):
        counters.incr(f"LIMITER/{i}/9/1/minute", 60)
    assert counters.reset() == 3
    assert counters.reset() == 0


def test_moving_windows(counters: Counters, clock: Clock) -> None:
    assert counters.get_moving_window("m", 5, 60) == (NOW, 0)
    assert counters.acquire_entry("m", 5, 60, 2)
    clock.now += 10
    assert counters.acquire_entry("m", 5, 60)
    assert counters.get_moving_window("m", 5, 60) == (NOW, 3)


# --------------------------------------------------------------------------- in the real package

ITEMS = ["2/minute", "5 per 2 hour", "1/second", "3 per 7 day"]


@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window", "sliding-window-counter"])
@pytest.mark.parametrize("text", ITEMS)
def test_limiters_of_limits_answer_as_on_their_own_storage(
    strategy: str, text: str, clock: Clock
) -> None:
    kind = limits.strategies.STRATEGIES[strategy]
    name = f"weir+shm://test-{time.monotonic_ns()}"
    ours: Any = kind(limits.storage.storage_from_string(name))
    theirs = kind(limits.storage.MemoryStorage())
    try:
        item = limits.parse(text)
        period = item.get_expiry()
        for step in range(60):
            expected = ours.test(item, "alice")
            assert ours.hit(item, "alice") == expected, (step, clock.now)
            remaining = ours.get_window_stats(item, "alice").remaining
            if strategy != "sliding-window-counter":  # there ours rounds to the safe side
                assert theirs.hit(item, "alice") == expected, (step, clock.now)
                stats = theirs.get_window_stats(item, "alice")
                assert remaining == stats.remaining
                reset = ours.get_window_stats(item, "alice").reset_time
                assert reset == pytest.approx(stats.reset_time)
            clock.now += period * (0.13 if step % 7 else 0.51)
        ours.clear(item, "alice")
        assert ours.get_window_stats(item, "alice").remaining == item.amount
        assert ours.storage.check()
        assert isinstance(ours.storage.reset(), int)
    finally:
        weir.unlink(name.removeprefix("weir+"))


@pytest.mark.parametrize(
    "kind",
    [
        limits.aio.strategies.FixedWindowRateLimiter,
        limits.aio.strategies.MovingWindowRateLimiter,
        limits.aio.strategies.SlidingWindowCounterRateLimiter,
    ],
)
def test_limiters_of_limits_aio(kind: Any) -> None:
    name = f"weir+shm://test-{time.monotonic_ns()}"

    async def run() -> list[Any]:
        limiter = kind(limits.storage.storage_from_string(f"async+{name}", keys=100))
        item = limits.parse("3/day")
        answers = [await limiter.test(item, "a"), *[await limiter.hit(item, "a") for _ in range(4)]]
        stats = await limiter.get_window_stats(item, "a")
        await limiter.clear(item, "a")
        return [
            *answers,
            stats.remaining,
            await limiter.hit(item, "a"),
            await limiter.storage.check(),
        ]

    try:
        assert asyncio.run(run()) == [True, True, True, True, False, 0, True, True]
    finally:
        weir.unlink(name.removeprefix("weir+"))


def test_errors_are_those_of_limits() -> None:
    storage = limits.storage.storage_from_string(
        f"weir+shm://test-{time.monotonic_ns()}", wrap_exceptions=True
    )
    weir.unlink(storage._store.uri)  # type: ignore[union-attr]
    storage._store.close()  # type: ignore[union-attr]
    with pytest.raises(limits.errors.StorageError, match="closed"):
        storage.get("x")
    with pytest.raises(Exception, match="name"):
        limits.storage.storage_from_string("weir+shm://")


def test_a_clients_slashes_and_namespaces_are_apart(counters: Counters) -> None:
    keys = [
        "NS/a/9/1/hour",
        "NS/a/9/1/minute",
        "NS/a/8/1/minute",
        "NS/9/1/minute",
        "N/S/a/9/1/minute",
    ]
    for number, key in enumerate(keys, 1):
        counters.incr(key, 3600 if "hour" in key else 60, number)
    assert [counters.get(key) for key in keys] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "key", ["", "/", "//1/1/minute", "!own/a/1/1/minute", "LIMITER/a/1/0/minute", "x" * 10_000]
)
def test_odd_keys_count_too(counters: Counters, key: str) -> None:
    assert [counters.incr(key, 60) for _ in range(3)] == [1, 2, 3]
    assert counters.get(key) == 3
    counters.clear(key)
    assert counters.get(key) == 0
