"""One application on Flask-Limiter and on Weir, step by step: both give the same responses.

Covers what the random applications of test_differential.py do not. Intended differences are listed
in docs/differences.md and are not compared.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import flask_limiter
import flask_limiter.constants
import flask_limiter.util
import pytest
from flask import Flask

import weir.flask
import weir.flask.constants
import weir.flask.util

SHOWN = ("x-", "retry-after")


class Side:
    """One of the two packages, an application, and its responses."""

    def __init__(self, package: Any, clock: Any) -> None:
        self.package = package
        self.clock = clock
        self.app = Flask("tested")
        self.results: list[Any] = []

    def make(self, app: Flask | None = None, **options: Any) -> Any:
        options.setdefault("storage_uri", "memory://")
        options.setdefault("headers_enabled", True)
        key_func = options.pop("key_func", self.package.util.get_remote_address)
        return self.package.Limiter(key_func, app=app or self.app, **options)

    def send(self, path: str = "/", times: int = 1, method: str = "GET", **headers: str) -> None:
        for _ in range(times):
            reply = self.app.test_client().open(
                path,
                method=method,
                headers={name.replace("_", "-"): value for name, value in headers.items()},
                environ_base={"REMOTE_ADDR": "10.0.0.1"},
            )
            shown = {k: v for k, v in reply.headers.items() if k.lower().startswith(SHOWN)}
            self.results.append(
                (path, method, reply.status_code, reply.get_data(as_text=True), shown)
            )

    def note(self, *what: Any) -> None:
        self.results.append(what)

    def attempt(self, function: Callable[[], Any]) -> None:
        try:
            self.note("returns", function())
        except Exception as error:
            self.note("raises", type(error).__name__)


def named(name: str) -> Callable[[], str]:
    """A view with a unique name, because Flask-Limiter stores limits by name."""

    def view() -> str:
        return name

    view.__name__ = view.__qualname__ = name
    return view


#: The reason in a log line follows one of these texts.
REASONS = (': "', ": couldn't parse", ": no granularity", " EEMPTY: ", ": redis://", " after ")


def beginning(message: str) -> str:
    """A line of the log without the reason."""
    for text in REASONS:
        message = message.partition(text)[0]
    return message


def compare(scenario: Callable[[Side], None], clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Run it on both sides: the responses, and the names and levels of log lines, are equal.

    Lines of the log begin as Flask-Limiter's do.
    """
    caplog.set_level(logging.DEBUG, "flask-limiter")
    results = []
    start = clock.now
    for package in (flask_limiter, weir.flask):
        clock.now = start
        caplog.clear()
        side = Side(package, clock)
        # As under weir.compat, keys are shown as they are.
        with warnings.catch_warnings(), mock.patch("weir._log._shows_keys", True):
            warnings.simplefilter("ignore")
            scenario(side)
        records = [record for record in caplog.records if record.name == "flask-limiter"]
        logs = [(record.levelname, beginning(record.getMessage())) for record in records]
        results.append((side.results, logs))
    assert results[0][0]
    for theirs, ours in zip(results[0][0], results[1][0], strict=True):
        assert ours == theirs
    assert results[1][1] == results[0][1]
