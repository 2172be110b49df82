"""Weir's clock is ``time.time()`` of the moment: what moves that one, moves this one."""

from __future__ import annotations

import datetime
import math
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import freezegun
import hiro
import pytest
import time_machine

import weir
from weir import Limit

ONCE = Limit(1, 1, "minute")


@pytest.fixture(params=sorted(weir.strategies.STRATEGIES))
def limiter(request: pytest.FixtureRequest) -> weir.RateLimiter:
    return weir.RateLimiter(weir.Table("memory://?keys=64"), request.param)


def check_a_minute(limiter: weir.RateLimiter, forward: Callable[[float], object]) -> None:
    """Denied for a minute (a sliding window: for two), and not longer."""
    assert limiter.hit(ONCE, "alice")
    assert not limiter.hit(ONCE, "alice")
    verdict = limiter.decide(ONCE, "alice", mode=weir.TEST)
    assert 0 < verdict.retry_after <= 120
    # Not to the end: each of them puts microseconds into a float in its own way.
    forward(verdict.retry_after - 0.01)
    assert not limiter.hit(ONCE, "alice")
    forward(0.02)
    assert limiter.hit(ONCE, "alice")


def test_freezegun_moves_the_clock(limiter: weir.RateLimiter) -> None:
    with freezegun.freeze_time("2024-02-29 12:34:56") as frozen:
        now = datetime.datetime(2024, 2, 29, 12, 34, 56, tzinfo=datetime.timezone.utc).timestamp()
        assert limiter.get_window_stats(ONCE, "unused").reset_time == now
        check_a_minute(limiter, lambda seconds: frozen.tick(datetime.timedelta(seconds=seconds)))


def test_time_machine_moves_the_clock(limiter: weir.RateLimiter) -> None:
    with time_machine.travel(1_700_000_000.0, tick=False) as traveller:
        assert limiter.get_window_stats(ONCE, "unused").reset_time == 1_700_000_000.0
        check_a_minute(limiter, traveller.shift)


def test_hiro_moves_the_clock(limiter: weir.RateLimiter) -> None:
    with hiro.Timeline().freeze(1_700_000_000) as timeline:
        assert limiter.get_window_stats(ONCE, "unused").reset_time == 1_700_000_000.0
        check_a_minute(limiter, lambda seconds: timeline.forward(seconds))


def test_each_of_them_one_after_the_other() -> None:
    """After each library has ended, the real time is read again."""
    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"))

    def now() -> float:
        return limiter.get_window_stats(ONCE, "unused").reset_time

    for _ in range(3):
        with freezegun.freeze_time("1999-12-31"):
            assert now() < 10**9
        assert abs(now() - time.time()) < 10
        with time_machine.travel(5.0, tick=False):
            assert now() == 5.0
            with mock.patch.object(time, "time", return_value=6):
                assert now() == 6.0
            assert now() == 5.0
        assert abs(now() - time.time()) < 10
        with hiro.Timeline().freeze(1_000_000):
            assert now() == 1_000_000.0
        assert abs(now() - time.time()) < 10


@pytest.mark.parametrize(
    "start",
    [
        "import freezegun; f = freezegun.freeze_time('2001-09-09 01:46:40'); f.start()",
        "import time_machine; f = time_machine.travel(1e9, tick=False); f.start()",
        "import time; true = time.time; time.time = lambda: 1e9",
    ],
)
def test_imported_while_the_clock_stands(start: str) -> None:
    program = f"""
{start}
import weir
limiter = weir.RateLimiter(weir.Table("memory://?keys=64"))
now = lambda: limiter.get_window_stats(weir.Limit(1), "unused").reset_time
assert now() == 1e9
import time
f.stop() if "f" in globals() else setattr(time, "time", true)
assert now() > 1.7e9
assert abs(now() - time.time()) < 10
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_deciding_call_reads_the_clock_once() -> None:
    table = weir.Table("memory://?keys=64")
    limiter = weir.RateLimiter(table)
    calls: list[Callable[[], Any]] = [
        lambda: limiter.hit(ONCE, "a"),
        lambda: limiter.test(ONCE, "a"),
        lambda: limiter.refund(ONCE, "a"),
        lambda: limiter.decide(ONCE, "a"),
        lambda: limiter.get_window_stats(ONCE, "a"),
        lambda: table.decide([ONCE, ONCE], "a"),
        lambda: table.info(),
    ]
    for call in calls:
        with mock.patch.object(time, "time", return_value=1e9) as clock:
            call()
        assert clock.call_count == 1
    with mock.patch.object(time, "time", return_value=1e9) as clock:
        limiter.clear(ONCE, "a")
        table.clear([ONCE], "a")
        table.reset()
        table.check()
    assert clock.call_count == 0


@pytest.mark.parametrize(
    ("reading", "error"),
    [
        (-1.0, ValueError),
        (-1e-5, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (-math.inf, ValueError),
        (4611686019.0, ValueError),
        (1e300, ValueError),
        ("now", TypeError),
        (None, TypeError),
        (True, TypeError),
        (10**400, OverflowError),
    ],
)
def test_a_clock_that_returns_no_time(reading: object, error: type[Exception]) -> None:
    table = weir.Table("memory://?keys=64")
    limiter = weir.RateLimiter(table)
    with mock.patch.object(time, "time", return_value=reading):
        for call in (
            lambda: limiter.hit(ONCE, "a"),
            lambda: limiter.get_window_stats(ONCE, "a"),
            lambda: table.decide([ONCE], "a"),
            table.info,
        ):
            with pytest.raises(error):
                call()
    assert limiter.hit(ONCE, "a"), "nothing was charged"


def test_a_clock_that_raises() -> None:
    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"))
    failing = mock.patch.object(time, "time", side_effect=ZeroDivisionError)
    with failing, pytest.raises(ZeroDivisionError):
        limiter.hit(ONCE, "a")
    with mock.patch.object(time, "time"):
        del time.time
        with pytest.raises(AttributeError, match="time"):
            limiter.hit(ONCE, "a")
    assert limiter.hit(ONCE, "a")


def test_a_clock_that_closes_the_table() -> None:
    table = weir.Table("memory://?keys=64")
    limiter = weir.RateLimiter(table)

    def closing() -> float:
        table.close()
        return 1e9

    with mock.patch.object(time, "time", closing), pytest.raises(weir.TableError, match="closed"):
        limiter.hit(ONCE, "a")


def test_a_clock_that_empties_the_arguments() -> None:
    table = weir.Table("memory://?keys=64")
    limits = [Limit(1, namespace=f"only here {n}") for n in range(3)]

    def emptying() -> float:
        limits.clear()
        return 1e9

    with mock.patch.object(time, "time", emptying), pytest.raises(ValueError, match="1 to 32"):
        table.decide(limits, "a")


def test_whole_seconds_from_1970_to_2106() -> None:
    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"))
    for now in (0, 1, 2**31 - 1, 2**31, 2**32 - 61):
        with mock.patch.object(time, "time", return_value=now):
            assert limiter.get_window_stats(ONCE, "unused").reset_time == now
            assert limiter.decide(ONCE, now).reset_at == now + 60


@pytest.mark.parametrize("fraction", [0.000001, 0.1, 0.123456, 0.5, 0.999999])
def test_moments_come_back_to_the_microsecond(fraction: float) -> None:
    """The float a caller is given as ``reset_at`` is the moment at which it passes."""
    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"))
    now = 1_795_228_423 + fraction
    with mock.patch.object(time, "time", return_value=now):
        reset_at = limiter.decide(ONCE, "a").reset_at
    assert reset_at == round(now + 60, 6)
    with mock.patch.object(time, "time", return_value=reset_at - 1e-6):
        assert not limiter.hit(ONCE, "a")
    with mock.patch.object(time, "time", return_value=reset_at):
        assert limiter.hit(ONCE, "a")


def test_the_true_clock_is_read() -> None:
    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"))
    before = time.time()
    now = limiter.get_window_stats(ONCE, "unused").reset_time
    assert before - 1e-6 <= now <= time.time() + 1e-6


def test_a_decision_is_made_at_the_moment_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: pytest.fail("the clock was read"))
    table = weir.Table()
    limits = [weir.parse("1/minute")]
    moments = [1000.0, 1059.999999, 1060, 1060.5]
    answers = [table.decide(limits, "me", None, weir.HIT, moment) for moment in moments]
    assert [answer.allowed for answer in answers] == [True, False, True, False]
    assert [answer.now for answer in answers] == moments
    assert answers[1].verdict.reset_at == 1060.0


@pytest.mark.parametrize("moment", [-1.0, math.nan, math.inf, 1e12])
def test_a_moment_outside_of_time_is_refused(moment: float) -> None:
    with pytest.raises(ValueError, match=r"now is .*: only moments from 1970 to 2116"):
        weir.Table().decide([weir.parse("1/minute")], "me", None, weir.HIT, moment)


def test_a_moment_is_a_number() -> None:
    with pytest.raises(TypeError, match="now must be float or int, not str"):
        weir.Table().decide([weir.parse("1/minute")], "me", None, weir.HIT, "noon")  # type: ignore[arg-type]
