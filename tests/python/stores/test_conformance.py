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
from weir.stores.memcached import MemcachedStorage
from weir.stores.mongodb import MongoDBStorage
from weir.testing import StoreConformance

pytestmark = pytest.mark.slow

STRATEGIES = list(weir.strategies.STRATEGIES)
LARGEST = 2**63 - 1


def limit(text: str, strategy: str = "fixed-window") -> Limit:
    item = weir.parse(text).replace(strategy=strategy)
    return item.replace(max_delay=0.0) if strategy == "leaky-bucket" else item


class TestStores(StoreConformance):
    """The suite of weir.testing, which custom stores pass as well."""

    @pytest.fixture
    def store(self, store: Any, servers: Any) -> Any:
        if isinstance(store, MongoDBStorage):
            self.threads = servers.mongodb.atomic
        self.atomic = not isinstance(store, MemcachedStorage)
        return store


def test_wrong_arguments(store: Any, clock: Any, key: str) -> None:
    item = limit("1 per minute")
    with pytest.raises(TypeError):
        store.decide(["1 per minute"], [key])
    with pytest.raises(TypeError):
        store.decide([item], [7])
    for limits, keys, costs, mode, text in (
        ([item], [key, key], None, HIT, "length"),
        ([item], [key], [-1], HIT, "cost"),
        ([item], [key], None, 7, "mode"),
        ([item] * 33, [key] * 33, None, HIT, "32"),
    ):
        with pytest.raises(ValueError, match=text):
            store.decide(limits, keys, costs, mode)


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
    one_by_one = isinstance(store, MemcachedStorage)
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
