"""Limits on routes: decorators and their arguments."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from flask import Flask, g, request

import weir.storage
from flask_views import applied, hello
from weir.flask import (
    ConfigurationError,
    Limiter,
    UsageError,
)


def test_a_limit_takes_the_place_of_the_defaults(
    app: Flask, limiter: Limiter, statuses: Any
) -> None:
    app.add_url_rule("/", "hello", limiter.limit("1 per minute")(hello))
    assert statuses(2) == [200, 429]


def test_several_limits_in_a_string_and_several_decorators(
    app: Flask, limiter: Limiter, get: Any
) -> None:
    @app.route("/")
    @limiter.limit("1 per day")
    @limiter.limit("3 per second; 7 per hour", override_defaults=False)
    def view() -> str:
        return applied(limiter)

    assert get("/").text == "3 per 1 second, 7 per 1 hour, 1 per 1 day"

    @app.route("/with-defaults")
    @limiter.limit("3 per second; 7 per hour", override_defaults=False)
    def other() -> str:
        return applied(limiter)

    assert get("/with-defaults").text == "3 per 1 second, 5 per 1 minute, 7 per 1 hour"


def test_a_refused_request_is_counted_nowhere(
    app: Flask, limiter: Limiter, get: Any, clock: Any
) -> None:
    @app.route("/")
    @limiter.limit("1 per second; 3 per day")
    def view() -> str:
        return str(limiter.current_limits[1].remaining)

    assert [get("/").status_code for _ in range(9)] == [200] + [429] * 8
    clock.forward(1)
    assert get("/").text == "1"


def test_key_func(app: Flask, limiter: Limiter, get: Any) -> None:
    app.add_url_rule(
        "/",
        "hello",
        limiter.limit("1/minute", key_func=lambda: request.headers.get("X-Key", "?"))(hello),
    )
    assert get("/", X_Key="a").status_code == 200
    assert get("/", X_Key="b").status_code == 200
    assert get("/", X_Key="a", address="10.0.0.2").status_code == 429


@pytest.mark.parametrize("key", [7, 7.5, b"bytes", "with/slash%", "ümläut", "\ud800", "x" * 10**6])
def test_any_key_counts(app: Flask, limiter: Limiter, get: Any, key: Any) -> None:
    app.add_url_rule("/", "hello", limiter.limit("1/minute", key_func=lambda: key)(hello))
    assert [get("/").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("key", ["", None, 0, b""])
def test_an_empty_key_skips_the_limit_and_is_counted(
    app: Flask, limiter: Limiter, get: Any, key: Any, caplog: Any
) -> None:
    app.add_url_rule("/", "hello", limiter.limit("1/minute", key_func=lambda: key)(hello))
    assert [get("/").status_code for _ in range(3)] == [200] * 3
    assert limiter.counters["empty_key"] == 3
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3
    assert "EEMPTY" in caplog.text


def test_an_empty_key_raises_if_strict(app: Flask, make: Any, get: Any) -> None:
    limiter = make(strict=True)
    app.add_url_rule("/", "hello", limiter.limit("1/minute", key_func=lambda: "")(hello))
    app.testing = True
    with pytest.raises(ConfigurationError, match="EEMPTY"):
        get("/")


def test_similar_keys_are_separate(app: Flask, limiter: Limiter, get: Any) -> None:
    shared = functools.partial(
        limiter.shared_limit, "1/minute", key_func=lambda: request.headers["X-Key"]
    )
    app.add_url_rule("/a", "a", shared(scope="a/b")(lambda: "a"))
    app.add_url_rule("/b", "b", shared(scope="b")(lambda: "b"))
    assert get("/a", X_Key="x").status_code == 200
    assert get("/b", X_Key="x/a").status_code == 200


def test_a_key_function_sees_what_a_decorator_left_in_g(
    app: Flask, limiter: Limiter, get: Any
) -> None:
    def authenticated(view: Any) -> Any:
        @functools.wraps(view)
        def wrapper() -> Any:
            g.user = request.headers["X-User"]
            return view()

        return wrapper

    @app.route("/")
    @authenticated
    @limiter.limit("1 per minute", key_func=lambda: g.user)
    def view() -> str:
        return str(limiter.current_limit.key)

    assert get("/", X_User="alice").text == "LIMITER/alice/view/1/1/minute"
    assert get("/", X_User="alice").status_code == 429


def test_each_key_function_is_called_once_for_each_check(app: Flask, make: Any, get: Any) -> None:
    calls = []

    def key() -> str:
        calls.append(request.path)
        return "key"

    limiter = make(default_limits=["5/minute; 6/hour"], application_limits=["9/day", "8/hour"])
    limiter._key_func = key
    limiter.init_app(app)
    app.add_url_rule("/", "hello", limiter.limit("2/minute;3/hour", override_defaults=False)(hello))
    app.add_url_rule("/plain", "plain", lambda: "plain")
    get("/plain")
    assert calls == ["/plain"]
    get("/")
    assert calls == ["/plain", "/", "/"]  # before dispatch, and when the view is called


@pytest.mark.parametrize("peeks", [False, True])
def test_a_check_calls_the_storage_once(app: Flask, make: Any, get: Any, peeks: bool) -> None:
    lengths = []

    class Counting(weir.storage.Storage):
        STORAGE_SCHEME = ("counting",)
        PEEKS = peeks

        def __init__(self, uri: str, **options: Any) -> None:
            super().__init__(uri)
            self.table = weir.Table()

        def decide(self, *arguments: Any) -> Any:
            lengths.append(len(arguments[0]))
            return self.table.decide(*arguments)

        def clear(self, *arguments: Any) -> None:
            self.table.clear(*arguments)

    limiter = make(
        default_limits=["5/minute; 6/hour"], headers_enabled=True, storage_uri="counting://"
    )
    app.add_url_rule("/", "hello", limiter.limit("2/minute", override_defaults=False)(hello))
    assert [get("/").status_code for _ in range(3)] == [200, 200, 429]
    assert lengths == [3, 3, 3]


def test_cost(app: Flask, limiter: Limiter, get: Any) -> None:
    app.add_url_rule("/two", "two", limiter.limit("5/minute", cost=2)(hello))
    assert [get("/two").status_code for _ in range(3)] == [200, 200, 429]
    app.add_url_rule(
        "/any", "any", limiter.limit("5/minute", cost=lambda: int(request.headers["X-Cost"]))(hello)
    )
    assert [get("/any", X_Cost=cost).status_code for cost in "43151"] == [200, 429, 200, 429, 429]
    app.add_url_rule("/much", "much", limiter.limit("5/minute", cost=6)(hello))
    assert get("/much").status_code == 429


def test_a_cost_that_is_none_is_not_a_broken_storage(app: Flask, make: Any, get: Any) -> None:
    limiter = make(in_memory_fallback_enabled=True)
    app.add_url_rule("/", "hello", limiter.limit("5/minute", cost=lambda: "many")(hello))
    app.testing = True
    with pytest.raises(TypeError):
        get("/")


def test_exempt_when(app: Flask, limiter: Limiter, get: Any) -> None:
    app.add_url_rule(
        "/",
        "hello",
        limiter.limit("1/minute", exempt_when=lambda: "X-Admin" in request.headers)(hello),
    )
    assert [get("/", X_Admin="yes").status_code for _ in range(2)] == [200, 200]
    assert [get("/").status_code for _ in range(2)] == [200, 429]


def test_methods_and_per_method(app: Flask, limiter: Limiter, statuses: Any) -> None:
    app.add_url_rule(
        "/post", "post", limiter.limit("1/minute", methods=["post"])(hello), methods=["GET", "POST"]
    )
    assert statuses(6, "/post") == [200] * 5 + [429]  # the defaults
    assert statuses(2, "/post", method="POST") == [200, 429]
    app.add_url_rule(
        "/each", "each", limiter.limit("1/minute", per_method=True)(hello), methods=["GET", "POST"]
    )
    assert statuses(2, "/each") == [200, 429]
    assert statuses(2, "/each", method="POST") == [200, 429]


def test_dynamic_limits(app: Flask, limiter: Limiter, get: Any) -> None:
    tiers = {"free": "1 per minute", "paid": "2 per minute; 9 per hour", "none": "", "odd": "10"}

    @app.route("/")
    @limiter.limit(lambda: tiers[request.headers["X-Tier"]])
    def view() -> str:
        return applied(limiter)

    assert get("/", X_Tier="free").text == "1 per 1 minute"
    assert get("/", X_Tier="paid").text == "2 per 1 minute, 9 per 1 hour"
    assert get("/", X_Tier="none").text == "5 per 1 minute"
    assert get("/", X_Tier="free").status_code == 429
    tiers["free"] = "5 per day"
    assert get("/", X_Tier="free").text == "5 per 1 day"


def test_a_dynamic_limit_does_not_grow_without_bound(
    app: Flask, limiter: Limiter, get: Any
) -> None:
    texts = iter(f"{n} per day" for n in range(1, 3000))
    app.add_url_rule("/", "hello", limiter.limit(lambda: next(texts))(hello))
    for _ in range(1100):
        assert get("/").status_code == 200
    plan = next(iter(app.extensions["weir"][limiter].plans.values()))
    assert all(len(call.cache) <= 1024 for call in plan.calls.values())


@pytest.mark.parametrize("limit", ["10 per fortnight", lambda: "10 per fortnight", lambda: 10])
def test_an_unreadable_limit_is_logged_and_the_defaults_apply(
    app: Flask, limiter: Limiter, get: Any, caplog: Any, limit: Any
) -> None:
    @app.route("/")
    @limiter.limit(limit)
    def view() -> str:
        return applied(limiter)

    assert get("/").text == "5 per 1 minute"
    assert "failed to load" in caplog.text


def test_an_unreadable_limit_is_logged_beside_an_unreadable_default(
    app: Flask, get: Any, caplog: Any
) -> None:
    limiter = Limiter(lambda: "me", app=app, default_limits=[lambda: "no default"])

    @app.route("/")
    @limiter.limit(lambda: "10 per fortnight", override_defaults=False)
    def view() -> str:
        return "never"

    app.config["PROPAGATE_EXCEPTIONS"] = app.testing = False
    assert get("/").status_code == 500
    assert "failed to load" in caplog.text
    assert "fortnight" in caplog.text
    assert "view" in caplog.text
    assert caplog.records[0].levelname == "ERROR"


def test_shared_limit(app: Flask, limiter: Limiter, statuses: Any) -> None:
    shared = limiter.shared_limit("3/minute", scope="together")
    app.add_url_rule("/a", "a", shared(lambda: "a"))
    app.add_url_rule("/b", "b", shared(lambda: "b"))
    by_first = limiter.shared_limit("1/minute", scope=lambda endpoint: endpoint[0])
    app.add_url_rule("/xa", "xa", by_first(lambda: "xa"))
    app.add_url_rule("/xb", "xb", by_first(lambda: "xb"))
    app.add_url_rule("/y", "y", by_first(lambda: "y"))
    assert statuses(2, "/a") == [200, 200]
    assert statuses(2, "/b") == [200, 429]
    assert statuses(1, "/xa") == [200]
    assert statuses(1, "/xb") == [429]
    assert statuses(1, "/y") == [200]


def test_scope_of_a_limit(app: Flask, limiter: Limiter, get: Any) -> None:
    @app.route("/")
    @limiter.limit("1/minute", scope=lambda endpoint: request.args.get("part", ""))
    def view() -> str:
        return str(limiter.current_limit.key)

    assert get("/?part=a").text == "LIMITER/10.0.0.1/view:a/1/1/minute"
    assert get("/?part=b").text == "LIMITER/10.0.0.1/view:b/1/1/minute"
    assert get("/").text == "LIMITER/10.0.0.1/view/1/1/minute"
    assert get("/?part=a").status_code == 429


def test_strategy_burst_and_max_delay_of_a_limit(
    app: Flask, limiter: Limiter, statuses: Any, clock: Any
) -> None:
    app.add_url_rule("/burst", "burst", limiter.limit("1/second", burst=3)(hello))
    app.add_url_rule("/text", "text", limiter.limit("1/second burst 3")(hello))
    app.add_url_rule(
        "/bucket", "bucket", limiter.limit("2/second", strategy="token-bucket", burst=3)(hello)
    )
    app.add_url_rule(
        "/moving", "moving", limiter.limit("2/minute", strategy="moving-window")(hello)
    )
    for path in ("/burst", "/text", "/bucket"):
        assert statuses(4, path) == [200, 200, 200, 429], path
    assert statuses(1, "/moving") == [200]
    clock.forward(30)
    assert statuses(2, "/moving") == [200, 429]
    clock.forward(31)
    assert statuses(2, "/moving") == [200, 429]


def test_request_properties_outside_of_a_request(limiter: Limiter) -> None:
    for call in (
        lambda: limiter.current_limit,
        lambda: limiter.current_limits,
        limiter.check,
        limiter.identify_request,
    ):
        with pytest.raises(RuntimeError, match="there is no request"):
            call()


def test_check(app: Flask, limiter: Limiter, get: Any) -> None:
    @app.route("/")
    @limiter.limit("2 per minute")
    def view() -> str:
        limiter.check()
        return applied(limiter)

    assert get("/").text == "2 per 1 minute"
    assert get("/").status_code == 429


def test_a_limit_with_a_wrong_key_function(limiter: Limiter) -> None:
    with pytest.raises(UsageError, match=r"EKEYFUNC.*request"):
        limiter.limit("1/minute", key_func=lambda request: "x")  # type: ignore[misc, arg-type]


def test_two_limits_that_count_a_request_twice(
    app: Flask, make: Any, get: Any, caplog: Any
) -> None:
    limiter = make()
    twice = limiter.limit("5/minute")(limiter.limit("5 per 1 minute")(hello))
    app.add_url_rule("/", "hello", twice)
    assert get("/").status_code == 200
    assert "ETWICE" in caplog.text
    app.testing = True
    limiter = make(strict=True)
    app.add_url_rule("/s", "s", limiter.limit("5/minute")(limiter.limit("5 per 1 minute")(hello)))
    with pytest.raises(ConfigurationError, match="ETWICE"):
        get("/s")


def test_more_limits_than_fit_into_one_decision(app: Flask, limiter: Limiter, get: Any) -> None:
    text = ";".join(f"{n} per {n} day" for n in range(2, 32))
    first, second = limiter.limit(text), limiter.limit(text.replace("day", "hour"))

    @app.route("/")
    @first
    @second
    @limiter.limit("2 per 9 month")
    def view() -> str:
        return ",".join(str(item.remaining) for item in limiter.current_limits)

    assert get("/").text == ",".join(map(str, [*range(1, 31), *range(1, 31), 1]))
    assert get("/").status_code == 200
    assert get("/").status_code == 429
    with app.test_request_context("/"):
        state = app.extensions["weir"][limiter]
        left = state.storage.decide(list(_limits(text)), ["10.0.0.1/view"] * 30, None, 1)
    assert [verdict.remaining for verdict in left] == [*range(30)]


def _limits(text: str) -> list[Any]:
    import weir

    return [limit.replace(strategy="fixed-window") for limit in weir.parse_many(text)]


def test_an_unknown_option_is_refused_as_python_refuses_an_argument(make: Any) -> None:
    limiter = make()
    for method, arguments in (
        (limiter.limit, ["1/minute"]),
        (limiter.shared_limit, ["1/day", "x"]),
    ):
        name = rf"Limiter\.{method.__name__}\(\) got an unexpected keyword argument 'bursts'"
        with pytest.raises(TypeError, match=name):
            method(*arguments, bursts=3)
