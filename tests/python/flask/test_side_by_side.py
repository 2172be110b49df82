"""One application on Flask-Limiter and on Weir, step by step: both say the same.

What the random applications of test_differential.py do not have. Where the two differ on purpose is
said in docs/differences.md, and is not part of these.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import flask
import flask_limiter
import flask_limiter.constants
import flask_limiter.util
import flask_restful
import flask_restx
import pytest
from flask import Blueprint, Flask, jsonify, make_response, request
from flask.views import MethodView, View
from werkzeug.exceptions import TooManyRequests

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
    """A view of a name of its own: Flask-Limiter files limits under names."""

    def view() -> str:
        return name

    view.__name__ = view.__qualname__ = name
    return view


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
    side.ask("/", 3)
    side.ask("/", 3, "POST")


def resources(side: Side, api: Any, base: Any) -> None:
    limiter = side.make(default_limits=["5/minute"])

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

    for n, resource in enumerate([All, Methods, Inner, Each, Exempt, Shared]):
        api.add_resource(resource, f"/{n}")
    for n in range(6):
        side.ask(f"/{n}", 3)
        side.ask(f"/{n}", 3, "POST")


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
    side.ask("/api/things/", 3)
    side.ask("/api/things/", 3, "POST")
    side.ask("/api/others/1", 4)
    side.ask("/api/nowhere", 2)


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
        side.ask(path, 3)


@scenario
def a_block_that_is_caught(side: Side) -> None:
    limiter = side.make(default_limits=["4/minute"])

    def told() -> Any:
        return [(str(x.limit), x.breached, x.remaining) for x in limiter.current_limits]

    @side.app.route("/")
    def view() -> str:
        try:
            with limiter.limit("1/minute"):
                return f"in {told()}"
        except side.package.RateLimitExceeded as error:
            return f"caught {error.description} {told()}"

    side.ask("/", 4)


@scenario
def a_block_whose_options_are_made_anew(side: Side) -> None:
    limiter = side.make(default_limits=["9/minute"])

    @side.app.route("/")
    def view() -> Any:
        with limiter.limit("2/hour", deduct_when=lambda response: response.status_code == 200):
            return "view", int(request.headers.get("X-Status", "200"))

    side.ask("/", 4, X_Status="400")
    side.ask("/", 4)


@scenario
def a_block_in_a_limited_view(side: Side) -> None:
    limiter = side.make(default_limits=["9/minute"])

    @side.app.route("/")
    @limiter.limit("3/minute")
    def view() -> str:
        with limiter.limit("2/hour"):
            return str([str(limit.limit) for limit in limiter.current_limits])

    side.ask("/", 4)


# ------------------------------------------------------------------------- what one is told


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

    side.ask("/", 4)
    side.ask("/exempt")
    side.ask("/nowhere")


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
    side.ask("/", 2)
    side.ask("/mine", 3)


@scenario
def a_handler_of_the_exception(side: Side) -> None:
    side.make(default_limits=["1/minute"])
    side.app.register_error_handler(
        side.package.RateLimitExceeded, lambda error: (f"mine {error.description}", 200)
    )
    side.app.add_url_rule("/", "view", lambda: "view")
    side.ask("/", 2)


@scenario
def a_handler_of_everything(side: Side) -> None:
    side.make(default_limits=["1/minute"])
    side.app.register_error_handler(Exception, lambda error: (f"{error}", 503))
    side.app.add_url_rule("/", "view", lambda: "view")
    side.ask("/", 2)


@scenario
def somebody_elses_429(side: Side) -> None:
    side.make()

    def view() -> str:
        raise TooManyRequests("by hand", retry_after=7)

    side.app.add_url_rule("/", "view", view)
    side.ask("/", 2)


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
        side.ask(f"/{name}", 2)


@scenario
def callbacks_that_fail_and_are_swallowed(side: Side) -> None:
    limiter = side.make(
        on_breach=lambda limit: 1 // 0,
        on_meta_breach=lambda limit: 1 // 0,
        meta_limits=["2/hour"],
        swallow_errors=True,
    )
    side.app.add_url_rule("/", "view", limiter.limit("1/minute")(lambda: "view"))
    side.ask("/", 5)


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
    side.ask("/", 6)
    side.ask("/other", 4)


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
        side.ask(path)


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
    side.ask("/")


@scenario
def a_longer_wait_under_another_name(side: Side) -> None:
    side.clock.now = float(int(side.clock.now))
    mapping = {side.package.HeaderNames.RETRY_AFTER: "X-Retry"}
    side.make(default_limits=["9/minute"], header_name_mapping=mapping)
    side.app.add_url_rule("/", "view", lambda: ("view", {"Retry-After": "300"}))
    side.ask("/")


# ------------------------------------------------------------------------ settings and mistakes


@scenario
def arguments_win(side: Side) -> None:
    side.app.config.update(
        RATELIMIT_DEFAULT="1/minute",
        RATELIMIT_DEFAULTS_PER_METHOD=True,
        RATELIMIT_DEFAULTS_COST=3,
        RATELIMIT_APPLICATION="1/minute",
        RATELIMIT_APPLICATION_COST=3,
        RATELIMIT_META="1/minute",
        RATELIMIT_KEY_PREFIX="setting",
        RATELIMIT_HEADERS_ENABLED=False,
        RATELIMIT_HEADER_RETRY_AFTER_VALUE="http-date",
        RATELIMIT_STRATEGY="none",
        RATELIMIT_FAIL_ON_FIRST_BREACH=False,
        RATELIMIT_SWALLOW_ERRORS=True,
    )
    limiter = side.make(
        default_limits=["5/minute"],
        default_limits_per_method=False,
        default_limits_cost=1,
        application_limits=["6/minute"],
        application_limits_cost=1,
        meta_limits=["9/minute"],
        key_prefix="argument",
        retry_after="delta-seconds",
        strategy="fixed-window",
        fail_on_first_breach=True,
        swallow_errors=False,
    )

    @side.app.route("/", methods=["GET", "POST"])
    def view() -> str:
        return str([(limit.key, limit.remaining) for limit in limiter.current_limits])

    side.ask("/", 3)
    side.ask("/", 3, "POST")
    side.note(side.app.config["RATELIMIT_STRATEGY"], side.app.config["RATELIMIT_ENABLED"])


@scenario
def objects_in_lists(side: Side) -> None:
    package = side.package

    def by_user() -> str:
        return request.headers.get("X-User", "nobody")

    limiter = side.make(
        default_limits=[
            package.Limit("3/minute", key_function=by_user),
            package.Limit("90/hour", cost=2, per_method=True, error_message="hourly"),
            lambda: "100/day",
        ],
        application_limits=[
            package.ApplicationLimit(
                "20/month", scope="app", exempt_when=lambda: "X-Exempt" in request.headers
            )
        ],
        meta_limits=[package.MetaLimit("2/day", scope="mm", key_function=by_user), "50/month"],
    )

    def view() -> str:
        return str([(limit.key, limit.breached) for limit in limiter.current_limits])

    def decorated() -> str:
        return view()

    side.app.add_url_rule("/", "view", view, methods=["GET", "POST"])
    limit = package.RouteLimit("2/second", limiter=limiter, override_defaults=False)
    side.app.add_url_rule("/decorated", "decorated", limit(decorated))
    side.ask("/", 4, X_User="a")
    side.ask("/", 3, "POST", X_User="b")
    side.ask("/", 2, X_User="c", X_Exempt="1")
    side.ask("/", 4, X_User="a")
    side.ask("/decorated", 3, X_User="d")


@scenario
def limits_that_cannot_be_read(side: Side) -> None:
    limiter = side.make(default_limits=["5/minute"])

    def add(path: str, *decorators: Any) -> None:
        view: Any = named(path.strip("/"))
        for decorator in decorators:
            view = decorator(view)
        side.app.add_url_rule(path, view.__name__, view)

    add("/dynamic", limiter.limit(lambda: request.headers.get("X-Limit", "nonsense")))
    add("/fixed", limiter.limit("nonsense"))
    add("/one-of-two", limiter.limit("nonsense"), limiter.limit("2/minute"))
    blueprint = Blueprint("bp", "tested")
    blueprint.add_url_rule("/bp", "view", lambda: "bp")
    limiter.limit("garbage")(blueprint)
    side.app.register_blueprint(blueprint)
    side.ask("/dynamic", 2)
    side.ask("/dynamic", 2, X_Limit="1/minute")
    side.ask("/fixed", 2)
    side.ask("/one-of-two", 3)
    side.ask("/bp", 2)


@scenario
def defaults_that_cannot_be_read(side: Side) -> None:
    limiter = side.make(default_limits=["nonsense"])
    side.app.add_url_rule("/", "view", named("view"))
    side.app.add_url_rule("/own", "own", limiter.limit("1/minute")(named("own")))
    side.ask("/")
    side.ask("/own", 2)


@scenario
def errors_that_are_swallowed(side: Side) -> None:
    side.make(default_limits=["1/minute"], key_func=lambda: 1 // 0, swallow_errors=True)
    side.app.add_url_rule("/", "view", lambda: "view")
    side.ask("/", 3)


@scenario
def keys_of_any_kind(side: Side) -> None:
    keys: dict[str, Any] = {"none": None, "empty": "", "zero": 0, "int": 5, "text": "k"}
    limiter = side.make(default_limits=["1/minute"], key_func=lambda: keys[request.headers["X-K"]])
    side.app.add_url_rule("/", "view", lambda: str([limit.key for limit in limiter.current_limits]))
    for name in keys:
        side.ask("/", 2, X_K=name)


@scenario
def strategies_and_storages_that_do_not_exist(side: Side) -> None:
    side.attempt(lambda: side.make(strategy="none"))
    side.attempt(lambda: side.make(storage_uri="nowhere://"))


@scenario
def costs_of_zero(side: Side) -> None:
    limiter = side.make()
    side.app.add_url_rule(
        "/",
        "view",
        limiter.limit("2/minute", cost=lambda: int(request.headers.get("X-Cost", "1")))(
            lambda: "view"
        ),
    )
    side.ask("/", 2)
    side.ask("/", 3, X_Cost="0")
    side.ask("/", 1)


# --------------------------------------------------------------------------- limiters and apps


@scenario
def two_limiters(side: Side) -> None:
    first = side.make(default_limits=["2/minute"])
    second = side.make(default_limits=["3/minute"], key_func=lambda: "x", key_prefix="second")

    def told() -> str:
        return str([[limit.key for limit in x.current_limits] for x in (first, second)])

    def view(name: str) -> Any:
        function: Any = lambda: told()  # noqa: E731
        function.__qualname__ = name
        return function

    side.app.add_url_rule("/", "plain", view("plain"))
    side.app.add_url_rule(
        "/both", "both", first.limit("1/minute")(second.limit("2/minute")(view("both")))
    )
    side.app.add_url_rule("/exempt", "exempt", first.exempt(view("exempt")))
    for path in ("/", "/both", "/exempt"):
        side.ask(path, 4)


@scenario
def limits_after_the_first_request(side: Side) -> None:
    limiter = side.make(default_limits=["5/minute"])
    blueprint = Blueprint("bp", "tested")
    blueprint.add_url_rule("/bp", "view", lambda: "bp")
    side.app.register_blueprint(blueprint)

    def view() -> str:
        return "view"

    side.app.add_url_rule("/", "view", view)
    side.ask("/", 2)
    side.ask("/bp", 1)
    limiter.limit("2/minute")(blueprint)
    side.ask("/bp", 3)
    limiter.exempt(view)
    side.ask("/", 1)
    limiter.exempt(blueprint)
    side.ask("/bp", 1)
    limiter.request_filter(lambda: "X-Filter" in request.headers)
    side.ask("/bp", 1, X_Filter="1")


@scenario
def turned_off_and_on(side: Side) -> None:
    limiter = side.make(default_limits=["1/minute"])
    side.app.add_url_rule("/", "view", named("view"))
    side.app.add_url_rule("/own", "own", limiter.limit("1/minute")(named("own")))
    side.ask("/", 2)
    limiter.enabled = False
    side.ask("/", 2)
    side.ask("/own", 2)
    limiter.enabled = True
    side.ask("/", 1)
    side.ask("/own", 2)
    limiter.reset()
    side.ask("/", 2)


@scenario
def never_on(side: Side) -> None:
    limiter = side.make(default_limits=["1/minute"], enabled=False)

    @side.app.route("/")
    @limiter.limit("1/minute")
    def view() -> str:
        with limiter.limit("1/minute"):
            told = (limiter.identify_request(), limiter.current_limit, limiter.current_limits)
        return str(told)

    side.ask("/", 3)
    side.note(limiter.enabled, side.app.config["RATELIMIT_ENABLED"], limiter.initialized)


@scenario
def every_exemption_of_nested_blueprints(side: Side) -> None:
    scope = side.package.ExemptionScope
    all_flags = [
        *(None, scope.NONE, scope.DEFAULT, scope.APPLICATION, scope.META),
        *(scope.DESCENDENTS, scope.ANCESTORS, scope.DEFAULT | scope.DESCENDENTS),
        *(scope.APPLICATION | scope.DESCENDENTS | scope.DEFAULT, scope.ANCESTORS | scope.DEFAULT),
    ]
    for n, (flags, which, override) in enumerate(
        (flags, which, override)
        for flags in all_flags
        for which in range(3)
        for override in (True, False)
    ):
        side.app = Flask("nested")
        limiter = side.make(default_limits=["1/second"], application_limits=["8/month"])
        blueprints = [Blueprint(f"b{i}", "nested", url_prefix=f"/b{i}") for i in range(3)]
        for i, blueprint in enumerate(blueprints):

            def view(limiter: Any = limiter) -> str:
                return str([limit.key for limit in limiter.current_limits])

            view.__qualname__ = f"view{n}.{i}"
            blueprint.add_url_rule("/", f"view{i}", view)
            if i != 1:
                unit = ("minute", "hour", "day")[i]  # of one unit, Flask-Limiter's have any order
                limiter.limit(f"{5 + i}/{unit}", override_defaults=override)(blueprint)
        limiter.exempt(blueprints[which], **({} if flags is None else {"flags": flags}))
        blueprints[1].register_blueprint(blueprints[2])
        blueprints[0].register_blueprint(blueprints[1])
        side.app.register_blueprint(blueprints[0])
        for path in ("/b0/", "/b0/b1/", "/b0/b1/b2/"):
            side.ask(path)


@scenario
def names_of_constants(side: Side) -> None:
    constants = side.package.constants
    for kind in (constants.ExemptionScope, constants.HeaderNames):
        side.note([(member.name, member.value) for member in kind])
    side.note(constants.MAX_BACKEND_CHECKS)


@pytest.mark.parametrize("function", scenarios, ids=lambda f: f.__name__)
def test_both_say_the_same(
    function: Callable[[Side], None], clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "flask-limiter")
    sides = []
    start = clock.now
    for package in (flask_limiter, weir.flask):
        clock.now = start
        caplog.clear()
        side = Side(package, clock)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(side)
        logs = [(r.name, r.levelname) for r in caplog.records if r.name == "flask-limiter"]
        sides.append((side.said, logs))
    assert sides[0][0]
    for theirs, ours in zip(sides[0][0], sides[1][0], strict=True):
        assert ours == theirs
    assert sides[1][1] == sides[0][1]
