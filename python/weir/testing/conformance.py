"""The tests that every store has to pass, as a class to inherit from."""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from .. import EACH, HIT, REFUND, TEST, Decision, Limit, Peek, Table, Verdict, parse
from .._core import STRATEGIES
from ..strategies import takes, taking

__all__ = ["StoreConformance"]

T0 = 1_700_000_000.0
LARGEST = 2**63 - 1

_KEYS = [
    "", "a b", "a\r\nb", b"\x00\xff\xfe", "größe/☃", "{}", "}{", "{a}b/{c}", "%00", "*?[a]", "';--",
    "a" * 300, "x" * 1_000_000,
]  # fmt: skip


class _Blocking:
    """Calls the coroutines of a store from tests that are not coroutines."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def decide(self, *arguments: Any) -> Decision:
        decision: Decision = self._loop.run_until_complete(self._store.decide(*arguments))
        return decision

    def clear(self, *arguments: Any) -> None:
        self._loop.run_until_complete(self._store.clear(*arguments))

    def close(self) -> None:
        closing = self._store.close() if hasattr(self._store, "close") else None
        if inspect.isawaitable(closing):
            self._loop.run_until_complete(_awaited(closing))
        self._loop.close()


async def _awaited(what: Any) -> Any:
    return await what


class _Moved:
    """The time of the store, and the table that it is compared with."""

    def __init__(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store = store
        self._monkeypatch = monkeypatch
        self.set(T0)

    def set(self, seconds: float) -> None:
        self.now = seconds
        self._monkeypatch.setattr(time, "time", lambda: seconds)
        if hasattr(self._store, "set_clock"):
            self._store.set_clock(seconds, True)

    def move(self, seconds: float) -> None:
        self.set(round((self.now + seconds) * 1e6) / 1e6)


class StoreConformance:
    """Inherit from this class and open the store; pytest collects the tests::

        class TestMyStore(StoreConformance):
            def open_store(self):
                return MyStorage("my://localhost")

    Each test uses its own keys, so the store need not be empty. Its time is set by
    ``store.set_clock(seconds, True)`` if it has that, and by ``time.time`` in any case. A store
    whose ``decide`` is a coroutine is tested, too.
    """

    #: The strategies that the store supports.
    strategies: tuple[str, ...] = tuple(STRATEGIES)

    #: Whether several threads may use it at once.
    threads = True

    #: Whether several limits are decided in one instant. One that charges them in turn, and gives
    #: back when a later one denies, is compared with a table limit by limit.
    atomic = True

    def open_store(self) -> Any:
        raise NotImplementedError("open_store() returns the store to be tested")

    @pytest.fixture
    def store(self) -> Iterator[Any]:
        store = self.open_store()
        if inspect.iscoroutinefunction(store.decide):
            store = _Blocking(store)
        yield store
        if hasattr(store, "close"):
            store.close()

    @pytest.fixture
    def clock(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> _Moved:
        return _Moved(store, monkeypatch)

    @pytest.fixture
    def key(self) -> str:
        return f"client-{uuid.uuid4()}"

    @pytest.fixture
    def seed(self) -> int:
        seed = int(os.environ.get("WEIR_SEED") or random.randrange(2**32))
        print(f"WEIR_SEED={seed}")  # pytest shows it with a failure
        return seed

    @pytest.fixture(params=list(STRATEGIES))
    def strategy(self, request: pytest.FixtureRequest) -> str:
        if request.param not in self.strategies:
            pytest.skip(f"the store does not support {request.param}")
        name: str = request.param
        return name

    def test_exactly_the_limit_is_admitted(
        self, store: Any, clock: _Moved, key: str, strategy: str
    ) -> None:
        limit = _limit("5 per hour", strategy)
        spacing = 720.0 if _delays(strategy) else 0.0
        for left in (4, 3, 2, 1, 0):
            verdict = store.decide([limit], key)[0]
            assert verdict.allowed
            assert (verdict.limit, verdict.retry_after) == (5, 0.0)
            assert _delays(strategy) or verdict.remaining == left
            clock.move(spacing if left else 0.0)
        denied = store.decide([limit], key)[0]
        assert (denied.allowed, denied.remaining) == (False, 0)

    def test_retry_after_is_exact(self, store: Any, clock: _Moved, key: str, strategy: str) -> None:
        limit = _limit("3 per 10 seconds", strategy)
        passed = 0
        for _ in range(25):
            verdict = store.decide([limit], key)[0]
            if verdict.allowed:
                passed += 1
                clock.move(0.7)
                continue
            moment = round(clock.now * 1e6) + round(verdict.retry_after * 1e6)
            clock.set((moment - 1) / 1e6)
            assert not store.decide([limit], key, None, TEST).allowed
            clock.set(moment / 1e6)
            assert store.decide([limit], key, None, TEST).allowed
        assert passed >= 9

    def test_a_cost_is_charged_at_once(
        self, store: Any, clock: _Moved, key: str, strategy: str
    ) -> None:
        limit = _limit("10 per minute", strategy)
        assert store.decide([limit], key, [7]).allowed
        denied = store.decide([limit], key, [4])[0]
        assert not denied.allowed
        assert 0 < denied.retry_after <= 120
        assert store.decide([limit], key, [11])[0].retry_after == math.inf
        assert store.decide([limit], key, [0]).allowed

    def test_a_test_charges_nothing(
        self, store: Any, clock: _Moved, key: str, strategy: str
    ) -> None:
        limit = _limit("1 per minute", strategy)
        for _ in range(3):
            assert store.decide([limit], key, None, TEST).allowed
        assert store.decide([limit], key).allowed
        assert not store.decide([limit], key, None, TEST).allowed

    def test_a_refund_gives_back_and_never_above_full(
        self, store: Any, clock: _Moved, key: str, strategy: str
    ) -> None:
        limit = _limit("10 per minute", strategy)
        store.decide([limit], key, [8])
        assert store.decide([limit], key, [3], REFUND).allowed
        store.decide([limit], key, [LARGEST], REFUND)
        full = store.decide([limit], key, [0], TEST)[0]
        assert full.remaining == (1 if _delays(strategy) else 10)
        assert store.decide([limit], key, [10]).allowed
        assert not store.decide([limit], key, [1]).allowed

    def test_clear_removes_one_counter(
        self, store: Any, clock: _Moved, key: str, strategy: str
    ) -> None:
        limit = _limit("1 per minute", strategy)
        for name in (key, f"{key}-other"):
            assert store.decide([limit], name).allowed
            assert not store.decide([limit], name).allowed
        store.clear([limit], key)
        store.clear([limit], key)
        assert store.decide([limit], key).allowed
        assert not store.decide([limit], f"{key}-other").allowed

    def test_what_one_limit_denies_no_limit_is_charged_for(
        self, store: Any, clock: _Moved, key: str
    ) -> None:
        wide = [_limit("10 per minute", name) for name in self.strategies if not _delays(name)]
        group = [*wide, _limit("1 per hour", self.strategies[0])]
        assert store.decide(group, key).allowed
        denied = store.decide(group, key)
        assert [verdict.allowed for verdict in denied] == [True] * len(wide) + [False]
        assert denied.deciding == len(wide)
        for verdict in store.decide(wide, key, [0] * len(wide), TEST):
            assert verdict.remaining == 9

    def test_all_or_nothing_over_many_keys(self, store: Any, clock: _Moved, key: str) -> None:
        """The keys have nothing in common: in a Cluster, they are in several slots."""
        group = [_limit("10 per minute")] * 5 + [_limit("1 per hour")]
        keys = [f"{key}-{i}" for i in range(6)]
        assert store.decide(group, keys).allowed
        denied = store.decide(group, keys)
        assert [verdict.allowed for verdict in denied] == [True] * 5 + [False]
        assert denied.deciding == 5
        assert [verdict.remaining for verdict in denied] == [9] * 5 + [0]
        left = store.decide(group, keys, [0] * 6, TEST)
        assert [verdict.remaining for verdict in left] == [9] * 5 + [0]

    def test_thirty_two_limits(self, store: Any, clock: _Moved, key: str) -> None:
        names = [name for name in self.strategies if not _delays(name)]
        limits = [_limit(f"{n} per minute", names[n % len(names)]) for n in range(1, 33)]
        assert store.decide(limits, key).allowed
        denied = store.decide(limits, key)
        assert [verdict.allowed for verdict in denied] == [False] + [True] * 31

    def test_the_furthest_denial_decides_else_the_shortest_period(
        self, store: Any, clock: _Moved, key: str
    ) -> None:
        limits = [_limit(f"1 per {period}") for period in ("minute", "day", "hour")]
        assert store.decide(limits, key).deciding == 0
        assert store.decide(limits, key).deciding == 1

    def test_each_charges_what_has_room(self, store: Any, clock: _Moved, key: str) -> None:
        group = [_limit("10 per minute", self.strategies[0]), _limit("1 per hour")]
        assert store.decide(group, key, None, EACH).allowed
        assert not store.decide(group, key, None, EACH).allowed
        peeked = store.decide(group, key, [0, 0], TEST)
        assert [verdict.remaining for verdict in peeked] == [8, 0]

    def test_one_counter_twice_in_a_decision(
        self, store: Any, clock: _Moved, key: str, strategy: str
    ) -> None:
        if _delays(strategy):
            pytest.skip(f"{strategy} delays the second request")
        limit = _limit("5 per minute", strategy)
        assert store.decide([limit, limit], key, [2, 2]).allowed
        tested = store.decide([limit, limit], key, [1, 1], TEST)
        assert [verdict.allowed for verdict in tested] == [True, False]
        assert not store.decide([limit, limit], key, [1, 1]).allowed
        assert store.decide([limit], key, [1]).allowed

    def test_a_peek_is_not_charged_and_denies(
        self, store: Any, clock: _Moved, key: str, strategy: str
    ) -> None:
        if not getattr(store, "PEEKS", True):
            pytest.skip("the store does not support Peek")
        peeked, counted = _limit("2 per minute", strategy), _limit("100 per hour")
        if _delays(strategy):
            peeked = peeked.replace(max_delay=50.0)
        for left in (99, 98):
            decision = store.decide([peeked, counted], key, [Peek(1), 1])
            assert [verdict.remaining for verdict in decision] == [2, left]
        assert store.decide([peeked], key, [2]).allowed
        denied = store.decide([peeked, counted], key, [Peek(1), 1])
        assert [verdict.allowed for verdict in denied] == [False, True]
        assert (denied.allowed, denied.deciding, denied[1].remaining) == (False, 0, 98)
        assert 0 < denied[0].retry_after <= 120
        each = store.decide([peeked, counted], key, [Peek(1), 1], EACH)
        assert [verdict.allowed for verdict in each] == [False, True]
        store.decide([peeked, counted], key, [Peek(1), 1], REFUND)
        left = store.decide([peeked, counted], key, [0, 0], TEST)
        assert [verdict.remaining for verdict in left] == [0, 98]
        assert not store.decide([counted, peeked], key, [Peek(5), 1]).allowed
        assert store.decide([counted], key, [0])[0].remaining == 98

    @pytest.mark.parametrize(
        "name",
        _KEYS,
        ids=lambda name: repr(name[:8]),
    )
    def test_any_bytes_are_a_key(self, store: Any, clock: _Moved, name: str | bytes) -> None:
        for strategy in self.strategies[:2]:
            limit, other = _limit("2 per minute", strategy), _limit("2 per hour", strategy)
            for item in (limit, other):
                store.clear([item], name)
            assert [store.decide([limit], name).allowed for _ in range(3)] == [True, True, False]
            assert store.decide([other], name).allowed
            store.clear([limit], name)
            assert store.decide([limit], name).allowed
            for item in (limit, other):
                store.clear([item], name)

    def test_counters_are_told_apart(self, store: Any, clock: _Moved, key: str) -> None:
        limits = [
            *(_limit("2 per day", name) for name in self.strategies if not _delays(name)),
            _limit("3 per day", self.strategies[0]),
            _limit("2 per hour", self.strategies[0]),
            _limit("2 per day", self.strategies[0]).replace(namespace="OTHER"),
        ]
        for name in self.strategies:
            if takes(name, "tz"):
                zones = ("+05:30", "-08:00")
                limits += [Limit(2, 1, "day", tz=zone, strategy=name) for zone in zones]
            if takes(name, "burst"):
                limits.append(_limit("2 per day", name).replace(burst=7))
        for limit in limits:
            left = (limit.burst or limit.amount) - 1
            assert store.decide([limit], key)[0].remaining == left, limit

    def test_the_largest_numbers(self, store: Any, clock: _Moved, key: str, strategy: str) -> None:
        limit = Limit(LARGEST, 100, "year", strategy=strategy)
        first = store.decide([limit], key, [LARGEST - 5])[0]
        assert first.allowed
        if not _delays(strategy):
            assert first.remaining == 5
            assert not store.decide([limit], key, [6]).allowed
            assert store.decide([limit], key, [5])[0].remaining == 0

    def test_a_state_of_ten_thousand_years(self, store: Any, clock: _Moved, key: str) -> None:
        """It outlasts 64-bit nanoseconds; the store keeps it as long as it can."""
        if "token-bucket" not in self.strategies:
            pytest.skip("only a burst makes a state last longer than the period")
        limit = Limit(1, 100, "year", strategy="token-bucket", burst=100)
        assert store.decide([limit], key, [100]).allowed
        assert not store.decide([limit], key).allowed

    def test_an_amount_of_zero_denies(
        self, store: Any, clock: _Moved, key: str, strategy: str
    ) -> None:
        limit = _limit("0 per minute", strategy)
        assert store.decide([limit], key)[0].retry_after == math.inf
        assert store.decide([limit], key, [0]).allowed

    def test_what_cannot_be_asked_is_refused(self, store: Any, clock: _Moved, key: str) -> None:
        limit = _limit("1 per minute")
        for limits, keys, costs, mode in (
            ([], key, None, HIT),
            ([limit] * 33, key, None, HIT),
            ([limit], [key, key], None, HIT),
            ([limit], key, [-1], HIT),
            ([limit], key, None, 9),
        ):
            with pytest.raises((ValueError, OverflowError)):
                store.decide(limits, keys, costs, mode)

    def test_random_decisions_are_those_of_a_table(
        self, store: Any, clock: _Moved, key: str, seed: int
    ) -> None:
        """Several limits over a few keys, all modes, costs, a clock that also steps back."""
        dice, table = random.Random(seed), Table("memory://?keys=4096")
        limits = [
            _limit(f"{amount} per {period}", name)
            for name in self.strategies
            for amount, period in ((3, "second"), (50, "20 seconds"), (7, "day"))
        ]
        for n in range(300):
            group = [dice.choice(limits) for _ in range(dice.randint(1, 6) if self.atomic else 1)]
            keys = [f"{key}/{dice.randrange(3)}" for _ in group]
            costs = [dice.choice((0, 1, 1, 1, 2, 5, 60)) for _ in group]
            if getattr(store, "PEEKS", True):
                costs = [Peek(cost) if not dice.randrange(6) else cost for cost in costs]
            mode = dice.choice((HIT, HIT, HIT, HIT, EACH, TEST, REFUND))
            clock.move(dice.choice((0, 0.001, 0.25, 1, 7)) * (1 if dice.randrange(12) else -1))
            got = store.decide(group, keys, costs, mode)
            wanted = table.decide(group, keys, costs, mode)
            for limit, a, b in zip(group, got, wanted, strict=True):
                assert _same(a, b), (n, mode, limit, a, b)
            assert (got.allowed, got.deciding) == (wanted.allowed, wanted.deciding), n

    @pytest.mark.parametrize(
        ("tz", "moment"),
        [
            ("Europe/Berlin", "2024-03-30T20:00"),  # a day of 23 hours
            ("Europe/Berlin", "2024-10-26T20:00"),  # of 25
            ("Australia/Lord_Howe", "2024-04-06T06:00"),  # of 24.5
            ("America/Sao_Paulo", "2018-11-03T20:00"),  # no midnight: it begins at one
            ("Africa/Cairo", "2023-04-27T14:00"),
            ("America/Havana", "2024-11-02T20:00"),  # midnight twice
            ("Pacific/Apia", "2011-12-29T02:00"),  # no 30 December
            ("+12:45", "2024-02-28T06:00"),
        ],
    )
    def test_days_when_clocks_change_are_those_of_a_table(
        self, store: Any, clock: _Moved, key: str, seed: int, tz: str, moment: str
    ) -> None:
        """Days, weeks and months in a time zone: what is left, and when the next begins."""
        if taking("tz") not in self.strategies:
            pytest.skip(f"the store does not support {taking('tz')}")
        dice, table = random.Random(seed), Table("memory://?keys=1024")
        try:
            limits = [
                Limit(amount, multiples, unit, tz=tz)
                for amount, multiples, unit in ((3, 1, "day"), (6, 7, "day"), (30, 1, "month"))
            ]
        except ValueError:
            pytest.skip(f"this machine has no time zone {tz}")
        clock.set(datetime.fromisoformat(f"{moment}:00+00:00").timestamp())
        denied = 0
        for n in range(40):
            group = limits if self.atomic else [dice.choice(limits)]
            got, wanted = (one.decide(group, key) for one in (store, table))
            assert all(_same(a, b) for a, b in zip(got, wanted, strict=True)), (n, clock.now)
            if got.allowed:
                clock.move(dice.choice((600, 1800, 3600, 5400, 3 * 3600)))
                continue
            denied += 1
            clock.move(got[got.deciding].retry_after)
            assert store.decide([group[got.deciding]], key, None, TEST).allowed
        assert denied

    def test_threads_admit_exactly_the_limit(self, store: Any, key: str, strategy: str) -> None:
        """The threads use the limits in different orders, and there is no deadlock."""
        if not self.threads or isinstance(store, _Blocking):
            pytest.skip("the store does not support several threads")
        if _delays(strategy):
            pytest.skip(f"{strategy} delays requests and admits them gradually")
        limits = [_limit(f"{amount} per day", strategy) for amount in (30, 31, 32)]
        admitted, failed = list[int](), list[BaseException]()

        def request(number: int) -> None:
            group = limits[number % 3 :] + limits[: number % 3]
            try:
                admitted.append(sum(store.decide(group, key).allowed for _ in range(12)))
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=request, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed[0]
        assert sum(admitted) == 30


def _limit(text: str, strategy: str = "fixed-window") -> Limit:
    limit = parse(text).replace(strategy=strategy)
    return limit.replace(max_delay=0.0) if _delays(strategy) else limit


def _delays(strategy: str) -> bool:
    """Whether it admits requests that have to wait."""
    return takes(strategy, "max_delay")


def _same(a: Verdict, b: Verdict) -> bool:
    """Equal, but for the last bit of a float of large seconds."""
    times = ((a.reset_at, b.reset_at), (a.retry_after, b.retry_after), (a.delay, b.delay))
    alike = all(x == y or abs(x - y) < 3e-6 for x, y in times)
    return alike and a[:3] == b[:3]
