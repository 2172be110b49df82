"""Helpers for tests of applications that use Weir.

With pytest, in ``conftest.py``::

    pytest_plugins = ["weir.testing.fixtures"]

gives the fixtures ``fresh_limits`` and ``clock``. To test a custom store, write a
subclass of :class:`StoreConformance`.

>>> from flask import Flask
>>> from weir.flask import Limiter
>>> app = Flask(__name__)
>>> limiter = Limiter(lambda: "alice", app=app)
>>> @app.get("/login")
... @limiter.limit("5/minute")
... def login():
...     return "hello"
>>> with Clock() as clock:
...     assert_limited(app.test_client(), "/login", after=5).status
...     clock.move(60)
...     app.test_client().get("/login").status
'429 TOO MANY REQUESTS'
'200 OK'
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conformance import StoreConformance

__all__ = ["Clock", "StoreConformance", "assert_limited", "reset_limits"]


def __getattr__(name: str) -> Any:
    """Import StoreConformance on demand, because it needs pytest."""
    if name == "StoreConformance":
        from .conformance import StoreConformance

        return StoreConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Clock:
    """Stops ``time.time()``, which Weir uses, and moves it on request.

    Other modules see the same time. Remote stores have their own clocks: pass these stores, or the
    Flask applications that use them, and their clocks are moved, too.

    :param now: the time to start with, in seconds since the epoch; by default the present
    :param stores: stores, or applications, whose clocks are moved; a store without
        ``set_clock()`` uses ``time.time()``, or its clock cannot be moved
    """

    def __init__(self, now: float | None = None, *stores: Any) -> None:
        self.now = time.time() if now is None else now
        found = [one for store in stores for one in _stores_of(store)]
        self._stores = [store for store in found if hasattr(store, "set_clock")]
        self._true: Any = None

    def __enter__(self) -> Clock:
        self._true = time.time
        time.time = lambda: self.now
        self.set(self.now)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        time.time = self._true
        for store in self._stores:
            store.set_clock()

    def set(self, now: float) -> None:
        """Set the time, in seconds since the epoch."""
        self.now = now
        for store in self._stores:
            store.set_clock(now, True)

    def move(self, seconds: float) -> None:
        """Move the time by ``seconds``; negative: step back."""
        self.set(self.now + seconds)


def _stores_of(what: Any) -> list[Any]:
    """The stores of an application's limiters; a store as it is."""
    if not hasattr(what, "extensions"):
        return [what]
    with what.app_context():
        return [limiter.storage for limiter in _limiters_of(what)]


def _limiters_of(app: Any) -> list[Any]:
    limiters = app.extensions.get("limiter", ())
    return list(limiters) if isinstance(limiters, set | list | tuple) else [limiters]


def assert_limited(
    client: Any,
    path: str,
    *,
    after: int,
    method: str = "GET",
    status: int = 429,
    **options: Any,
) -> Any:
    """Assert that ``after`` requests pass and the next one is denied. Returns the denied response.

    client: Flask's or Werkzeug's test client, or anything with ``open(path, method=…)`` or, as
    ``requests`` and httpx have it, ``request(method, path)``.
    options: for each request, such as ``json`` or ``headers``.
    """
    for number in range(1, after + 1):
        response = _request(client, method, path, options)
        if response.status_code == status:
            raise AssertionError(
                f"{method} {path}: request {number} was denied with {status}; the first {after} "
                "should have passed. Did an earlier test use up the limit? Reset it by "
                "weir.testing.reset_limits(app), or use the fixture fresh_limits"
            )
    response = _request(client, method, path, options)
    if response.status_code != status:
        raise AssertionError(
            f"{method} {path}: request {after + 1} was answered with {response.status_code}; it "
            f"should have been denied with {status}. {_reason(response.status_code)}"
        )
    return response


def _reason(status: int) -> str:
    if status in (404, 405):
        return "Are the path and the method right?"
    return (
        "Is the limiter enabled in tests (RATELIMIT_ENABLED), and do all requests come from one "
        "client?"
    )


def _request(client: Any, method: str, path: str, options: dict[str, Any]) -> Any:
    if hasattr(client, "open"):
        return client.open(path, method=method, **options)
    return client.request(method, path, **options)


def reset_limits(app: Any) -> None:
    """Delete all counters of a Flask application's limiters."""
    limiters = _limiters_of(app)
    if not limiters:
        raise AssertionError("the application has no limiter: reset_limits(app) after init_app()")
    with app.app_context():
        for limiter in limiters:
            limiter.reset()
