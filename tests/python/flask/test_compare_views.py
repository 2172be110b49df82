"""Views of every kind: what they and their clients receive, compared with Flask-Limiter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import flask
import flask_restful
import flask_restx
import pytest
from flask import Blueprint, jsonify, make_response, request
from flask.views import MethodView, View
from werkzeug.exceptions import TooManyRequests

from compare_with_flask_limiter import Side, compare, named

scenarios: list[Callable[[Side], None]] = []


def scenario(function: Callable[[Side], None]) -> Callable[[Side], None]:
    scenarios.append(function)
    return function


# ------------------------------------------------------------------------------ kinds of views


@scenario
def decorators_of_a_class(side: Side) -> None:
    limiter = side.make(default_limits=["5/minute"])

    class Both(View):
        methods = ("GET", "POST")
        decorators: ClassVar[list[Any]] = [
            limiter.limit("1/minute", methods=["GET"]),
            limiter.limit("2/minute", per_method=True),
        ]

        def dispatch_request(self) -> str:
            return "both"

    side.app.add_url_rule("/", view_func=Both.as_view("both"))
    side.send("/", 3)
    side.send("/", 3, "POST")


def limited_resources(limiter: Any, base: Any) -> list[type]:
    """Resources whose limits stand on the class, on its methods, or in its lists of decorators."""

    class All(base):  # type: ignore[misc]
        decorators: ClassVar[list[Any]] = [limiter.limit("1/minute")]

        def get(self) -> str:
            return "all"

        def post(self) -> str:
            return "all"

    class Methods(base):  # type: ignore[misc]
        @limiter.limit("1/minute")
        def post(self) -> str:
            return "post"

        @limiter.limit("2/minute", error_message="slow")
        def get(self) -> str:
            return "get"

    class Inner(base):  # type: ignore[misc]
        method_decorators: ClassVar[list[Any]] = [limiter.limit("1/minute")]

        def get(self) -> str:
            return "inner"

    class Each(base):  # type: ignore[misc]
        method_decorators: ClassVar[dict[str, list[Any]]] = {
            "get": [limiter.limit("1/minute")],
            "post": [limiter.limit("2/minute")],
        }

        def get(self) -> str:
            return "get"

        def post(self) -> str:
            return "post"

    return [All, Methods, Inner, Each]


def exempt_and_shared(limiter: Any, base: Any) -> list[type]:
    class Exempt(base):  # type: ignore[misc]
        decorators: ClassVar[list[Any]] = [limiter.exempt]

        def get(self) -> str:
            return "exempt"

    class Shared(base):  # type: ignore[misc]
        decorators: ClassVar[list[Any]] = [
            limiter.limit("1/minute", cost=lambda: 1, per_method=True),
            limiter.shared_limit("3/hour", scope="all"),
        ]

        def get(self) -> str:
            return "get"

        def post(self) -> str:
            return "post"

    return [Exempt, Shared]


def resources(side: Side, api: Any, base: Any) -> None:
    limiter = side.make(default_limits=["5/minute"])
    classes = [*limited_resources(limiter, base), *exempt_and_shared(limiter, base)]
    for n, resource in enumerate(classes):
        api.add_resource(resource, f"/{n}")
    for n in range(len(classes)):
        side.send(f"/{n}", 3)
        side.send(f"/{n}", 3, "POST")


@scenario
def flask_restful_resources(side: Side) -> None:
    resources(side, flask_restful.Api(side.app), flask_restful.Resource)


@scenario
def flask_restx_resources(side: Side) -> None:
    resources(side, flask_restx.Api(side.app), flask_restx.Resource)


@scenario
def flask_restx_namespaces(side: Side) -> None:
    limiter = side.make(default_limits=["5/minute"])
    blueprint = Blueprint("api", "tested", url_prefix="/api")
    limiter.limit("3/minute")(blueprint)
    api = flask_restx.Api(blueprint)
    things = api.namespace("things", decorators=[limiter.limit("2/minute")])
    others = api.namespace("others")

    @things.route("/")
    class Thing(flask_restx.Resource):
        def get(self) -> str:
            return "get"

        @limiter.limit("1/minute")
        def post(self) -> str:
            return "post"

    @others.route("/<int:number>")
    class Other(flask_restx.Resource):
        def get(self, number: int) -> int:
            return number

    @others.errorhandler(side.package.RateLimitExceeded)
    def refused(error: Any) -> Any:
        return {"message": f"limited to {error.description}"}, 429

    side.app.register_blueprint(blueprint)
    side.send("/api/things/", 3)
    side.send("/api/things/", 3, "POST")
    side.send("/api/others/1", 4)
    side.send("/api/nowhere", 2)


@scenario
def async_views(side: Side) -> None:
    limiter = side.make(default_limits=["5/minute"])

    @side.app.route("/function")
    @limiter.limit("1/minute")
    async def function() -> str:
        return str([str(limit.limit) for limit in limiter.current_limits])

    @side.app.route("/default")
    async def default() -> str:
        return "default"

    class Method(MethodView):
        @limiter.limit("1/minute")
        async def get(self) -> str:
            return "method"

    class Decorated(MethodView):
        decorators: ClassVar[list[Any]] = [limiter.limit("1/minute")]

        async def get(self) -> str:
            return "decorated"

    side.app.add_url_rule("/method", view_func=Method.as_view("method"))
    side.app.add_url_rule("/decorated", view_func=Decorated.as_view("decorated"))
    for path in ("/function", "/default", "/method", "/decorated"):
        side.send(path, 3)


@scenario
def a_block_that_is_caught(side: Side) -> None:
    limiter = side.make(default_limits=["4/minute"])

    def reported() -> Any:
        return [(str(x.limit), x.breached, x.remaining) for x in limiter.current_limits]

    @side.app.route("/")
    def view() -> str:
        try:
            with limiter.limit("1/minute"):
                return f"in {reported()}"
        except side.package.RateLimitExceeded as error:
            return f"caught {error.description} {reported()}"

    side.send("/", 4)


@scenario
def a_block_whose_options_are_made_anew(side: Side) -> None:
    limiter = side.make(default_limits=["9/minute"])

    @side.app.route("/")
    def view() -> Any:
        with limiter.limit("2/hour", deduct_when=lambda response: response.status_code == 200):
            return "view", int(request.headers.get("X-Status", "200"))

    side.send("/", 4, X_Status="400")
    side.send("/", 4)


@scenario
def a_block_in_a_limited_view(side: Side) -> None:
    limiter = side.make(default_limits=["9/minute"])

    @side.app.route("/")
    @limiter.limit("3/minute")
    def view() -> str:
        with limiter.limit("2/hour"):
            return str([str(limit.limit) for limit in limiter.current_limits])

    side.send("/", 4)


# ------------------------------------------------------------------------- what a limit reports


@scenario
def what_a_request_limit_has(side: Side) -> None:
    limiter = side.make(application_limits=["100/day"], key_prefix="p")

    def shown(limit: Any) -> Any:
        item = limit.limit
        return (
            *(repr(item), item.amount, item.multiples, item.get_expiry(), item.namespace),
            *(item.GRANULARITY.name, item.GRANULARITY.seconds, limit.key, limit.breached),
            *(limit.shared, limit.request_args, limit.remaining, limit.reset_at),
            *(tuple(limit.window), limit.window.remaining, limit.window.reset_time),
        )

    @side.app.route("/")
    @limiter.limit("3/2 minute", scope="part")
    def view() -> str:
        return str([shown(limit) for limit in limiter.current_limits])

    @side.app.route("/exempt")
    @limiter.exempt
    def exempt() -> str:
        return str((limiter.current_limit, limiter.current_limits))

    @side.app.after_request
    def look(response: flask.Response) -> flask.Response:
        side.note("after", limiter.current_limit and shown(limiter.current_limit))
        return response

    side.send("/", 4)
    side.send("/exempt")
    side.send("/nowhere")


@scenario
def outside_of_a_request(side: Side) -> None:
    limiter = side.make(default_limits=["9/minute"])
    side.attempt(lambda: limiter.current_limit)
    side.attempt(lambda: limiter.current_limits)
    side.attempt(limiter.identify_request)
    side.attempt(side.package.util.get_remote_address)
    with side.app.app_context():
        side.attempt(lambda: limiter.current_limit)
    with side.app.test_request_context("/"):
        side.attempt(lambda: limiter.current_limit)
        side.attempt(lambda: limiter.current_limits)
        side.attempt(limiter.identify_request)


@scenario
def a_limiter_without_an_application(side: Side) -> None:
    limiter = side.package.Limiter(side.package.util.get_remote_address)
    side.note(limiter.enabled, limiter.initialized)
    side.app.add_url_rule("/", "view", limiter.limit("1/minute")(lambda: "view"))
    with side.app.test_request_context("/"):
        side.attempt(limiter.identify_request)
        side.attempt(lambda: limiter.current_limit)


@scenario
def handlers_of_429(side: Side) -> None:
    limiter = side.make(default_limits=["1/minute"])

    @side.app.errorhandler(429)
    def refused(error: Any) -> Any:
        limit = str(error.limit.limit)
        return jsonify(text=str(error), code=error.code, name=error.name, limit=limit), 429

    mine = limiter.limit("2/hour", error_message="no")(named("mine"))
    side.app.add_url_rule("/", "view", named("view"))
    side.app.add_url_rule("/mine", "mine", mine)
    side.send("/", 2)
    side.send("/mine", 3)


@scenario
def a_handler_of_the_exception(side: Side) -> None:
    side.make(default_limits=["1/minute"])
    side.app.register_error_handler(
        side.package.RateLimitExceeded, lambda error: (f"mine {error.description}", 200)
    )
    side.app.add_url_rule("/", "view", lambda: "view")
    side.send("/", 2)


@scenario
def a_handler_of_everything(side: Side) -> None:
    side.make(default_limits=["1/minute"])
    side.app.register_error_handler(Exception, lambda error: (f"{error}", 503))
    side.app.add_url_rule("/", "view", lambda: "view")
    side.send("/", 2)


@scenario
def somebody_elses_429(side: Side) -> None:
    side.make()

    def view() -> str:
        raise TooManyRequests("by hand", retry_after=7)

    side.app.add_url_rule("/", "view", view)
    side.send("/", 2)


@scenario
def callbacks(side: Side) -> None:
    def first(limit: Any) -> Any:
        side.note("first", limit.key, limit.breached, limit.remaining, limit.reset_at)
        return make_response("first", 429)

    def second(limit: Any) -> Any:
        side.note("second", limit.key)
        return make_response("second", 418, {"X-Second": "1"})

    limiter = side.make(on_breach=first)
    for name, callback in [
        ("second", second),
        ("nothing", lambda limit: None),
        ("tuple", lambda limit: ("no response", 200)),
        ("fails", lambda limit: 1 // 0),
    ]:
        view = limiter.limit("1/minute", on_breach=callback)(named(name))
        side.app.add_url_rule(f"/{name}", name, view)
    for name in ("second", "nothing", "tuple", "fails"):
        side.send(f"/{name}", 2)


@scenario
def callbacks_that_fail_and_are_swallowed(side: Side) -> None:
    limiter = side.make(
        on_breach=lambda limit: 1 // 0,
        on_meta_breach=lambda limit: 1 // 0,
        meta_limits=["2/hour"],
        swallow_errors=True,
    )
    side.app.add_url_rule("/", "view", limiter.limit("1/minute")(lambda: "view"))
    side.send("/", 5)


@scenario
def meta_limits(side: Side) -> None:
    def answer(limit: Any) -> Any:
        side.note("answer", limit.key)
        return make_response("meta", 429)

    limiter = side.make(on_meta_breach=lambda limit: side.note("limiter", limit.key))
    meta = side.package.MetaLimit("2/hour", on_breach=answer, key_function=lambda: "k")
    view = limiter.limit("1/minute", meta_limits=[meta, "3/day"])(named("view"))
    side.app.add_url_rule("/", "view", view)
    other = limiter.limit("1/minute", meta_limits=["1/hour"])(named("other"))
    side.app.add_url_rule("/other", "other", other)
    side.send("/", 6)
    side.send("/other", 4)


@scenario
def exempt_from_meta_limits(side: Side) -> None:
    scope = side.package.ExemptionScope
    limiter = side.make(default_limits=["1/minute"], meta_limits=["1/hour"])
    for name, flags in [("a", None), ("m", scope.META), ("d", scope.DEFAULT), ("all", ...)]:

        def view() -> str:
            return "view"

        view.__qualname__ = name
        if flags is ...:
            limiter.exempt(view)
        elif flags is not None:
            limiter.exempt(view, flags=flags)
        side.app.add_url_rule(f"/{name}", name, view)
    for path in ("/a", "/a", "/a", "/a", "/m", "/m", "/m", "/d", "/d", "/all", "/all"):
        side.send(path)


@scenario
def headers_by_settings(side: Side) -> None:
    side.app.config.update(
        RATELIMIT_HEADERS_ENABLED=True,
        RATELIMIT_HEADER_LIMIT="X-L",
        RATELIMIT_HEADER_REMAINING="X-Rem",
        RATELIMIT_HEADER_RESET="X-Res",
        RATELIMIT_HEADER_RETRY_AFTER="X-RA",
        RATELIMIT_HEADER_RETRY_AFTER_VALUE="http-date",
    )
    names = side.package.HeaderNames
    side.make(
        default_limits=["9/minute"],
        headers_enabled=None,
        header_name_mapping={names.LIMIT: "X-Mine"},
    )
    side.app.add_url_rule("/", "view", lambda: "view")
    side.send("/")


@scenario
def a_longer_wait_under_another_name(side: Side) -> None:
    side.clock.now = float(int(side.clock.now))
    mapping = {side.package.HeaderNames.RETRY_AFTER: "X-Retry"}
    side.make(default_limits=["9/minute"], header_name_mapping=mapping)
    side.app.add_url_rule("/", "view", lambda: ("view", {"Retry-After": "300"}))
    side.send("/")


@pytest.mark.parametrize("played", scenarios, ids=lambda function: function.__name__)
def test_both_give_the_same_responses(
    played: Callable[[Side], None], clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    compare(played, clock, caplog)
