"""The behaviour that all stores share; each test runs on every store."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import weir
from weir import EACH, HIT, REFUND, TEST, Limit, Peek, Table, Verdict

pytestmark = pytest.mark.slow

STRATEGIES = list(weir.strategies.STRATEGIES)
LARGEST = 2**63 - 1


def limit(text: str, strategy: str = "fixed-window", max_delay: float = 0.0) -> Limit:
    item = weir.parse(text).replace(strategy=strategy)
    return item.replace(max_delay=max_delay) if strategy == "leaky-bucket" else item


def spacing(item: Limit) -> float:
    """Seconds between admitted hits: a leaky bucket without a wait admits them one by one."""
    return item.get_expiry() / item.amount if item.strategy == "leaky-bucket" else 0.0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_exactly_the_limit_is_admitted(store: Any, clock: Any, key: str, strategy: str) -> None:
    item = limit("5 per hour", strategy)
    for n in range(5):
        verdict = store.decide([item], [key])[0]
        assert verdict.allowed
        assert verdict.limit == 5
        if strategy != "leaky-bucket":
            assert verdict.remaining == 4 - n
        if n < 4:
            clock.move(spacing(item))
    denied = store.decide([item], [key])
    assert not denied.allowed
    assert denied[0].remaining == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_retry_after_is_exact(store: Any, clock: Any, key: str, strategy: str) -> None:
    item = limit("3 per 10 seconds", strategy)
    passed = 0
    for _ in range(40):
        verdict = store.decide([item], [key])[0]
        if verdict.allowed:
            passed += 1
            clock.move(0.7)
            continue
        start = clock.now
        wait = round(verdict.retry_after * 1e6)
        clock.set((round(start * 1e6) + wait - 1) / 1e6)
        assert not store.decide([item], [key], None, TEST).allowed
        clock.set((round(start * 1e6) + wait) / 1e6)
        assert store.decide([item], [key], None, TEST).allowed
    assert passed >= 15


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cost_is_charged_at_once(store: Any, clock: Any, key: str, strategy: str) -> None:
    item = limit("10 per minute", strategy)
    assert store.decide([item], [key], [7]).allowed
    again = store.decide([item], [key], [4])[0]
    assert not again.allowed
    assert 0 < again.retry_after <= 120
    assert not store.decide([item], [key], [11])[0].allowed
    assert store.decide([item], [key], [11])[0].retry_after == math.inf
    assert store.decide([item], [key], [0])[0].allowed


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_test_charges_nothing(store: Any, clock: Any, key: str, strategy: str) -> None:
    item = limit("2 per minute", strategy)
    for _ in range(5):
        assert store.decide([item], [key], None, TEST).allowed
    assert store.decide([item], [key]).allowed


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_refund_gives_back_and_never_above_full(
    store: Any, clock: Any, key: str, strategy: str
) -> None:
    item = limit("10 per minute", strategy)
    store.decide([item], [key], [8])
    back = store.decide([item], [key], [3], REFUND)
    assert back.allowed
    store.decide([item], [key], [LARGEST], REFUND)
    full = store.decide([item], [key], [0], TEST)[0]
    assert full.remaining == (1 if strategy == "leaky-bucket" else 10)
    assert store.decide([item], [key], [10]).allowed


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_clear_removes_one_counter(store: Any, clock: Any, key: str, strategy: str) -> None:
    item = limit("1 per minute", strategy)
    for name in (key, f"{key}-other"):
        assert store.decide([item], [name]).allowed
        assert not store.decide([item], [name]).allowed
    store.clear([item], [key])
    store.clear([item], [key])
    assert store.decide([item], [key]).allowed
    assert not store.decide([item], [f"{key}-other"]).allowed


def test_all_or_nothing(store: Any, clock: Any, key: str) -> None:
    """If one limit denies, no limit is charged."""
    items = [limit("10 per minute", strategy) for strategy in STRATEGIES[:4]]
    tight = limit("1 per hour")
    group = [*items, tight]
    assert store.decide(group, [key] * 5).allowed
    clock.move(0.5)
    denied = store.decide(group, [key] * 5)
    assert not denied.allowed
    assert denied.deciding == 4
    assert [verdict.allowed for verdict in denied] == [True] * 4 + [False]
    for verdict in store.decide(items, [key] * 4, [0] * 4, TEST):
        assert verdict.remaining >= 9


def test_all_or_nothing_over_many_keys(store: Any, clock: Any, key: str) -> None:
    """The same for unrelated keys: in a Cluster, they have several slots."""
    item, tight = limit("10 per minute"), limit("1 per hour")
    names = [f"{key}-{i}" for i in range(6)]
    group = [item] * 5 + [tight]
    assert store.decide(group, names).allowed
    denied = store.decide(group, names)
    assert [verdict.allowed for verdict in denied] == [True] * 5 + [False]
    assert denied.deciding == 5
    assert [verdict.remaining for verdict in denied] == [9] * 5 + [0]
    assert [v.remaining for v in store.decide(group, names, [0] * 6, TEST)] == [9] * 5 + [0]


def test_each_charges_what_has_room(store: Any, clock: Any, key: str) -> None:
    wide, tight = limit("10 per minute"), limit("1 per hour", "moving-window")
    assert store.decide([wide, tight], [key] * 2, None, EACH).allowed
    assert not store.decide([wide, tight], [key] * 2, None, EACH).allowed
    peeked = store.decide([wide, tight], [key] * 2, [0, 0], TEST)
    assert [verdict.remaining for verdict in peeked] == [8, 0]


def test_one_counter_twice_in_a_decision(store: Any, clock: Any, key: str) -> None:
    for strategy in STRATEGIES[:4]:
        item = limit("5 per minute", strategy)
        assert store.decide([item, item], [key] * 2, [2, 2]).allowed
        tested = store.decide([item, item], [key] * 2, [1, 1], TEST)
        assert [verdict.allowed for verdict in tested] == [True, False]
        assert not store.decide([item, item], [key] * 2, [1, 1]).allowed
        assert store.decide([item], [key], [1]).allowed


def test_the_furthest_denial_decides_else_the_shortest_period(
    store: Any, clock: Any, key: str
) -> None:
    items = [limit("1 per minute"), limit("1 per day"), limit("1 per hour")]
    assert store.decide(items, [key] * 3).deciding == 0
    assert store.decide(items, [key] * 3).deciding == 1


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a b",
        "a\r\nb",
        b"\x00\xff\xfe",
        "größe/☃",
        "{}",
        "}{",
        "{a}b/{c}",
        "a" * 300,
        "x" * 1_000_000,
        "%00",
        "*?[a]",
    ],
    ids=lambda key: repr(key[:12]),
)
@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window"])
def test_any_bytes_are_a_key(store: Any, clock: Any, key: str | bytes, strategy: str) -> None:
    item = limit("2 per minute", strategy)
    other = limit("2 per hour", strategy)
    store.clear([item], [key])
    store.clear([other], [key])
    assert [store.decide([item], [key]).allowed for _ in range(3)] == [True, True, False]
    assert store.decide([other], [key]).allowed
    store.clear([item], [key])
    assert store.decide([item], [key]).allowed
    store.clear([item], [key])
    store.clear([other], [key])


def test_counters_are_distinguished(store: Any, clock: Any, key: str) -> None:
    """By strategy, amount, period, burst and namespace."""
    items = [
        limit("1 per minute"),
        limit("1 per hour"),
        limit("2 per minute"),
        *(limit("1 per minute", strategy) for strategy in STRATEGIES[1:]),
        weir.parse("1 per minute burst 2"),
        limit("1 per minute").replace(namespace="OTHER"),
    ]
    for item in items:
        assert store.decide([item], [key])[0].remaining == item.amount - 1 + bool(item.burst)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_largest_numbers(store: Any, clock: Any, key: str, strategy: str) -> None:
    item = Limit(LARGEST, 100, "year", strategy=strategy)
    first = store.decide([item], [key], [LARGEST - 5])[0]
    assert first.allowed
    if strategy == "leaky-bucket":
        return
    assert first.remaining == 5
    assert not store.decide([item], [key], [6]).allowed
    assert store.decide([item], [key], [5])[0].remaining == 0


def test_an_amount_of_zero_denies(store: Any, clock: Any, key: str) -> None:
    for strategy in STRATEGIES:
        item = limit("0 per minute", strategy)
        denied = store.decide([item], [key])[0]
        assert not denied.allowed
        assert denied.retry_after == math.inf
        assert store.decide([item], [key], [0]).allowed


def test_thirty_two_limits(store: Any, clock: Any, key: str) -> None:
    items = [limit(f"{n} per minute", STRATEGIES[n % 4]) for n in range(1, 33)]
    assert store.decide(items, [key] * 32).allowed
    denied = store.decide(items, [key] * 32)
    assert [verdict.allowed for verdict in denied] == [False] + [True] * 31
    with pytest.raises(ValueError, match="32"):
        store.decide([*items, items[0]], [key] * 33)


def test_wrong_arguments(store: Any, clock: Any, key: str) -> None:
    item = limit("1 per minute")
    with pytest.raises(TypeError):
        store.decide(["1 per minute"], [key])
    with pytest.raises(TypeError):
        store.decide([item], [7])
    with pytest.raises(ValueError, match="length"):
        store.decide([item], [key, key])
    with pytest.raises(ValueError, match="cost"):
        store.decide([item], [key], [-1])
    with pytest.raises(ValueError, match="mode"):
        store.decide([item], [key], None, 7)


def test_check_succeeds(store: Any) -> None:
    assert store.check()


def test_a_limiter_uses_it(store: Any, clock: Any, key: str) -> None:
    limiter = weir.RateLimiter(store, "moving-window")
    item = weir.parse("2 per minute")
    assert [limiter.hit(item, key, "view") for _ in range(3)] == [True, True, False]
    stats = limiter.get_window_stats(item, key, "view")
    assert stats.remaining == 0
    assert stats.reset_time == clock.now + 60
    limiter.clear(item, key, "view")
    assert limiter.test(item, key, "view")


# ------------------------------------------------------------------- compared with the local store


def timelines() -> Iterator[Any]:
    text = (Path(__file__).parents[2] / "timelines.txt").read_text()
    head, lines = "", list[str]()
    for line in [*text.splitlines(), "= "]:
        if line.startswith("= "):
            # A float can represent each microsecond until 2106.
            if head and all(int(line.split()[0]) < 2**32 * 10**9 for line in lines):
                yield head, lines
            head, lines = line[2:], []
        elif line.strip() and not line.startswith("#"):
            lines.append(line)


TIMELINES = list(timelines())
MODES = {"hit": HIT, "test": TEST, "refund": REFUND, "each": EACH}


def in_seconds(ns: int) -> float:
    return math.inf if ns == LARGEST else -(-ns // 1000) / 1e6


def same(a: Verdict, b: Verdict) -> bool:
    """Equal, except for the last bit of floats that are too large to represent microseconds.

    Redis computes microseconds as doubles: there, a wait of more than 2^53 of them, 285 years, is
    infinite.
    """
    times = zip((a.reset_at, a.retry_after), (b.reset_at, b.retry_after), strict=True)
    alike = all(
        x == y or (min(x, y) > 2**32 and abs(x - y) < 3e-6) or min(x, y) > 2**53 / 1e6
        for x, y in times
    )
    return alike and a == b._replace(reset_at=a.reset_at, retry_after=a.retry_after)


def test_timelines(store: Any, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """The timelines of the C tests, with times rounded down to microseconds.

    If no time needs rounding, the verdicts are those of the file; otherwise those of the local
    store at the same times.
    """
    table = Table("memory://?keys=4096")
    for n, (head, lines) in enumerate(TIMELINES):
        strategy, text, delay, _ = (part.strip() for part in head.split("|"))
        item = limit(text, strategy)
        if strategy == "leaky-bucket":
            item = item.replace(max_delay=min(int(delay) // 1000 / 1e6, item.get_expiry()))
        if strategy == "calendar-window":
            item, delay = item.replace(tz=delay), "0"
        whole = all(int(line.split()[0]) % 1000 == 0 for line in lines) and int(delay) % 1000 == 0
        name = f"{key}/{n}"
        for line in lines:
            request, _, answer = line.partition(" -> ")
            now, op, cost = request.split()
            seconds = int(now) // 1000 / 1e6
            monkeypatch.setattr(time, "time", lambda seconds=seconds: seconds)
            if not isinstance(store, Table):
                store.set_clock(seconds, True)
            got = store.decide([item], [name], [int(cost)], MODES[op])[0]
            local = table.decide([item], [name], [int(cost)], MODES[op])[0]
            assert same(got, local), (head, line)
            if whole:
                allowed, remaining, *times = (int(word) for word in answer.split())
                reset, retry, wait = (in_seconds(time) for time in times)
                want = Verdict(bool(allowed), got.limit, remaining, reset, retry, wait)
                assert same(got, want), (head, line)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_peeked_limits(store: Any, clock: Any, key: str, strategy: str) -> None:
    """They are not charged, and if one denies, nothing is charged."""
    peeked = limit("2 per minute", strategy, max_delay=50.0)
    counted = Limit(100, 1, "hour", strategy="fixed-window")
    for _ in range(2):
        decision = store.decide([peeked, counted], key, [Peek(1), 1])
        assert decision.allowed
        assert decision[0].remaining == 2
    assert [verdict.remaining for verdict in decision] == [2, 98]
    assert store.decide([peeked], key, [Peek(1)]).allowed
    assert store.decide([peeked], key, [2]).allowed
    denied = store.decide([peeked, counted], key, [Peek(1), 1])
    assert [verdict.allowed for verdict in denied] == [False, True]
    assert (denied.allowed, denied.deciding) == (False, 0)
    assert 0 < denied[0].retry_after <= 120
    assert denied[1].remaining == 98
    assert not store.decide([peeked], key, [Peek(1)]).allowed
    # In mode EACH; and a refund does not change a peeked limit.
    assert [v.allowed for v in store.decide([peeked, counted], key, [Peek(1), 1], EACH)] == [
        False,
        True,
    ]
    store.decide([peeked, counted], key, [Peek(1), 1], REFUND)
    left = store.decide([peeked, counted], key, [0, 0], TEST)
    assert [verdict.remaining for verdict in left] == [0, 98]
    # If the second limit denies, the peeked first one is not charged.
    assert not store.decide([counted, peeked], key, [Peek(5), 1]).allowed
    assert store.decide([counted], key, [0])[0].remaining == 98


def random_limit(rng: random.Random) -> Limit:
    amount = rng.choice([0, 1, 2, 3, 5, 7, 10, 100, 1000, 10**6, 2**31, 2**50, LARGEST])
    strategy = rng.choice(STRATEGIES)
    item = Limit(
        amount,
        rng.choice([1, 1, 1, 2, 7]),
        rng.choice(["second", "minute", "hour", "day", "month"]),
        strategy=strategy,
        burst=rng.choice([None, 1, 20, 10**9]) if strategy == "token-bucket" else None,
    )
    if strategy == "leaky-bucket":
        item = item.replace(max_delay=rng.choice([0.0, 0.5, item.get_expiry() / 3]))
    return item


def random_step(rng: random.Random, item: Limit) -> int:
    """Microseconds between two requests."""
    period = item.get_expiry() * 10**6
    kind = rng.random()
    if kind < 0.3:
        return 0
    if kind < 0.6:
        return rng.randrange(10**6)
    if kind < 0.85:
        return rng.randrange(period // 50 + 1)
    if kind < 0.93:
        return rng.choice([period, 2 * period, rng.randrange(period)])
    return -rng.choice([rng.randrange(10**5), rng.randrange(period)])


def test_random_requests_match_the_local_store(
    store: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The same requests at the same times get the same verdicts, with several limits at once.

    Memcached decides limits one after the other and stops at the first denial. So on Memcached no
    counter occurs twice in a request, and the clock does not step back.
    """
    if isinstance(store, Table):
        pytest.skip("this is the local store")
    one_by_one = type(store).__name__ == "MemcachedStorage"
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for run in range(40):
        table = Table("memory://?keys=65536")  # large enough that no bucket is full
        items = [random_limit(rng) for _ in range(rng.randint(1, 4))]
        now = 1_700_000_000_000_000
        for _ in range(rng.randint(5, 40)):
            step = random_step(rng, rng.choice(items))
            now = max(0, min(now + (abs(step) if one_by_one else step), 4_200_000_000_000_000))
            monkeypatch.setattr(time, "time", lambda now=now: now / 1e6)
            store.set_clock(now / 1e6, True)
            limits = [rng.choice(items) for _ in range(rng.choice([1, 1, 2, 4]))]
            limits = list(dict.fromkeys(limits)) if one_by_one else limits
            costs = [
                min(LARGEST, rng.choice([0, 1, 1, 1, 2, a // 2, a, a + 1, LARGEST]))
                for a in ((item.burst or item.amount) for item in limits)
            ]
            costs = [Peek(cost) if rng.random() < 0.25 else cost for cost in costs]
            mode = rng.choice([HIT] * 6 + [TEST, EACH, REFUND])
            names = [f"{key}/{run}"] * len(limits)
            got = store.decide(limits, names, costs, mode)
            want = table.decide(limits, names, costs, mode)
            alike = all(same(a, b) for a, b in zip(got, want, strict=True))
            assert alike, (seed, run, now, mode, limits, costs)
            assert got.allowed == want.allowed
            # Two denials may end in the same microsecond, the resolution of servers.
            tie = got[got.deciding].retry_after == got[want.deciding].retry_after
            assert got.deciding == want.deciding or tie, (seed, run, now, mode, limits, costs)
