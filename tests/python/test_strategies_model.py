"""Random operations on every strategy, beside a naive model in exact fractions.

The models are written from the documentation, with lists and fractions and no care for cost. Every
member of every verdict must agree. Times are whole microseconds, as everywhere in Python.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weir
from weir import EACH, HIT, REFUND, TEST, Limit, Verdict

NEVER = None
EPOCH = 1_700_000_000


@dataclass
class Answer:
    """A verdict; moments and durations in exact seconds, ``retry`` ``None``: never."""

    allowed: bool
    remaining: int
    reset: Fraction
    retry: Fraction | None = Fraction(0)
    delay: Fraction = Fraction(0)


class Model:
    """One counter under one limit."""

    def __init__(self, limit: Limit) -> None:
        self.amount = limit.amount
        self.period = Fraction(limit.get_expiry())
        self.size = limit.amount

    def settle(self, now: Fraction) -> None:
        raise NotImplementedError

    def allows(self, now: Fraction, cost: int) -> bool:
        return self.remaining(now) >= cost

    def remaining(self, now: Fraction) -> int:
        raise NotImplementedError

    def reset(self, now: Fraction) -> Fraction:
        raise NotImplementedError

    def when(self, now: Fraction, cost: int) -> Fraction:
        raise NotImplementedError

    def charge(self, now: Fraction, cost: int) -> None:
        raise NotImplementedError

    def refund(self, now: Fraction, cost: int) -> None:
        raise NotImplementedError

    def delay(self, now: Fraction) -> Fraction:
        return Fraction(0)

    def ask(self, now: Fraction, cost: int, mode: int) -> Answer:
        self.settle(now)
        if mode == REFUND:
            self.refund(now, cost)
            self.settle(now)
            return Answer(True, self.remaining(now), self.reset(now))
        if cost and not self.allows(now, cost):
            retry = self.when(now, cost) - now if cost <= self.size else NEVER
            return Answer(False, self.remaining(now), self.reset(now), retry)
        delay = self.delay(now) if cost else Fraction(0)
        if mode != TEST and cost:
            self.charge(now, cost)
        return Answer(True, self.remaining(now), self.reset(now), Fraction(0), delay)


class FixedWindow(Model):
    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self.hits = 0
        self.end = Fraction(0)

    def settle(self, now: Fraction) -> None:
        if now >= self.end:
            self.hits = 0

    def remaining(self, now: Fraction) -> int:
        return self.amount - self.hits

    def reset(self, now: Fraction) -> Fraction:
        return self.end if self.hits else now

    def when(self, now: Fraction, cost: int) -> Fraction:
        return self.end

    def charge(self, now: Fraction, cost: int) -> None:
        if not self.hits:
            self.end = now + self.period
        self.hits += cost

    def refund(self, now: Fraction, cost: int) -> None:
        self.hits = max(0, self.hits - cost)


class MovingWindow(Model):
    """Every admitted hit, by its time."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self.log: list[tuple[Fraction, int]] = []

    def settle(self, now: Fraction) -> None:
        self.log = [(at, cost) for at, cost in self.log if now - self.period < at <= now]

    def remaining(self, now: Fraction) -> int:
        return self.amount - sum(cost for _, cost in self.log)

    def reset(self, now: Fraction) -> Fraction:
        return self.log[0][0] + self.period if self.log else now

    def when(self, now: Fraction, cost: int) -> Fraction:
        room = self.remaining(now)
        for at, gone in self.log:
            room += gone
            if room >= cost:
                return at + self.period
        raise AssertionError("a cost below the limit must fit when all have left")

    def charge(self, now: Fraction, cost: int) -> None:
        self.log.append((now, cost))

    def refund(self, now: Fraction, cost: int) -> None:
        while cost and self.log:
            at, there = self.log.pop()
            if there > cost:
                self.log.append((at, there - cost))
            cost = max(0, cost - there)


class SlidingWindowCounter(Model):
    """Counts by window; use falls in straight lines while nobody comes."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self.counts: dict[int, int] = {}

    def index(self, at: Fraction) -> int:
        return math.floor(at / self.period)

    def use(self, at: Fraction) -> Fraction:
        index = self.index(at)
        share = index + 1 - at / self.period
        return self.counts.get(index, 0) + self.counts.get(index - 1, 0) * share

    def settle(self, now: Fraction) -> None:
        index = self.index(now)
        self.counts = {i: n for i, n in self.counts.items() if i >= index - 1 and n}

    def remaining(self, now: Fraction) -> int:
        return max(0, math.floor(self.amount - self.use(now)))

    def down_to(self, now: Fraction, most: int) -> Fraction:
        """The first moment with a use of at most ``most``."""
        start = now
        while self.use(start) > most:
            end = (self.index(start) + 1) * self.period
            if self.use(end) <= most:
                fall = (self.use(start) - self.use(end)) / (end - start)
                return start + (self.use(start) - most) / fall
            start = end
        return start

    def reset(self, now: Fraction) -> Fraction:
        if not self.counts:
            return now
        return self.down_to(now, self.amount - self.remaining(now) - 1)

    def when(self, now: Fraction, cost: int) -> Fraction:
        return self.down_to(now, self.amount - cost)

    def charge(self, now: Fraction, cost: int) -> None:
        self.counts[self.index(now)] = self.counts.get(self.index(now), 0) + cost

    def refund(self, now: Fraction, cost: int) -> None:
        for index in (self.index(now), self.index(now) - 1):
            part = min(cost, self.counts.get(index, 0))
            if part:
                self.counts[index] -= part
                cost -= part


class TokenBucket(Model):
    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self.size = (limit.burst or limit.amount) if limit.amount else 0
        self.tokens = Fraction(self.size)
        self.at = Fraction(0)

    def settle(self, now: Fraction) -> None:
        self.tokens = min(
            Fraction(self.size), self.tokens + (now - self.at) * self.amount / self.period
        )
        self.at = now

    def remaining(self, now: Fraction) -> int:
        return math.floor(self.tokens)

    def reset(self, now: Fraction) -> Fraction:
        return self.when(now, self.size)

    def when(self, now: Fraction, cost: int) -> Fraction:
        if not self.amount:
            return now
        return now + (cost - self.tokens) * self.period / self.amount

    def charge(self, now: Fraction, cost: int) -> None:
        self.tokens -= cost

    def refund(self, now: Fraction, cost: int) -> None:
        self.tokens = min(Fraction(self.size), self.tokens + cost)


class LeakyBucket(Model):
    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        longest = 0.5 if limit.max_delay is None else limit.max_delay
        self.longest = Fraction(round(longest * 10**6), 10**6)
        self.turn = self.period / self.amount if self.amount else Fraction(0)
        self.next = Fraction(0)  # the next free departure

    def settle(self, now: Fraction) -> None:
        self.next = max(self.next, now)

    def allows(self, now: Fraction, cost: int) -> bool:
        return cost <= self.amount and self.next - now <= self.longest

    def remaining(self, now: Fraction) -> int:
        if not self.amount or self.next - now > self.longest:
            return 0
        return min(self.amount, math.floor((self.longest - (self.next - now)) / self.turn) + 1)

    def reset(self, now: Fraction) -> Fraction:
        return self.next

    def when(self, now: Fraction, cost: int) -> Fraction:
        return self.next - self.longest

    def charge(self, now: Fraction, cost: int) -> None:
        self.next += cost * self.turn

    def refund(self, now: Fraction, cost: int) -> None:
        self.next -= cost * self.turn

    def delay(self, now: Fraction) -> Fraction:
        return self.next - now


MODELS: dict[str, Callable[[Limit], Model]] = {
    "fixed-window": FixedWindow,
    "moving-window": MovingWindow,
    "sliding-window-counter": SlidingWindowCounter,
    "token-bucket": TokenBucket,
    "leaky-bucket": LeakyBucket,
}


# ------------------------------------------------------------------------------------ comparing


@dataclass
class Clock:
    """Stands in for ``time.time``; counts in microseconds."""

    micros: int = EPOCH * 10**6

    def __call__(self) -> float:
        return self.micros / 10**6

    @property
    def exact(self) -> Fraction:
        return Fraction(self.micros, 10**6)


@contextmanager
def stopped_clock() -> Iterator[Clock]:
    clock = Clock()
    with mock.patch.object(time, "time", clock):
        yield clock


def up(seconds: Fraction) -> float:
    """Rounded up to the next microsecond, as Weir answers moments and durations."""
    return math.ceil(seconds * 10**6) / 10**6


def expected(limit: Limit, answer: Answer) -> Verdict:
    shown = limit.burst if limit.strategy == "token-bucket" and limit.burst else limit.amount
    retry = math.inf if answer.retry is NEVER else up(answer.retry)
    return Verdict(
        answer.allowed, shown, answer.remaining, up(answer.reset), retry, up(answer.delay)
    )


# --------------------------------------------------------------------------------- what is drawn

AMOUNTS = st.one_of(st.integers(0, 12), st.sampled_from([60, 97, 1000, 10**9]))


@st.composite
def limits(draw: st.DrawFn, strategy: str | None = None) -> Limit:
    name = strategy or draw(st.sampled_from(sorted(MODELS)))
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


@pytest.mark.parametrize("strategy", sorted(MODELS))
@settings(max_examples=250)
@given(data=st.data())
def test_every_verdict_equals_the_model(strategy: str, data: st.DataObject) -> None:
    limit = data.draw(limits(strategy), "limit")
    steps = data.draw(st.lists(STEPS, min_size=5, max_size=60), "steps")
    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"), strategy)
    model = MODELS[strategy](limit)
    with stopped_clock() as clock:
        for i, step in enumerate(steps):
            clock.micros += int(step.wait * limit.get_expiry() * 10**6) + step.micros
            verdict = limiter.decide(limit, "key", cost=step.cost, mode=step.mode)
            answer = model.ask(clock.exact, step.cost, step.mode)
            assert verdict == expected(limit, answer), (i, step, limit, limit.max_delay)


def deciding(limits: list[Limit], verdicts: list[Verdict]) -> int:
    denied = [i for i, verdict in enumerate(verdicts) if not verdict.allowed]
    if denied:
        return max(denied, key=lambda i: (verdicts[i].retry_after, -i))
    return min(range(len(limits)), key=lambda i: (limits[i].get_expiry(), i))


def ask_all(models: list[Model], now: Fraction, costs: list[int], mode: int) -> list[Answer]:
    """All or nothing: if one denies, the others answer as they are, uncharged."""
    before = copy.deepcopy([model.__dict__ for model in models])
    answers = [model.ask(now, cost, mode) for model, cost in zip(models, costs, strict=True)]
    if mode == HIT and not all(answer.allowed for answer in answers):
        for model, state, answer in zip(models, before, answers, strict=True):
            model.__dict__.update(state)
            model.settle(now)
            answer.remaining, answer.reset = model.remaining(now), model.reset(now)
    return answers


@settings(max_examples=250)
@given(data=st.data())
def test_several_limits_are_charged_all_or_none(data: st.DataObject) -> None:
    bound = data.draw(st.lists(limits(), min_size=2, max_size=6, unique=True), "limits")
    # The table tells limits apart by what they mean, not by how they are written.
    meaning = {(b.strategy, b.amount, b.get_expiry(), b.burst or b.amount) for b in bound}
    if len(meaning) < len(bound):
        return
    steps = data.draw(st.lists(STEPS, min_size=5, max_size=30), "steps")
    table = weir.Table("memory://?keys=4096")
    models = [MODELS[str(limit.strategy)](limit) for limit in bound]
    with stopped_clock() as clock:
        for i, step in enumerate(steps):
            period = bound[i % len(bound)].get_expiry()
            clock.micros += int(step.wait * period * 10**6) + step.micros
            costs = [step.cost if n % 2 == 0 else 1 for n in range(len(bound))]
            decision = table.decide(bound, "key", costs, step.mode)
            answers = ask_all(models, clock.exact, costs, step.mode)
            wanted = [expected(limit, a) for limit, a in zip(bound, answers, strict=True)]
            assert list(decision) == wanted, (i, step, bound)
            assert decision.allowed == all(answer.allowed for answer in answers)
            assert decision.now == clock()
            assert wanted[decision.deciding].allowed == wanted[deciding(bound, wanted)].allowed
            if not decision.allowed:
                longest = max(v.retry_after for v in wanted if not v.allowed)
                assert decision.verdict.retry_after == longest


@pytest.mark.parametrize("strategy", sorted(MODELS))
@settings(max_examples=150)
@given(data=st.data())
def test_retry_after_is_a_promise(strategy: str, data: st.DataObject) -> None:
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


@pytest.mark.parametrize("strategy", sorted(MODELS))
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
        assert limiter.hit(limit, "key"), "blocked for longer than promised"
