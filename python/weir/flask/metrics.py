"""A page for Prometheus.

::

    from weir.flask.metrics import mount

    mount(app, limiter)  # /metrics

It shows the decisions of all workers of the limiter, whichever worker answers; see
:mod:`weir.metrics`. The page itself is not limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from weir.metrics import Collector

from .context import answer_of
from .errors import ConfigurationError
from .limiter import Limiter
from .state import AppState

__all__ = ["collector", "mount"]


def collector(limiter: Limiter) -> Collector:
    """A collector of the decisions of ``limiter`` on all its applications, for any registry."""

    def stores() -> Iterator[Any]:
        states: list[AppState] = list(limiter._states)
        for state in states:
            yield state.meters

    return Collector(stores)


def mount(
    app: Flask,
    limiter: Limiter,
    path: str = "/metrics",
    *,
    authorize: Callable[[], bool] | None = None,
    registry: CollectorRegistry | None = None,
    endpoint: str = "weir_metrics",
) -> CollectorRegistry:
    """Serve the metrics of ``limiter`` at ``path``. Returns the registry.

    :param authorize: a function that is called in the request; if it returns false, the answer is
        403. Without it, everyone who reaches the path sees the names of limits and stores and the
        rates of requests, but no clients.
    :param registry: the registry to add them to, which is shown completely. By default a new one.
    :param endpoint: the name of the view
    :raises ConfigurationError: ``EOPTION``, for an ``authorize`` that cannot be called.
    """
    if authorize is not None and not callable(authorize):
        raise ConfigurationError("EOPTION", "authorize must be a function that returns a bool")
    shown = CollectorRegistry() if registry is None else registry
    shown.register(collector(limiter))

    def view() -> Response:
        if authorize is not None and not answer_of(authorize):
            return Response("Forbidden\n", 403, mimetype="text/plain")
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        response = Response(encode(shown), content_type=content_type)
        response.headers["Cache-Control"] = "no-store"
        return response

    app.add_url_rule(path, endpoint, limiter.exempt(view), methods=["GET"])
    return shown
