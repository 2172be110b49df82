"""Random operations on every strategy, compared with the naive models of ``tests/models.py``.

Every member of every verdict must agree. Times are whole microseconds, as everywhere in Python.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
import weir
from weir import EACH, HIT, REFUND, TEST, Limit, Verdict

EPOCH = 1_700_000_000


OPERATIONS = {HIT: "hit", EACH: "hit", TEST: "test", REFUND: "refund"}


def model_of(limit: Limit) -> Any:
    longest = 0.5 if limit.max_delay is None else limit.max_delay
    model = models.MODELS[str(limit.strategy)]
    delay = round(longest * 10**6) * 1000
    return model(limit.amount, limit.get_expiry() * models.S, limit.burst or 0, delay)


# ------------------------------------------------------------------------------------ comparing


@dataclass
class Clock:
    """Stands in for ``time.time``; counts in microseconds."""

    micros: int = EPOCH * 10**6

    def __call__(self) -> float:
        return self.micros / 10**6

    @property
    def exact(self) -> int:
        """In nanoseconds."""
        return self.micros * 1000


@contextmanager
def stopped_clock() -> Iterator[Clock]:
    clock = Clock()
    with mock.patch.object(time, "time", clock):
        yield clock


def up(nanoseconds: int) -> float:
    """Seconds, rounded up to the next microsecond, as Weir answers moments and durations."""
    return -(-nanoseconds // 1000) / 10**6


def expected(limit: Limit, answer: models.Answer) -> Verdict:
    shown = limit.burst if limit.strategy == "token-bucket" and limit.burst else limit.amount
    retry = math.inf if answer.retry_after == models.MAX else up(answer.retry_after)
    return Verdict(
        answer.allowed, shown, answer.remaining, up(answer.reset_at), retry, up(answer.delay)
    )


# --------------------------------------------------------------------------------- what is drawn

AMOUNTS = st.one_of(st.integers(0, 12), st.sampled_from([60, 97, 1000, 10**9]))


@st.composite
def limits(draw: st.DrawFn, strategy: str | None = None) -> Limit:
    name = strategy or draw(st.sampled_from(models.ZONELESS))
    unit = draw(st.sampled_from(["second", "minute", "hour", "day"]))
    multiples = draw(st.integers(1, 7))
    limit = Limit(draw(AMOUNTS), multiples, unit, strategy=name)
    if name == "token-bucket" and draw(st.booleans()):
        limit = limit.replace(burst=draw(st.integers(1, 30)))
    if name == "leaky-bucket" and draw(st.booleans()):
        share = draw(st.sampled_from([0.0, 0.001, 0.1, 0.5, 1.0]))
        limit = limit.replace(max_delay=limit.get_expiry() * share)
    return limit


@dataclass
class Step:
    wait: Fraction  # share of the period
    micros: int
    cost: int
    mode: int = field(default=HIT)


WAITS = st.sampled_from(
    [Fraction(i, n) for i, n in ((0, 1), (1, 97), (1, 7), (1, 2), (1, 1), (3, 1))]
)
STEPS = st.builds(
    Step,
    wait=st.one_of(st.just(Fraction(0)), WAITS),
    micros=st.integers(0, 3),
    cost=st.one_of(st.just(1), st.integers(0, 14), st.just(2**63 - 1)),
    mode=st.sampled_from([HIT, HIT, HIT, HIT, EACH, TEST, REFUND]),
)


@pytest.mark.parametrize("strategy", models.ZONELESS)
@settings(max_examples=250)
@given(data=st.data())
def test_every_verdict_equals_the_model(strategy: str, data: st.DataObject) -> None:
    limit = data.draw(limits(strategy), "limit")
    steps = data.draw(st.lists(STEPS, min_size=5, max_size=60), "steps")
    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"), strategy)
    model = model_of(limit)
    with stopped_clock() as clock:
        for i, step in enumerate(steps):
            clock.micros += int(step.wait * limit.get_expiry() * 10**6) + step.micros
            verdict = limiter.decide(limit, "key", cost=step.cost, mode=step.mode)
            answer = models.apply(model, clock.exact, OPERATIONS[step.mode], step.cost)
            assert verdict == expected(limit, answer), (i, step, limit, limit.max_delay)


def deciding(limits: list[Limit], verdicts: list[Verdict]) -> int:
    denied = [i for i, verdict in enumerate(verdicts) if not verdict.allowed]
    if denied:
        return max(denied, key=lambda i: (verdicts[i].retry_after, -i))
    return min(range(len(limits)), key=lambda i: (limits[i].get_expiry(), i))


def ask_all(counters: list[Any], now: int, costs: list[int], mode: int) -> list[models.Answer]:
    """All or nothing: if one denies, none is charged, and the others report their current state."""
    before = [models.saved(counter) for counter in counters]
    operation = OPERATIONS[mode]
    answers = [
        models.apply(c, now, operation, cost) for c, cost in zip(counters, costs, strict=True)
    ]
    if mode == HIT and not all(answer.allowed for answer in answers):
        for i, (counter, state) in enumerate(zip(counters, before, strict=True)):
            counter.__dict__.update(state)
            there = models.apply(counter, now, "test", 0)
            answers[i] = answers[i]._replace(remaining=there.remaining, reset_at=there.reset_at)
    return answers


@settings(max_examples=250)
@given(data=st.data())
def test_several_limits_are_charged_all_or_none(data: st.DataObject) -> None:
    bound = data.draw(st.lists(limits(), min_size=2, max_size=6, unique=True), "limits")
    # The table distinguishes limits by their values, not by their text.
    meaning = {(b.strategy, b.amount, b.get_expiry(), b.burst or b.amount) for b in bound}
    if len(meaning) < len(bound):
        return
    steps = data.draw(st.lists(STEPS, min_size=5, max_size=30), "steps")
    table = weir.Table("memory://?keys=4096")
    counters = [model_of(limit) for limit in bound]
    with stopped_clock() as clock:
        for i, step in enumerate(steps):
            period = bound[i % len(bound)].get_expiry()
            clock.micros += int(step.wait * period * 10**6) + step.micros
            costs = [step.cost if n % 2 == 0 else 1 for n in range(len(bound))]
            decision = table.decide(bound, "key", costs, step.mode)
            answers = ask_all(counters, clock.exact, costs, step.mode)
            wanted = [expected(limit, a) for limit, a in zip(bound, answers, strict=True)]
            assert list(decision) == wanted, (i, step, bound)
            assert decision.allowed == all(answer.allowed for answer in answers)
            assert decision.now == clock()
            assert wanted[decision.deciding].allowed == wanted[deciding(bound, wanted)].allowed
            if not decision.allowed:
                longest = max(v.retry_after for v in wanted if not v.allowed)
                assert decision.verdict.retry_after == longest


@pytest.mark.parametrize("strategy", models.ZONELESS)
@settings(max_examples=150)
@given(data=st.data())
def test_retry_after_is_exact(strategy: str, data: st.DataObject) -> None:
    """The same request a microsecond earlier is denied, at that moment it passes."""
    limit = data.draw(limits(strategy), "limit")
    steps = data.draw(st.lists(STEPS, min_size=1, max_size=20), "steps")
    cost = data.draw(st.integers(1, 14), "cost")
    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"), strategy)
    with stopped_clock() as clock:
        for step in steps:
            clock.micros += int(step.wait * limit.get_expiry() * 10**6) + step.micros
            limiter.decide(limit, "key", cost=step.cost, mode=step.mode)
        verdict = limiter.decide(limit, "key", cost=cost, mode=TEST)
        if verdict.allowed:
            assert verdict.retry_after == 0.0
            return
        if math.isinf(verdict.retry_after):
            clock.micros += 2 * limit.get_expiry() * 10**6
            assert not limiter.test(limit, "key", cost=cost)
            return
        then = clock() + verdict.retry_after
        clock.micros = round(then * 10**6) - 1
        assert not limiter.test(limit, "key", cost=cost)
        with mock.patch.object(time, "time", return_value=then):
            assert limiter.hit(limit, "key", cost=cost)


@pytest.mark.parametrize("strategy", models.ZONELESS)
@settings(max_examples=100)
@given(data=st.data())
def test_a_clock_that_jumps_neither_grants_twice_nor_blocks_longer_than_a_period(
    strategy: str, data: st.DataObject
) -> None:
    amount = data.draw(st.integers(1, 10), "amount")
    limit = Limit(amount, 1, "hour", strategy=strategy)
    if strategy == "leaky-bucket":
        limit = limit.replace(max_delay=0.0)
    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"), strategy)
    back = data.draw(st.integers(1, 10**11), "microseconds back")
    with stopped_clock() as clock:
        if strategy == "sliding-window-counter":  # a window begins
            clock.micros = EPOCH // 3600 * 3600 * 10**6
        full = sum(limiter.hit(limit, "key") for _ in range(amount))
        assert full == (1 if strategy == "leaky-bucket" else amount)
        clock.micros -= back
        assert not limiter.hit(limit, "key"), "granted twice"
        verdict = limiter.decide(limit, "key", mode=TEST)
        # Up to 100 ms a clock may be read late by another process; that is waited for, too.
        longest = 2 * 3600 if strategy == "sliding-window-counter" else 3600
        assert 0 < verdict.retry_after <= longest + 0.1
        clock.micros += math.ceil(verdict.retry_after * 10**6)
        assert limiter.hit(limit, "key"), "blocked for longer than retry_after"
