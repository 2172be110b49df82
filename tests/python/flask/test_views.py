"""What may be limited: functions, classes, resources, blocks of code, blueprints."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import flask_restful
import pytest
from flask import Blueprint, Flask
from flask.views import MethodView, View

from flask_views import applied, hello
from weir.flask import (
    ExemptionScope,
    Limiter,
    RateLimitExceeded,
    RouteLimit,
    UsageError,
)


def test_exempt(app: Flask, limiter: Limiter, statuses: Any) -> None:
    app.add_url_rule("/all", "all", limiter.exempt(lambda: "all"))
    assert statuses(9, "/all") == [200] * 9

    @app.route("/application")
    @limiter.exempt(flags=ExemptionScope.APPLICATION)
    def application() -> str:
        return applied(limiter)

    assert statuses(6, "/application") == [200] * 5 + [429]

    @app.route("/limited")
    @limiter.exempt
    @limiter.limit("1 per day")
    def limited() -> str:
        return applied(limiter)

    @app.route("/inside")
    @limiter.limit("1 per day")
    @limiter.exempt
    def inside() -> str:
        return applied(limiter)

    assert statuses(3, "/limited") == statuses(3, "/inside") == [200] * 3


def test_an_exemption_is_seen_through_other_decorators(
    app: Flask, limiter: Limiter, statuses: Any
) -> None:
    def noop(view: Any) -> Any:
        @functools.wraps(view)
        def wrapper() -> Any:
            return view()

        return wrapper

    inner = functools.partial(hello)
    app.add_url_rule("/", "hello", noop(noop(limiter.exempt(lambda: "x"))))
    app.add_url_rule("/partial", "partial", limiter.exempt(inner))
    late = lambda: "late"  # noqa: E731
    app.add_url_rule("/late", "late", noop(late))
    limiter.exempt(late)
    for path in ("/", "/partial", "/late"):
        assert statuses(6, path) == [200] * 6, path


def test_functions_of_the_same_name_do_not_share_limits(
    app: Flask, limiter: Limiter, get: Any
) -> None:
    def make_view(limit: str) -> Any:
        @limiter.limit(limit)
        def view() -> str:
            return applied(limiter)

        return view

    app.add_url_rule("/a", "a", make_view("1 per minute"))
    app.add_url_rule("/b", "b", make_view("2 per minute"))
    assert get("/a").text == "1 per 1 minute"
    assert get("/b").text == "2 per 1 minute"


def test_one_function_as_two_views(app: Flask, limiter: Limiter, get: Any) -> None:
    def view() -> str:
        return applied(limiter)

    app.add_url_rule("/a", "a", limiter.limit("1 per minute")(view))
    app.add_url_rule("/b", "b", limiter.limit("2 per minute")(view))
    app.add_url_rule("/c", "c", view)
    assert [get(path).text for path in ("/a", "/b", "/c")] == [
        "1 per 1 minute",
        "2 per 1 minute",
        "5 per 1 minute, 9999 per 1 day",
    ]


def test_async_views(app: Flask, limiter: Limiter, get: Any) -> None:
    @app.route("/")
    @limiter.limit("1 per minute")
    async def view() -> str:
        return applied(limiter)

    assert get("/").text == "1 per 1 minute"
    assert get("/").status_code == 429


def test_class_based_views(app: Flask, limiter: Limiter, get: Any) -> None:
    class Decorated(MethodView):
        decorators: ClassVar[list[Any]] = [limiter.limit("2 per minute")]

        def get(self) -> str:
            return applied(limiter)

        post = get

    class Methods(MethodView):
        @limiter.limit("1 per minute")
        def post(self) -> str:
            return applied(limiter)

        def get(self) -> str:
            return applied(limiter)

    class Dispatch(View):
        @limiter.limit("1 per minute")
        def dispatch_request(self) -> str:
            return applied(limiter)

    app.add_url_rule("/decorated", view_func=Decorated.as_view("decorated"))
    app.add_url_rule("/methods", view_func=Methods.as_view("methods"))
    app.add_url_rule("/dispatch", view_func=Dispatch.as_view("dispatch"))
    assert get("/decorated").text == "2 per 1 minute"
    assert get("/decorated", method="POST").status_code == 200
    assert get("/decorated").status_code == 429
    # From the first request on: POST has its own limit, GET the defaults.
    for _ in range(2):
        assert get("/methods").text == "5 per 1 minute, 9999 per 1 day"
    assert get("/methods", method="POST").text == "1 per 1 minute"
    assert get("/methods", method="POST").status_code == 429
    assert get("/methods").text == "5 per 1 minute, 9999 per 1 day"
    assert get("/dispatch").text == "1 per 1 minute"
    assert get("/dispatch").status_code == 429


def test_an_exempt_class(app: Flask, limiter: Limiter, statuses: Any) -> None:
    @limiter.exempt
    class Health(MethodView):
        def get(self) -> str:
            return "well"

    app.add_url_rule("/", view_func=Health.as_view("health"))
    assert statuses(9) == [200] * 9


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_flask_restful(app: Flask, limiter: Limiter, get: Any) -> None:
    api = flask_restful.Api(app)

    class All(flask_restful.Resource):
        decorators: ClassVar[list[Any]] = [limiter.limit("1 per minute")]

        def get(self) -> str:
            return "all"

    class One(flask_restful.Resource):
        @limiter.limit("1 per minute")
        def post(self) -> str:
            return "one"

        def get(self) -> str:
            return "other"

    api.add_resource(All, "/all")
    api.add_resource(One, "/one")
    assert [get("/all").status_code for _ in range(2)] == [200, 429]
    assert [get("/one", method="POST").status_code for _ in range(2)] == [200, 429]
    assert get("/one").status_code == 200


def test_a_function_that_a_view_calls(app: Flask, limiter: Limiter, get: Any) -> None:
    @limiter.limit("1 per minute")
    def inner() -> str:
        return applied(limiter)

    @app.route("/")
    def view() -> str:
        return inner()

    @app.route("/always")
    @limiter.limit("3 per minute")
    def always() -> str:
        try:
            return inner()
        except RateLimitExceeded as refused:
            return f"no more than {refused.description}"

    assert get("/").text == "1 per 1 minute"
    assert get("/").status_code == 429
    assert get("/always").text == "1 per 1 minute"
    assert get("/always").text == "no more than 1 per 1 minute"


def test_a_limited_block(app: Flask, limiter: Limiter, get: Any) -> None:
    @app.route("/")
    def view() -> str:
        try:
            with limiter.limit("1 per minute"):
                return "sent"
        except RateLimitExceeded:
            return "sent already"

    assert [get("/").text for _ in range(3)] == ["sent", "sent already", "sent already"]

    @app.route("/<int:n>")
    def by_number(n: int) -> str:
        with limiter.limit(f"{n} per minute"):
            return applied(limiter)

    assert get("/1").text == "1 per 1 minute"
    assert get("/2").text == "2 per 1 minute"
    assert get("/1").status_code == 429


def test_a_block_with_new_options_each_time_is_not_reported_as_a_duplicate(
    app: Flask, make: Any, get: Any, caplog: Any
) -> None:
    limiter = make(strict=True)

    @app.route("/")
    def view() -> str:
        with limiter.limit("3 per minute", deduct_when=lambda response: True):
            return "view"

    assert [get("/").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    assert "ETWICE" not in caplog.text


def test_new_blocks_use_bounded_memory(app: Flask, limiter: Limiter, get: Any) -> None:
    @app.route("/<int:n>")
    def view(n: int) -> str:
        with limiter.limit(f"{n} per minute"):
            return ""

    for n in range(1, 1100):
        assert get(f"/{n}").status_code == 200
    assert len(limiter._blocks) <= 1024
    state = app.extensions["weir"][limiter]
    assert max(map(len, state.learned.values())) == 1


def test_a_limited_function_outside_of_a_request(app: Flask, limiter: Limiter) -> None:
    assert limiter.limit("1 per minute")(hello)() == "hello"
    with Flask("another").test_request_context("/"):
        assert limiter.limit("1 per minute")(hello)() == "hello"


def test_route_limit_by_itself(app: Flask, limiter: Limiter, statuses: Any) -> None:
    app.add_url_rule("/", "hello", RouteLimit("1/minute", limiter=limiter)(hello))
    assert statuses(2) == [200, 429]


@pytest.mark.parametrize("thing", [42, "endpoint", None, MethodView])
def test_a_limit_on_what_is_no_view(limiter: Limiter, thing: Any) -> None:
    with pytest.raises(UsageError, match="ENOTVIEW"):
        limiter.limit("1/minute")(thing)


def test_blueprint_returns_nothing_and_decorates(app: Flask, limiter: Limiter) -> None:
    assert limiter.limit("1/minute")(Blueprint("bp", __name__)) is None
