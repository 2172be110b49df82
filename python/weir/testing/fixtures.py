"""Fixtures for pytest: ``pytest_plugins = ["weir.testing.fixtures"]`` in ``conftest.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from . import Clock, reset_limits

__all__ = ["clock", "fresh_limits"]


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> Iterator[Clock]:
    """A clock that stands still until ``clock.move(seconds)``.

    It is also the clock of the stores of the fixture ``app``, if the test uses that.
    """
    apps = [request.getfixturevalue("app")] if "app" in request.fixturenames else []
    with Clock(None, *apps) as stopped:
        yield stopped


@pytest.fixture
def fresh_limits(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], None]]:
    """Reset the limits of the fixture ``app`` before and after the test.

    Without such a fixture, call it: ``fresh_limits(app)``.
    """
    apps: list[Any] = []

    def fresh(app: Any) -> None:
        reset_limits(app)
        apps.append(app)

    if _has_app(request):
        fresh(request.getfixturevalue("app"))
    yield fresh
    for app in apps:
        reset_limits(app)


def _has_app(request: pytest.FixtureRequest) -> bool:
    if "app" in request.fixturenames:
        return True
    try:
        request.getfixturevalue("app")
    except pytest.FixtureLookupError:
        return False
    return True
