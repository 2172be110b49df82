"""What all Python tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from servers.isolation import isolate

# On a busy machine the duration of an example has no meaning.
settings.register_profile(
    "weir", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("weir")


def pytest_configure(config: pytest.Config) -> None:
    """Each process of pytest-xdist sees the tables and servers of its own tests only."""
    if not hasattr(config, "workerinput") and config.getoption("numprocesses", None):
        return  # it starts the others, and runs no test
    isolate()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: none of them is still running alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """A test that turns a logger off, or a program that it runs, does not do so for the next."""
    loggers = [logging.getLogger(name) for name in ("weir", "weir.audit", "flask-limiter")]
    before = [(one.level, one.disabled, one.propagate, one.handlers[:]) for one in loggers]
    yield
    for one, (level, disabled, propagate, handlers) in zip(loggers, before, strict=True):
        one.setLevel(level)
        one.disabled, one.propagate, one.handlers[:] = disabled, propagate, handlers
