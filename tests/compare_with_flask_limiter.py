"""One application on Flask-Limiter and on Weir, step by step: both say the same.

What the random applications of test_differential.py do not have. Where the two differ on purpose is
said in docs/differences.md, and is not part of these.
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
    """One of the two packages, an application, and what came of it."""

    def __init__(self, package: Any, clock: Any) -> None:
        self.package = package
        self.clock = clock
        self.app = Flask("tested")
        self.said: list[Any] = []

    def make(self, app: Flask | None = None, **options: Any) -> Any:
        options.setdefault("storage_uri", "memory://")
        options.setdefault("headers_enabled", True)
        key_func = options.pop("key_func", self.package.util.get_remote_address)
        return self.package.Limiter(key_func, app=app or self.app, **options)

    def ask(self, path: str = "/", times: int = 1, method: str = "GET", **headers: str) -> None:
        for _ in range(times):
            reply = self.app.test_client().open(
                path,
                method=method,
                headers={name.replace("_", "-"): value for name, value in headers.items()},
                environ_base={"REMOTE_ADDR": "10.0.0.1"},
            )
            shown = {k: v for k, v in reply.headers.items() if k.lower().startswith(SHOWN)}
            self.said.append((path, method, reply.status_code, reply.get_data(as_text=True), shown))

    def note(self, *what: Any) -> None:
        self.said.append(what)

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


#: What each package says of a reason comes after one of these.
REASONS = (': "', ": couldn't parse", ": no granularity", " EEMPTY: ", ": redis://", " after ")


def beginning(message: str) -> str:
    """A line of the log without the reason."""
    for text in REASONS:
        message = message.partition(text)[0]
    return message


def compare(scenario: Callable[[Side], None], clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Play it on either side: the same is said, and logged by the same names and levels.

    Lines of the log begin as Flask-Limiter's do.
    """
    caplog.set_level(logging.DEBUG, "flask-limiter")
    sides = []
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
        sides.append((side.said, logs))
    assert sides[0][0]
    for theirs, ours in zip(sides[0][0], sides[1][0], strict=True):
        assert ours == theirs
    assert sides[1][1] == sides[0][1]
