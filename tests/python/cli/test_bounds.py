"""The notes of `weir check` about several limits, compared with the code that decides."""

from __future__ import annotations

import os
import random

import pytest

import weir
from weir.cli import bounds

TICK = 1e-6
START = 1_800_000_000.0
STRATEGIES = sorted(weir.strategies.STRATEGIES)

SEED = int(os.environ.get("WEIR_SEED") or random.randrange(2**32))


def some_limit(chance: random.Random, strategies: list[str] = STRATEGIES) -> weir.Limit:
    strategy = chance.choice(strategies)
    choices: dict[str, object] = {"strategy": strategy}
    if strategy == "token-bucket" and chance.random() < 0.5:
        choices["burst"] = chance.randint(1, 12)
    seconds = chance.choice([1, 2, 3, 4, 6, 10, 12])
    if strategy == "leaky-bucket":
        choices["max_delay"] = chance.choice([0, 0.5, 1.0, float(seconds)])
    amount = chance.choice([1, 2, 3, 4, 5, 8, 12, 24, 60])
    return weir.Limit(amount, seconds, "second", **choices)  # type: ignore[arg-type]


def denies_what_the_guard_admits(
    limit: weir.Limit, guard: weir.Limit, moments: list[float], cost: int = 1
) -> bool:
    table = weir.Table("memory://?keys=64&hits=100000")
    for moment in moments:
        answer = table.decide([guard, limit], ["g", "l"], [cost, cost], weir.HIT, moment)
        if answer[0].allowed and not answer[1].allowed:
            return True
    return False


def traffic(chance: random.Random, limit: weir.Limit, guard: weir.Limit) -> list[float]:
    """Bursts and pauses that end just before and at what the limits' periods suggest."""
    periods = [limit.get_expiry(), guard.get_expiry()]
    moment, moments = START + chance.randrange(100), []
    for _ in range(chance.randint(5, 60)):
        pause = chance.choice(
            [0.0, TICK, 0.1, chance.random() * max(periods)]
            + [period * share for period in periods for share in (0.5, 1.0, 2.0)]
            + [period - TICK for period in periods]
        )
        moment += pause
        moments += [moment] * chance.randint(1, 15)
    return moments


def test_a_limit_that_never_binds_never_does() -> None:
    chance = random.Random(SEED)
    checked = 0
    for _ in range(4000):
        limit, guard = some_limit(chance), some_limit(chance)
        if bounds.never_binds(limit, guard) is None:
            continue
        checked += 1
        cost = chance.choice([1, 1, 1, 2, 3])
        moments = traffic(chance, limit, guard)
        assert not denies_what_the_guard_admits(limit, guard, moments, cost), (
            f"seed {SEED}: {limit!r} {limit.strategy} beside {guard!r} {guard.strategy}, "
            f"cost {cost}: {moments}"
        )
    assert checked > 500, "most limits were checked"


def flood(limit: weir.Limit, guard: weir.Limit) -> bool:
    """The worst traffic: a window of the guard is about to end when one of the limit opens.

    And that after a long pause. Then a request at each moment at which the guard has room.
    """
    ends, lasts = limit.get_expiry(), guard.get_expiry()
    second = max(lasts, ends - lasts / 2) if lasts < ends else 0.0
    for start in (second + lasts - TICK, 10.0 * max(ends, lasts)):
        table = weir.Table("memory://?keys=64&hits=100000")
        limits, keys = [guard, limit], ["g", "l"]
        for moment in sorted({0.0, second}):
            table.decide(limits, keys, None, weir.HIT, START + moment)
        moment = START + start
        requests = 3.0 * max(ends, lasts) * guard.amount + 100
        surplus = guard.amount / lasts - limit.amount / ends
        if surplus > 0:  # a bucket that drains a little slower than it is filled is full in the end
            full = (limit.burst or limit.amount) / surplus
            requests += 4 * full * guard.amount / lasts
        for _ in range(round(requests)):
            answer = table.decide(limits, keys, None, weir.HIT, moment)
            if answer[0].allowed and not answer[1].allowed:
                return True
            if not answer[0].allowed:
                moment += answer[0].retry_after
    return False


def test_windows_and_buckets_that_can_bind_are_found_to() -> None:
    # Nothing is called harmless too late, either: where no warning is given, traffic exists that
    # one limit denies and the other admits.
    chance = random.Random(SEED)
    strategies = ["fixed-window", "moving-window", "token-bucket"]
    for _ in range(400):
        limit, guard = some_limit(chance, strategies), some_limit(chance, strategies)
        if bounds.never_binds(limit, guard) is None:
            assert flood(limit, guard), (
                f"seed {SEED}: {limit!r} {limit.strategy} beside {guard!r} {guard.strategy}"
            )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_more_than_the_bound_passes(strategy: str) -> None:
    chance = random.Random(SEED)
    for _ in range(60):
        limit = some_limit(chance, [strategy])
        table = weir.Table("memory://?keys=64")
        moments = traffic(chance, limit, limit)
        admitted = [
            moment
            for moment in moments
            if table.decide([limit], "k", None, weir.HIT, moment).allowed
        ]
        for length in (1, 2, 5, limit.get_expiry(), 3 * limit.get_expiry()):
            most = bounds.most_within(limit, length)
            for first in admitted:
                # Moments are floats here: an interval is taken a little shorter.
                inside = sum(first <= moment < first + length - 2 * TICK for moment in admitted)
                assert inside <= most, f"seed {SEED}: {limit!r} {strategy}, {length} s"


@pytest.mark.parametrize(
    ("limit", "guard", "most"),
    [
        ("1000/minute", "10/second", 609),
        ("609/minute", "10/second", 609),
        ("608/minute", "10/second", None),
        ("600/hour", "10/minute", None),
        ("609/hour", "10/minute", 609),
        ("100/hour", "50/hour", 50),
        ("10/minute", "5/hour", 9),
        ("10/minute", "6/hour", None),
        ("5/hour", "10/minute", None),
        ("100/minute burst 50", "10/minute burst 20", 20),
        ("100/minute burst 10", "10/minute burst 20", None),
        ("5/minute burst 50", "10/minute burst 20", None),
        ("0/minute", "10/minute", None),
        ("9223372036854775807/second", "9223372036854775806/second", 2**63 - 2),
    ],
)
def test_known_pairs(limit: str, guard: str, most: int | None) -> None:
    assert bounds.never_binds(weir.parse(limit), weir.parse(guard)) == most
