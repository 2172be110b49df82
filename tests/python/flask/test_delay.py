"""The leaky bucket: admitted requests wait for their turn."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from flask import Flask

from weir.flask import ApplicationLimit


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch, clock: Any) -> list[float]:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        clock.forward(seconds)

    async def sleep_async(seconds: float) -> None:
        slept.append(-round(seconds, 3))

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(asyncio, "sleep", sleep_async)
    return slept


def test_a_request_waits_before_its_view(
    make: Any, app: Flask, get: Any, slept: list[float], clock: Any
) -> None:
    limiter = make()
    started = clock.now

    @app.route("/")
    @limiter.limit("2/second", strategy="leaky-bucket", max_delay=1)
    def view() -> str:
        return f"{clock.now - started:.2f}"

    assert [get("/").text for _ in range(3)] == ["0.00", "0.50", "1.00"]
    assert slept == [0.5, 0.5]


def test_a_refused_request_does_not_wait(
    make: Any, app: Flask, get: Any, slept: list[float], monkeypatch: Any
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.append(round(seconds, 3)))
    limiter = make()
    app.add_url_rule(
        "/", "x", limiter.limit("2/second", strategy="leaky-bucket", max_delay=1)(lambda: "x")
    )
    assert [get("/").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    assert slept == [0.5, 1.0]


def test_what_the_application_makes_wait_the_route_may_refuse(
    make: Any, app: Flask, get: Any, slept: list[float]
) -> None:
    limiter = make(application_limits=[ApplicationLimit("2/second", max_delay=1)])
    app.add_url_rule("/", "x", limiter.limit("1/hour")(lambda: "x"))
    assert [get("/").status_code for _ in range(3)] == [200, 429, 429]
    assert slept == []


def test_default_limits_make_wait(make: Any, app: Flask, get: Any, slept: list[float]) -> None:
    make(default_limits=["4/second"], strategy="leaky-bucket")
    app.add_url_rule("/", "x", lambda: "x")
    assert [get("/").status_code for _ in range(3)] == [200] * 3
    assert slept == [0.25, 0.25]


def test_a_request_waits_also_if_its_view_does_not_call_what_it_called_before(
    make: Any, app: Flask, get: Any, slept: list[float]
) -> None:
    limiter = make(application_limits=["4/second"], strategy="leaky-bucket")
    helper = limiter.limit("1000/hour", strategy="fixed-window")(lambda: None)
    calls = [True]

    @app.route("/")
    def view() -> str:
        if calls[0]:
            helper()
        return "view"

    for calls[0] in (True, True, False, False):
        assert get("/").status_code == 200
    assert slept == [0.25, 0.25, 0.25]


def test_an_async_view_waits_without_blocking(
    make: Any, app: Flask, get: Any, slept: list[float]
) -> None:
    limiter = make()

    @app.route("/")
    @limiter.limit("4/second", strategy="leaky-bucket")
    async def view() -> str:
        return "view"

    assert [get("/").text for _ in range(2)] == ["view"] * 2
    assert slept == [-0.25]
