"""Calendar windows in zones of the tz database, compared with datetime."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from datetime import timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, available_timezones

import pytest

import models
import weir
from weir import Limit

S = 10**9


def test_windows_are_those_of_datetime() -> None:
    """Random zones and moments from 1970 on, also right at the edges."""
    seed = int(os.environ.get("WEIR_SEED") or random.randrange(2**32))
    print(f"WEIR_SEED={seed}")
    dice = random.Random(seed)
    names = sorted(available_timezones() - {"Factory", "localtime"})
    for name in dice.sample(names, 60):
        for multiples, unit in ((1, "day"), (7, "day"), (1, "month"), (3, "month"), (1, "year")):
            model = models.Calendar(1, multiples, unit, name)
            limit = Limit(1, multiples, unit, strategy="calendar-window", tz=name)
            for _ in range(8):
                moment = dice.randrange(86400 * 400, 4_000_000_000)
                number = model.number(moment * S)
                while model.start(number + 1) <= moment * S:
                    number += 1  # the clock went back over midnight
                start, end = model.start(number) // S, model.start(number + 1) // S
                for at in (moment, start, end - 1):
                    assert limit.window_at(at) == (start, end), (name, multiples, unit, at)


@pytest.mark.parametrize(
    ("tz", "name"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        (ZoneInfo("Asia/Kolkata"), "Asia/Kolkata"),
        ("+05:30", "+05:30"),
        ("UTC-3", "-03:00"),
        ("-0330", "-03:30"),
        (timezone(timedelta(hours=2)), "+02:00"),
        (timezone.utc, "UTC"),
        ("UTC", "UTC"),
        ("+00:00", "UTC"),
    ],
)
def test_a_zone_is_a_name_an_offset_or_a_tzinfo(tz: str | tzinfo, name: str) -> None:
    limit = Limit(1, 1, "day", tz=tz)
    assert (limit.strategy, limit.tz) == ("calendar-window", name)
    assert pickle.loads(pickle.dumps(limit)) == limit
    assert limit.replace(tz=None).tz is None


@pytest.mark.parametrize(
    "tz",
    [
        "",
        "Nowhere",
        "../../etc/passwd",
        "/etc/localtime",
        "+24:00",
        "+05:75",
        "a" * 5000,
        "\0",
        "😀",
    ],
)
def test_what_is_no_zone_is_refused(tz: str) -> None:
    with pytest.raises(ValueError, match="tz"):
        Limit(1, 1, "day", tz=tz)


NO_DATABASE = """
import sys
sys.modules["tzdata"] = None        # as if it were not installed
import weir
assert weir.Limit(1, 1, "day", tz="+05:30").tz == "+05:30"
assert weir.Limit(1, 1, "day", tz="UTC").window_at(86400) == (86400, 2 * 86400)
try:
    weir.Limit(1, 1, "day", tz="Europe/Berlin")
except ValueError as error:
    print(error)
"""


def test_a_machine_without_zones_names_the_package() -> None:
    """As python:slim in a container. Offsets and UTC need no database."""
    done = subprocess.run(
        [sys.executable, "-c", NO_DATABASE],
        env={**os.environ, "PYTHONTZPATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("tz 'Europe/Berlin': this machine has no time zone database")
    assert "pip install tzdata" in done.stdout


def test_only_a_calendar_has_zones_and_weeks() -> None:
    with pytest.raises(ValueError, match="tz is for calendar-window, not for moving-window"):
        Limit(1, 1, "day", tz="UTC", strategy="moving-window")
    # In a process of its own: an application may have a class whose unit is the week.
    program = "import weir; weir.parse('1 per week')"
    parsed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 'unknown unit "week"' in parsed.stderr
    assert weir.parse("1 per 2 weeks", strategy="calendar-window").multiples == 14
    with pytest.raises(ValueError, match="that take a tz have windows"):
        Limit(1).window_at(0.0)


def test_limits_in_two_zones_differ_and_count_apart() -> None:
    table = weir.Table("memory://?keys=64")
    limits = [Limit(1, 1, "day", tz=tz) for tz in ("UTC", "Europe/Berlin", "+01:00")]
    assert len(set(limits)) == 3
    for limit in limits:
        assert table.decide([limit], "a").allowed
        assert not table.decide([limit], "a").allowed
    months = [Limit(1, n, unit, tz="UTC") for n, unit in ((1, "month"), (30, "day"))]
    assert all(table.decide([limit], "a").allowed for limit in months)
