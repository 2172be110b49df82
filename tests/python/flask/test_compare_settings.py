"""Settings, mistakes, limiters and applications, compared with Flask-Limiter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint, Flask, request

from compare_with_flask_limiter import Side, compare, named

scenarios: list[Callable[[Side], None]] = []


def scenario(function: Callable[[Side], None]) -> Callable[[Side], None]:
    scenarios.append(function)
    return function


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

    side.send("/", 3)
    side.send("/", 3, "POST")
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
    side.send("/", 4, X_User="a")
    side.send("/", 3, "POST", X_User="b")
    side.send("/", 2, X_User="c", X_Exempt="1")
    side.send("/", 4, X_User="a")
    side.send("/decorated", 3, X_User="d")


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
    side.send("/dynamic", 2)
    side.send("/dynamic", 2, X_Limit="1/minute")
    side.send("/fixed", 2)
    side.send("/one-of-two", 3)
    side.send("/bp", 2)


@scenario
def defaults_that_cannot_be_read(side: Side) -> None:
    limiter = side.make(default_limits=["nonsense"])
    side.app.add_url_rule("/", "view", named("view"))
    side.app.add_url_rule("/own", "own", limiter.limit("1/minute")(named("own")))
    side.send("/")
    side.send("/own", 2)


@scenario
def errors_that_are_swallowed(side: Side) -> None:
    side.make(default_limits=["1/minute"], key_func=lambda: 1 // 0, swallow_errors=True)
    side.app.add_url_rule("/", "view", lambda: "view")
    side.send("/", 3)


@scenario
def keys_of_any_kind(side: Side) -> None:
    keys: dict[str, Any] = {"none": None, "empty": "", "zero": 0, "int": 5, "text": "k"}
    limiter = side.make(default_limits=["1/minute"], key_func=lambda: keys[request.headers["X-K"]])
    side.app.add_url_rule("/", "view", lambda: str([limit.key for limit in limiter.current_limits]))
    for name in keys:
        side.send("/", 2, X_K=name)


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
    side.send("/", 2)
    side.send("/", 3, X_Cost="0")
    side.send("/", 1)


# --------------------------------------------------------------------------- limiters and apps


@scenario
def two_limiters(side: Side) -> None:
    first = side.make(default_limits=["2/minute"])
    second = side.make(default_limits=["3/minute"], key_func=lambda: "x", key_prefix="second")

    def reported() -> str:
        return str([[limit.key for limit in x.current_limits] for x in (first, second)])

    def view(name: str) -> Any:
        function: Any = lambda: reported()  # noqa: E731
        function.__qualname__ = name
        return function

    side.app.add_url_rule("/", "plain", view("plain"))
    side.app.add_url_rule(
        "/both", "both", first.limit("1/minute")(second.limit("2/minute")(view("both")))
    )
    side.app.add_url_rule("/exempt", "exempt", first.exempt(view("exempt")))
    for path in ("/", "/both", "/exempt"):
        side.send(path, 4)


@scenario
def limits_after_the_first_request(side: Side) -> None:
    limiter = side.make(default_limits=["5/minute"])
    blueprint = Blueprint("bp", "tested")
    blueprint.add_url_rule("/bp", "view", lambda: "bp")
    side.app.register_blueprint(blueprint)

    def view() -> str:
        return "view"

    side.app.add_url_rule("/", "view", view)
    side.send("/", 2)
    side.send("/bp", 1)
    limiter.limit("2/minute")(blueprint)
    side.send("/bp", 3)
    limiter.exempt(view)
    side.send("/", 1)
    limiter.exempt(blueprint)
    side.send("/bp", 1)
    limiter.request_filter(lambda: "X-Filter" in request.headers)
    side.send("/bp", 1, X_Filter="1")


@scenario
def turned_off_and_on(side: Side) -> None:
    limiter = side.make(default_limits=["1/minute"])
    side.app.add_url_rule("/", "view", named("view"))
    side.app.add_url_rule("/own", "own", limiter.limit("1/minute")(named("own")))
    side.send("/", 2)
    limiter.enabled = False
    side.send("/", 2)
    side.send("/own", 2)
    limiter.enabled = True
    side.send("/", 1)
    side.send("/own", 2)
    limiter.reset()
    side.send("/", 2)


@scenario
def a_count_that_depends_on_what_others_made_of_the_response(side: Side) -> None:
    @side.app.after_request
    def last(response: Any) -> Any:
        response.status_code = 201
        return response

    limiter = side.make(headers_enabled=False)

    @side.app.after_request
    def first(response: Any) -> Any:
        if response.status_code == 200:
            response.status_code = 418
        return response

    limit = limiter.limit("2/minute", deduct_when=lambda response: response.status_code == 418)
    side.app.add_url_rule("/free", "free", named("free"))
    side.app.add_url_rule("/", "view", limit(named("view")))
    side.send("/free", 2)
    side.send("/", 4)


@scenario
def never_on(side: Side) -> None:
    limiter = side.make(default_limits=["1/minute"], enabled=False)

    @side.app.route("/")
    @limiter.limit("1/minute")
    def view() -> str:
        with limiter.limit("1/minute"):
            reported = (limiter.identify_request(), limiter.current_limit, limiter.current_limits)
        return str(reported)

    side.send("/", 3)
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
            side.send(path)


@scenario
def names_of_constants(side: Side) -> None:
    constants = side.package.constants
    for kind in (constants.ExemptionScope, constants.HeaderNames):
        side.note([(member.name, member.value) for member in kind])
    side.note(constants.MAX_BACKEND_CHECKS)


@pytest.mark.parametrize("played", scenarios, ids=lambda function: function.__name__)
def test_both_give_the_same_responses(
    played: Callable[[Side], None], clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    compare(played, clock, caplog)
