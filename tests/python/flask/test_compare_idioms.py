"""Idioms of public programs and of their tests, on Flask-Limiter and on Weir."""

from __future__ import annotations

import decimal
import enum
import ipaddress
import sys
import uuid
from collections.abc import Callable
from typing import Any
from unittest import mock

import flask_limiter
import flask_limiter.commands
import limits
import limits.strategies
import pytest
from flask import Blueprint, Flask, Response, abort, g, make_response, request
from flask.views import MethodView
from flask_login import LoginManager, UserMixin, current_user, login_required
from flask_restful import Api, Resource
from werkzeug.exceptions import HTTPException
from werkzeug.local import LocalProxy
from werkzeug.middleware.proxy_fix import ProxyFix

import weir.flask
import weir.strategies
from compare_with_flask_limiter import Side, compare, named
from weir import limits_util

Scenario = Callable[[Side], None]
SCENARIOS: list[Scenario] = []


def scenario(play: Scenario) -> Scenario:
    SCENARIOS.append(play)
    return play


@pytest.mark.parametrize("play", SCENARIOS, ids=lambda play: play.__name__)
def play_it(play: Scenario, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    compare(play, clock, caplog)


def hello(side: Side, path: str = "/", **options: Any) -> None:
    side.app.add_url_rule(path, path, named("hello"), **options)


# ------------------------------------------------------------------------------- what tests replace


@scenario
def the_decorator_and_init_app_are_mocks(side: Side) -> None:
    kind = side.package.Limiter
    with (
        mock.patch.object(kind, "limit", side_effect=lambda *a, **k: lambda function: function),
        mock.patch.object(kind, "init_app"),
    ):
        limiter = side.make(default_limits=["1/minute"])
        side.app.add_url_rule("/", "x", limiter.limit("1/minute")(named("x")))
        side.send(times=3)


def strategy_of(side: Side) -> Any:
    """The class whose methods tests replace, by the name that it has there."""
    module: Any = limits.strategies if side.package is flask_limiter else weir.strategies
    return module.FixedWindowRateLimiter


@scenario
def methods_of_the_strategy_are_mocks(side: Side) -> None:
    limiter = side.make(default_limits=["3/minute"])
    hello(side)
    side.send()
    with mock.patch.object(strategy_of(side), "hit", return_value=False) as hit:
        side.send(times=2)
        side.note(hit.call_count, hit.call_args.args[1:], hit.call_args.kwargs)
    side.send()
    with mock.patch.object(limiter.limiter, "hit", return_value=True):
        side.send(times=3)
    side.send(times=2)
    with mock.patch.object(limiter.limiter, "get_window_stats", return_value=(0, 0)):
        side.note(tuple(limiter.limiter.get_window_stats(None)))


@scenario
def a_strategy_that_fails(side: Side) -> None:
    for options in ({}, {"swallow_errors": True}):
        side.app = Flask("tested")
        side.make(default_limits=["1/minute"], headers_enabled=False, **options)
        hello(side)
        side.app.register_error_handler(500, lambda error: (str(error.original_exception), 500))
        with mock.patch.object(strategy_of(side), "hit", side_effect=RuntimeError("gone")):
            side.send(times=2)
        side.send(times=2)


@scenario
def a_deduction_that_fails(side: Side) -> None:
    for options in ({}, {"swallow_errors": True}):
        side.app = Flask("tested")
        side.make(
            default_limits=["1/minute"],
            default_limits_deduct_when=lambda response: True,
            headers_enabled=False,
            **options,
        )
        hello(side)
        with mock.patch.object(strategy_of(side), "hit", side_effect=RuntimeError("gone")):
            side.send(times=2)
        side.send(times=2)


@scenario
def a_subclass_that_is_disabled(side: Side) -> None:
    class Disabled(side.package.Limiter):  # type: ignore[misc, name-defined]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "enabled": False})

    with mock.patch.object(side.package, "Limiter", Disabled):
        side.make(default_limits=["1/minute"])
    hello(side)
    side.send(times=3)


@scenario
def the_storage_is_cleared_between_tests(side: Side) -> None:
    limiter = side.make(default_limits=["1/minute"])
    hello(side)
    for clear in (
        lambda: limiter.reset(),
        lambda: limiter._storage.reset(),
        lambda: limiter.storage.reset(),
        lambda: limiter._storage.storage.clear(),
        lambda: limiter.limiter.storage.storage.clear(),
        lambda: limiter._limiter.storage.reset(),
    ):
        side.send(times=2)
        clear()
    for what in ("storage", "expirations", "events"):
        getattr(limiter._storage, what).clear()
    side.send(times=2)


@scenario
def limits_are_hit_by_hand(side: Side) -> None:
    limiter = side.make()
    module: Any = limits if side.package is flask_limiter else limits_util
    item = module.parse("2/minute")

    def view() -> tuple[str, int]:
        allowed = limiter.limiter.hit(item, "me", "login")
        return str(limiter.limiter.get_window_stats(item, "me", "login").remaining), (
            200 if allowed else 429
        )

    side.app.add_url_rule("/", "x", view)
    side.send(times=3)
    limiter.limiter.clear(item, "me", "login")
    side.send(times=2)


@scenario
def one_key_is_cleared(side: Side) -> None:
    limiter = side.make()

    def view() -> str:
        return str(limiter.current_limit.key)

    side.app.add_url_rule("/", "x", limiter.limit("1/minute")(view))
    side.send(times=2)
    for storage in (limiter.storage, limiter.limiter.storage, limiter._storage):
        storage.clear(side.results[0][3])
        side.send(times=2)


# --------------------------------------------------------------------------------- what is answered


@scenario
def all_http_errors_have_one_handler(side: Side) -> None:
    side.make(default_limits=["1/minute"])
    side.app.register_error_handler(
        HTTPException, lambda e: ({"code": e.code, "name": e.name, "text": e.description}, e.code)
    )
    hello(side)
    side.send(times=2)
    side.send("/unknown")


@scenario
def all_exceptions_have_one_handler(side: Side) -> None:
    side.make(default_limits=["1/minute"])
    side.app.register_error_handler(Exception, lambda e: (f"{type(e).__name__}: {e}", 500))
    hello(side)
    side.send(times=2)


@scenario
def a_handler_reads_the_limit(side: Side) -> None:
    limiter = side.make(default_limits=["1/minute"])

    def handle(error: Any) -> tuple[str, int]:
        limit = error.limit
        side.note(str(limit.limit), type(limit.limit).__name__, limit.shared, limit.per_method)
        side.note(limit.methods, limit.cost, limit.error_message, error.response)
        side.note(limiter.current_limit.breached, limiter.current_limit.remaining)
        return str(error), error.code

    side.app.register_error_handler(side.package.RateLimitExceeded, handle)
    hello(side)
    side.send(times=2)


@scenario
def callbacks_that_return_something_else_or_abort(side: Side) -> None:
    for path, callback in {
        "/text": lambda limit: "no response",
        "/response": lambda limit: make_response(str(limit.limit), 418),
        "/abort": lambda limit: abort(403),
    }.items():
        limiter = side.make(on_breach=callback, key_prefix=path)
        view = limiter.limit("1/minute")(named(path[1:]))
        side.app.add_url_rule(path, path, view)
        side.send(path, times=2)
        side.app._got_first_request = False


@scenario
def a_view_sets_its_own_headers(side: Side) -> None:
    limiter = side.make(default_limits=["2/minute"])

    def after(response: Response) -> Response:
        limit = limiter.current_limit
        response.headers["X-Mine"] = str(limit.remaining) if limit else "none"
        return response

    side.app.after_request(after)
    hello(side)
    side.app.add_url_rule("/error", "error", lambda: str(1 // 0))
    side.send(times=3)
    side.send("/error")
    side.send("/unknown")


# ----------------------------------------------------------------------------------- the client


class Colour(enum.Enum):
    RED = 1


class Word(str, enum.Enum):
    RED = "red"


KEYS: dict[str, Any] = {
    "uuid": uuid.UUID(int=5),
    "address": ipaddress.ip_address("10.0.0.1"),
    "enum": Colour.RED,
    "word": Word.RED,
    "red": "red",
    "decimal": decimal.Decimal("1.5"),
    "tuple": ("a", 1),
    "float": 1.5,
    "true": True,
    "number": 7,
    "zero": 0,
    "none": None,
    "empty": "",
}


@scenario
def keys_of_all_types(side: Side) -> None:
    side.make(key_func=lambda: KEYS[request.args["key"]], default_limits=["1/minute"])
    hello(side)
    for key in KEYS:
        side.send(f"/?key={key}", times=2)


@scenario
def a_key_that_is_a_proxy(side: Side) -> None:
    who = LocalProxy(lambda: g.who)
    side.make(key_func=lambda: who, default_limits=["1/minute"])

    def set_user() -> None:
        g.who = request.args.get("who", "")

    side.app.before_request(set_user)
    hello(side)
    for name in ("alice", "bob", ""):
        side.send(f"/?who={name}", times=2)


@scenario
def the_user_that_is_logged_in(side: Side) -> None:
    limiter = side.make()

    class User(UserMixin):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.id = name

    def load(request: Any) -> User | None:
        name = request.headers.get("X-User")
        return User(name) if name else None

    LoginManager(side.app).request_loader(load)
    by_user = limiter.limit("1/minute", key_func=lambda: current_user.get_id())
    side.app.add_url_rule("/inside", "inside", login_required(by_user(named("inside"))))
    side.app.add_url_rule("/outside", "outside", by_user(login_required(named("outside"))))
    for path in ("/inside", "/outside"):
        for user in ("1", "2"):
            side.send(path, times=2, X_User=user)
        side.send(path, times=2)


@scenario
def an_address_behind_a_proxy(side: Side) -> None:
    side.make(default_limits=["1/minute"])
    side.app.wsgi_app = ProxyFix(side.app.wsgi_app, x_for=1)  # type: ignore[method-assign]
    hello(side)
    for address in ("1.2.3.4", "1.2.3.5"):
        side.send(times=2, X_Forwarded_For=address)


# ---------------------------------------------------------------------------------- what is limited


@scenario
def resources_of_flask_restful(side: Side) -> None:
    limiter = side.make(default_limits=["3/minute"])

    class All(Resource):  # type: ignore[misc]
        decorators = (limiter.limit("1/minute"),)

        def get(self) -> str:
            return "got"

        def post(self) -> str:
            return "posted"

    class Some(Resource):  # type: ignore[misc]
        method_decorators = {"get": [limiter.limit("1/minute")]}  # noqa: RUF012

        def get(self) -> str:
            return "got"

    api = Api(side.app)
    api.add_resource(All, "/all")
    api.add_resource(Some, "/some")
    side.send("/all", times=2)
    side.send("/all", times=2, method="POST")
    side.send("/some")
    side.clock.forward(61)
    side.send("/some", times=2)


@scenario
def functions_before_a_request(side: Side) -> None:
    limiter = side.make()
    blueprint = Blueprint("b", "b", url_prefix="/b")
    blueprint.add_url_rule("/", "x", named("x"))
    blueprint.before_request(limiter.limit("1/minute")(lambda: None))
    side.app.register_blueprint(blueprint)
    side.send("/b/", times=3)


@scenario
def views_that_call_themselves_and_each_other(side: Side) -> None:
    limiter = side.make(default_limits=["9/minute"])

    @limiter.limit("2/minute")  # type: ignore[untyped-decorator]
    def helper() -> str:
        return "helper"

    @side.app.route("/")
    @limiter.limit("4/minute")  # type: ignore[untyped-decorator]
    def again(times: int = 2) -> str:
        return "again " + again(times - 1) if times else "done"

    @side.app.route("/both")
    @limiter.limit("5/minute")  # type: ignore[untyped-decorator]
    def both() -> str:
        return f"{helper()} {helper()} {again(0)}"

    side.send(times=3)
    side.send("/both", times=3)


@scenario
def exempt_above_and_below_a_limit(side: Side) -> None:
    limiter = side.make(default_limits=["2/minute"])
    above = limiter.exempt(limiter.limit("1/minute")(named("above")))
    below = limiter.limit("1/minute")(limiter.exempt(named("below")))
    side.app.add_url_rule("/above", "above", above)
    side.app.add_url_rule("/below", "below", below)
    side.send("/above", times=3)
    side.send("/below", times=3)


@scenario
def a_blueprint_that_is_limited_after_it_is_registered(side: Side) -> None:
    limiter = side.make(default_limits=["5/minute"])
    blueprint = Blueprint("b", "b", url_prefix="/b")
    blueprint.add_url_rule("/", "x", named("x"))
    blueprint.add_url_rule("/own", "own", limiter.limit("3/minute")(named("own")))
    added = limiter.limit("4/minute", override_defaults=False)(named("added"))
    blueprint.add_url_rule("/added", "added", added)
    blueprint.add_url_rule("/free", "free", limiter.exempt(named("free")))
    side.app.register_blueprint(blueprint)
    limiter.limit("2/minute")(blueprint)
    limiter.limit("30/hour", key_func=lambda: "all")(blueprint)
    for path, times in (("/b/", 3), ("/b/free", 6), ("/b/own", 4), ("/b/added", 3)):
        side.send(path, times=times)


@scenario
def a_method_view_with_decorators(side: Side) -> None:
    limiter = side.make(default_limits=["5/minute"])

    class Each(MethodView):
        decorators = (limiter.limit("1/minute", per_method=True),)

        def get(self) -> str:
            return "got"

        def post(self) -> str:
            return "posted"

    side.app.add_url_rule("/", view_func=Each.as_view("each"))
    side.send(times=2)
    side.send(times=2, method="POST")


@scenario
def limits_that_cannot_be_read(side: Side) -> None:
    limiter = side.make(default_limits=["3/minute"])
    for name, text in (("word", "nonsense"), ("unit", "1/m"), ("second", "1/minute;bad")):
        side.app.add_url_rule(f"/{name}", name, limiter.limit(text)(named(name)))
        side.send(f"/{name}", times=2)
        side.app._got_first_request = False


@scenario
def a_storage_that_is_away(side: Side) -> None:
    import redis

    away = "redis://127.0.0.1:1"
    side.make(default_limits=["2/minute"], storage_uri=away)
    side.app.register_error_handler(redis.exceptions.RedisError, lambda e: ("away", 503))
    hello(side)
    side.send(times=2)
    for options in ({"swallow_errors": True}, {"in_memory_fallback": ["1/minute"]}):
        side.app = Flask("tested")
        side.make(default_limits=["2/minute"], storage_uri=away, **options)
        hello(side)
        side.send(times=2)


test_idiom = play_it


def test_every_scenario_is_played() -> None:
    module = sys.modules[__name__]
    assert len(SCENARIOS) > 20
    assert {play.__name__ for play in SCENARIOS} <= set(vars(module))
    assert weir.flask.Limiter is not flask_limiter.Limiter
