"""Limits of the calendar on views: midnights of a zone, weeks, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

from weir.flask import Limit, Limiter
from weir.testing import Clock, assert_limited

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def clock() -> Iterator[Clock]:
    with Clock(datetime(2024, 3, 30, 23, 59, 58, tzinfo=BERLIN).timestamp()) as clock:
        yield clock


def app_with(limit: str, **options: object) -> Flask:
    app = Flask(__name__)
    limiter = Limiter(lambda: "alice", app=app, headers_enabled=True)

    @app.get("/")
    @limiter.limit(limit, **options)  # type: ignore[arg-type]
    def view() -> str:
        return "here"

    return app


@pytest.mark.parametrize("zone", ["Europe/Berlin", BERLIN])
def test_a_day_starts_at_midnight_of_the_zone(clock: Clock, zone: str | ZoneInfo) -> None:
    client = app_with("3 per day", strategy="calendar-window", tz=zone).test_client()
    denied = assert_limited(client, "/", after=3)
    assert denied.headers["Retry-After"] == "2"
    clock.move(2)
    denied = assert_limited(client, "/", after=3)
    assert denied.headers["Retry-After"] == str(23 * 3600)  # the clock goes forward that night


@pytest.mark.parametrize("zone", ["+05:30", timezone(timedelta(hours=5, minutes=30))])
def test_an_offset_is_a_zone(clock: Clock, zone: str | timezone) -> None:
    clock.set(datetime(2024, 5, 7, 18, 29, 59, tzinfo=timezone.utc).timestamp())
    client = app_with("1 per day", tz=zone).test_client()
    assert_limited(client, "/", after=1)
    clock.move(1)
    assert_limited(client, "/", after=1)


def test_weeks_start_on_monday_wherever_the_strategy_is_set(clock: Clock) -> None:
    app = Flask(__name__)
    limiter = Limiter(
        lambda: "alice",
        app=app,
        strategy="calendar-window",
        default_limits=["2 per week", Limit("5 per month", tz="UTC")],
    )
    assert limiter
    app.add_url_rule("/", view_func=lambda: "here")
    clock.set(datetime(2024, 4, 7, 23, 59, 59, tzinfo=timezone.utc).timestamp())  # a Sunday
    assert_limited(app.test_client(), "/", after=2)
    clock.move(1)
    assert_limited(app.test_client(), "/", after=2)


def test_two_zones_are_two_counters(clock: Clock) -> None:
    app = Flask(__name__)
    limiter = Limiter(lambda: "alice", app=app)
    for path, zone in (("/a", "UTC"), ("/b", "Asia/Tokyo")):
        limit = limiter.shared_limit("2 per day", "both", strategy="calendar-window", tz=zone)
        app.add_url_rule(path, path, limit(lambda: "here"))
    for path in ("/a", "/b"):
        assert_limited(app.test_client(), path, after=2)


def test_what_cannot_be_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ValueError, match="unknown tz 'Europe/Berlim'"):
        app_with("3 per day", tz="Europe/Berlim")
