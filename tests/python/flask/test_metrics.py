"""The page for Prometheus, and what of a request is counted under which limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request
from flask.views import MethodView
from prometheus_client import CollectorRegistry, Counter

import weir
from weir.flask import Limiter
from weir.flask.errors import ConfigurationError
from weir.flask.metrics import collector, mount

Make = Callable[..., Limiter]
Statuses = Callable[..., list[int]]


@pytest.fixture
def counts(app: Flask) -> Callable[..., tuple[float, ...]]:
    """Of a limit: allowed, denied, would have been denied."""

    def counts(limiter: Limiter, limit: str) -> tuple[float, ...]:
        registry = CollectorRegistry()
        registry.register(collector(limiter))

        def value(name: str, **labels: str) -> float:
            return registry.get_sample_value(name, {"limit": limit, **labels}) or 0.0

        return (
            value("weir_decisions_total", verdict="allowed"),
            value("weir_decisions_total", verdict="denied"),
            value("weir_shadow_denied_total"),
        )

    return counts


Counts = Callable[..., tuple[float, ...]]


def hello() -> str:
    return "hello"


def test_the_page_is_there_and_is_not_limited(app: Flask, make: Make, get: Any) -> None:
    limiter = make(default_limits=["2/minute"], application_limits=["3/hour"])
    mount(app, limiter)
    app.route("/")(hello)
    assert [get("/").status_code for _ in range(5)] == [200, 200, 429, 429, 429]
    for _ in range(9):
        page = get("/metrics")
        assert page.status_code == 200
    assert page.content_type.startswith("text/plain; version=")
    assert page.headers["Cache-Control"] == "no-store"
    assert 'weir_decisions_total{limit="2 per 1 minute",verdict="denied"} 3.0' in page.text
    assert "10.0.0.1" not in page.text


def test_openmetrics_if_the_client_accepts_it(app: Flask, make: Make, get: Any) -> None:
    mount(app, make())
    page = get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert page.content_type.startswith("application/openmetrics-text")
    assert page.text.endswith("# EOF\n")


def test_who_is_not_authorized_sees_nothing(app: Flask, make: Make, get: Any) -> None:
    mount(app, make(), "/hidden", authorize=lambda: request.headers.get("X-Token") == "t")
    refused = get("/hidden")
    assert refused.status_code == 403
    assert "weir" not in refused.text
    assert get("/hidden", X_Token="t").status_code == 200
    with pytest.raises(ConfigurationError, match="EOPTION"):
        mount(app, make(), "/other", authorize=True, endpoint="other")  # type: ignore[arg-type]


def test_a_coroutine_function_may_check_access(app: Flask, make: Make, get: Any) -> None:
    async def only_bob() -> bool:
        return request.headers.get("X-User") == "bob"

    mount(app, make(), authorize=only_bob)
    assert get("/metrics").status_code == 403
    assert get("/metrics", X_User="bob").status_code == 200


def test_custom_metrics_are_on_the_page(app: Flask, make: Make, get: Any) -> None:
    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc(3)
    assert mount(app, make(), registry=registry) is registry
    text = get("/metrics").text
    assert "orders_total 3.0" in text
    assert "weir_table_keys" in text


def test_two_limiters_have_two_pages(app: Flask, make: Make, get: Any) -> None:
    first, second = make(), make()
    mount(app, first, "/first", endpoint="first")
    mount(app, second, "/second", endpoint="second")
    app.route("/")(first.limit("1/minute")(hello))
    get("/")
    assert 'limit="1 per 1 minute"' in get("/first").text
    assert 'limit="1 per 1 minute"' not in get("/second").text


# ---------------------------------------------------------------------------- what counts as what


def test_of_a_denied_request_only_those_count_that_denied(
    app: Flask, make: Make, statuses: Statuses, counts: Counts
) -> None:
    limiter = make()
    app.route("/")(limiter.limit("3/minute; 100/hour")(hello))
    statuses(10)
    assert counts(limiter, "3 per 1 minute") == (3, 7, 0)
    assert counts(limiter, "100 per 1 hour") == (3, 0, 0)


@pytest.mark.parametrize("whole", [False, True], ids=["limit", "limiter"])
def test_shadow_limits_count_what_they_would_have_denied(
    app: Flask, make: Make, statuses: Statuses, counts: Counts, whole: bool
) -> None:
    limiter = make(shadow=whole)
    app.route("/")(limiter.limit("3/minute", shadow=not whole)(hello))
    assert statuses(10) == [200] * 10
    assert counts(limiter, "3 per 1 minute") == (0, 0, 7)
    assert all(top.denied == 0 for top in limiter._state.stats_table.top_clients())


def test_a_limit_that_counts_after_the_response_counts_each_request_once(
    app: Flask, make: Make, statuses: Statuses, counts: Counts
) -> None:
    limiter = make()
    app.route("/")(limiter.limit("3/minute", deduct_when=lambda response: True)(hello))
    assert statuses(10) == [200] * 3 + [429] * 7
    assert counts(limiter, "3 per 1 minute") == (3, 7, 0)


def test_the_long_way_counts_as_the_short_one(
    app: Flask, make: Make, statuses: Statuses, counts: Counts
) -> None:
    limiter = make()
    options: dict[str, Any] = {"exempt_when": lambda: False}
    decorate = limiter.limit("3/minute", deduct_when=lambda response: True, **options)
    app.route("/")(limiter.limit("100/hour", **options)(decorate(hello)))
    assert statuses(10) == [200] * 3 + [429] * 7
    assert counts(limiter, "3 per 1 minute") == (3, 7, 0)
    assert counts(limiter, "100 per 1 hour") == (3, 0, 0)


def test_a_meta_limit_that_refuses_counts_as_denied(
    app: Flask, make: Make, statuses: Statuses, counts: Counts
) -> None:
    limiter = make(meta_limits=["2/hour"])
    app.route("/")(limiter.limit("1/minute")(hello))
    assert statuses(10) == [200] + [429] * 9
    assert counts(limiter, "1 per 1 minute") == (1, 2, 0)
    assert counts(limiter, "2 per 1 hour")[1] == 7


def test_clients_that_make_up_limits_push_no_declared_one_out(
    app: Flask, make: Make, get: Any, counts: Counts
) -> None:
    limiter = make(default_limits=["501 per hour"], meta_limits=["502 per hour"])
    by_client = limiter.limit(lambda: f"{request.headers['X-Limit']} per minute")
    app.add_url_rule("/made-up", "made_up", by_client(hello))

    class View(MethodView):
        @limiter.limit("2 per day")
        def get(self) -> str:
            return "hello"

    app.add_url_rule("/class", view_func=View.as_view("class"))
    app.add_url_rule("/fixed", "fixed", limiter.limit("3 per day")(lambda: "hello"))
    app.add_url_rule("/plain", "plain", lambda: "hello")
    for i in range(100, 200):
        get("/made-up", X_Limit=str(i))
    for path in ("/class", "/fixed"):
        for _ in range(4):
            get(path)
    get("/plain")
    assert counts(limiter, "2 per 1 day") == (2, 2, 0)
    assert counts(limiter, "3 per 1 day") == (3, 1, 0)
    assert counts(limiter, "501 per 1 hour") == (1, 0, 0)
    assert counts(limiter, "502 per 1 hour")[0] == 3
    labels = {row.limit for row in limiter._state.stats_table.counts()}
    assert len(labels) == 64
    assert "other" in labels
    assert limiter._state.stats_table.info()["keys"] <= 120, "labels are not keys"


def test_a_failing_table_is_reported(app: Flask, make: Make, get: Any, tmp_path: Any) -> None:
    path = tmp_path / "table"
    limiter = make(storage_uri=f"file://{path}", swallow_errors=True)
    mount(app, limiter)
    app.route("/")(limiter.limit("5/minute")(hello))
    assert get("/").status_code == 200
    error = weir.TableError("damaged")

    class Failing(weir.storage.Storage):
        def decide(self, *arguments: Any) -> Any:
            raise error

        def clear(self, *arguments: Any) -> None:
            raise error

    limiter._state.store.storage = Failing()
    limiter._changed()
    assert get("/").status_code == 200
    store = f'store="file://{path}"'
    assert f'weir_store_errors_total{{kind="table",{store}}} 1.0' in get("/metrics").text
    assert "weir_store_seconds_count" not in get("/metrics").text, "tables are not timed"
