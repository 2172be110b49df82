"""What the tests of the Flask extension share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from clocks import Clock, stop_clock
from weir import audit
from weir.flask import Limiter
from weir.flask.util import get_remote_address


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No summaries of breaches in an earlier test: when the clock moves on, their windows end."""
    yield
    for known in list(audit._audits):
        known._reset()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stop_clock(monkeypatch, 1_700_000_000.25)


@pytest.fixture
def app(clock: Clock) -> Flask:
    return Flask("tested")


@pytest.fixture
def make(app: Flask) -> Callable[..., Limiter]:
    """Makes a limiter of ``app`` that counts in memory."""

    def make(**options: Any) -> Limiter:
        options.setdefault("storage_uri", "memory://")
        return Limiter(get_remote_address, app=options.pop("app", app), **options)

    return make


@pytest.fixture
def get(app: Flask) -> Callable[..., Any]:
    """Sends a request; the response."""

    def get(path: str = "/", method: str = "GET", address: str = "10.0.0.1", **headers: str) -> Any:
        app._got_first_request = False  # tests add routes as they go
        reply = app.test_client().open(
            path,
            method=method,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            environ_base={"REMOTE_ADDR": address},
        )
        app._got_first_request = False
        return reply

    return get


@pytest.fixture
def statuses(get: Callable[..., Any]) -> Callable[..., list[int]]:
    """Sends some requests; their statuses."""

    def statuses(n: int, path: str = "/", **options: Any) -> list[int]:
        return [get(path, **options).status_code for _ in range(n)]

    return statuses


@pytest.fixture
def limiter(make: Callable[..., Limiter]) -> Limiter:
    """One with default and application limits."""
    return make(default_limits=["5 per minute"], application_limits=["9999 per day"])
