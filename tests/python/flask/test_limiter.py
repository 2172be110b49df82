"""The extension itself: how it is made, and whose state is where."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask_limiter
import pytest
from flask import Flask, current_app

import weir
from flask_views import hello
from weir.flask import ConfigurationError, Limiter, UsageError
from weir.flask.util import get_remote_address


@pytest.mark.parametrize(
    "construct",
    [
        lambda app, **kw: Limiter(get_remote_address, app=app, **kw),
        lambda app, **kw: Limiter(app, key_func=get_remote_address, **kw),
        lambda app, **kw: Limiter(app, get_remote_address, **kw),
        lambda app, **kw: Limiter(key_func=get_remote_address, app=app, **kw),
        lambda app, **kw: Limiter(get_remote_address, app, **kw),
        lambda app, **kw: Limiter(key_func=get_remote_address, **kw).init_app(app),
    ],
)
def test_every_signature_of_the_tutorials(app: Flask, construct: Any, statuses: Any) -> None:
    app.add_url_rule("/", "hello", hello)
    construct(app, default_limits=["1 per hour"], storage_uri="memory://")
    assert statuses(2) == [200, 429]


def test_arguments_are_those_of_flask_limiter() -> None:
    ours = inspect.signature(Limiter.__init__).parameters
    for name in inspect.signature(flask_limiter.Limiter.__init__).parameters:
        assert name in ours, name
    for method in ("limit", "shared_limit", "exempt", "request_filter"):
        mine = inspect.signature(getattr(Limiter, method)).parameters
        for name, theirs in inspect.signature(
            getattr(flask_limiter.Limiter, method)
        ).parameters.items():
            assert name in mine, (method, name)
            if method != "exempt":
                assert mine[name].default == theirs.default, (method, name)


def test_public_names_are_those_of_flask_limiter() -> None:
    import weir.flask

    for name in flask_limiter.__all__:
        assert hasattr(weir.flask, name), name


def test_default_limits_hold_for_each_route_and_client(
    make: Any, app: Flask, statuses: Any
) -> None:
    make(default_limits=["2 per minute"])
    app.add_url_rule("/a", "a", hello)
    app.add_url_rule("/b", "b", hello)
    assert statuses(3, "/a") == [200, 200, 429]
    assert statuses(3, "/b") == [200, 200, 429]
    assert statuses(1, "/a", address="10.0.0.2") == [200]


def test_application_limits_hold_for_all_routes_together(
    make: Any, app: Flask, statuses: Any
) -> None:
    limiter = make(application_limits=["4 per minute"], default_limits=["2 per minute"])
    app.add_url_rule("/a", "a", hello)
    app.add_url_rule("/b", "b", limiter.limit("9 per minute")(hello))
    # The application's and the default limits are one check: what is refused is not counted.
    assert statuses(3, "/a") == [200, 200, 429]
    assert statuses(3, "/b") == [200, 200, 429]


def test_three_per_minute_and_again_after_the_minute(
    make: Any, app: Flask, statuses: Any, clock: Any
) -> None:
    make(default_limits=["3 per minute"])
    app.add_url_rule("/", "hello", hello)
    assert statuses(5) == [200, 200, 200, 429, 429]
    clock.forward(59.999)
    assert statuses(1) == [429]
    clock.forward(0.001)
    assert statuses(1) == [200]


def test_everything_of_an_application_lives_in_it() -> None:
    limiter = Limiter(get_remote_address, default_limits=["1 per hour"], storage_uri="memory://")

    def make_app() -> Flask:
        app = Flask("short-lived")
        app.add_url_rule("/", "hello", hello)
        limiter.init_app(app)
        assert [app.test_client().get("/").status_code for _ in range(2)] == [200, 429]
        assert limiter in app.extensions["limiter"]
        assert limiter in app.extensions["weir"]
        return app

    app = weakref.ref(make_app())
    make_app()
    gc.collect()
    assert app() is None


def test_one_limiter_of_several_applications(clock: Any) -> None:
    limiter = Limiter(get_remote_address)
    apps = []
    for limit in ("1 per hour", "2 per hour"):
        app = Flask("factory")
        app.config.update(RATELIMIT_DEFAULT=limit, RATELIMIT_STORAGE_URI="memory://")
        app.add_url_rule("/", "hello", hello)
        limiter.init_app(app)
        apps.append(app)
    off = Flask("off")
    off.config["RATELIMIT_ENABLED"] = False
    off.add_url_rule("/", "hello", limiter.limit("1/hour")(hello))
    limiter.init_app(off)
    first, second = (app.test_client() for app in apps)
    assert [first.get("/").status_code for _ in range(2)] == [200, 429]
    assert [second.get("/").status_code for _ in range(3)] == [200, 200, 429]
    assert [off.test_client().get("/").status_code for _ in range(2)] == [200, 200]
    with apps[0].app_context():
        first_storage = limiter.storage
        limiter.reset()
    with apps[1].app_context():
        assert limiter.storage is not first_storage
    assert first.get("/").status_code == 200
    assert second.get("/").status_code == 429


def test_an_application_factory_does_not_add_up_limits(clock: Any) -> None:
    limiter = Limiter(get_remote_address, storage_uri="memory://")

    def create_app(limit: str) -> Flask:
        app = Flask("factory")
        limiter.init_app(app)

        @app.route("/")
        @limiter.limit(limit)
        def view() -> str:
            return ", ".join(str(item.limit) for item in limiter.current_limits)

        return app

    assert create_app("1 per hour").test_client().get("/").text == "1 per 1 hour"
    assert create_app("2 per hour").test_client().get("/").text == "2 per 1 hour"


def test_several_limiters_of_one_application(app: Flask, clock: Any) -> None:
    by_address = Limiter(get_remote_address, app=app, storage_uri="memory://")
    by_user = Limiter(
        lambda: "user", app=app, storage_uri="memory://", default_limits=["3 per hour"]
    )

    @app.route("/")
    @by_user.limit("2 per hour")
    @by_address.limit("1 per hour")
    def view() -> str:
        return f"{by_address.current_limit.limit}, {by_user.current_limit.limit}"

    def send(address: str) -> Any:
        return app.test_client().get("/", environ_base={"REMOTE_ADDR": address})

    assert send("10.0.0.1").text == "1 per 1 hour, 2 per 1 hour"
    assert send("10.0.0.1").status_code == 429
    assert "2 per 1 hour" in send("10.0.0.2").text
    assert by_user.storage is not by_address.storage


def test_limits_added_after_the_first_request(make: Any, app: Flask, statuses: Any) -> None:
    limiter = make(default_limits=["5 per hour"])
    app.add_url_rule("/", "hello", hello)
    assert statuses(2) == [200, 200]
    app.view_functions["hello"] = limiter.limit("1 per hour")(app.view_functions["hello"])
    assert statuses(2) == [200, 429]
    limiter.exempt(app.view_functions["hello"])
    assert statuses(9) == [200] * 9


def test_a_limited_view_that_takes_the_place_of_another(
    make: Any, app: Flask, statuses: Any
) -> None:
    limiter = make(default_limits=["5 per hour"])
    app.add_url_rule("/", "hello", hello)
    limited = limiter.limit("1 per hour")(lambda: "limited")
    assert statuses(1) == [200]
    app.view_functions["hello"] = limited
    assert statuses(2) == [200, 429]


def test_enabled(make: Any, app: Flask, statuses: Any) -> None:
    limiter = make(default_limits=["1 per hour"], application_limits=["5 per hour"])
    app.add_url_rule("/", "hello", hello)
    app.add_url_rule("/limited", "limited", limiter.limit("1 per hour")(hello))
    assert statuses(2) == [200, 429]
    limiter.enabled = False
    assert statuses(2) == [200, 200]
    assert statuses(2, "/limited") == [200, 200]
    limiter.enabled = True
    assert statuses(1) == [429]


def test_disabled_by_argument_and_setting(app: Flask, clock: Any) -> None:
    app.add_url_rule("/", "hello", hello)
    limiter = Limiter(
        get_remote_address, app=app, enabled=False, default_limits=["1/hour"], storage_uri="no://"
    )
    assert app.config["RATELIMIT_ENABLED"] is False
    assert not limiter.enabled
    assert not limiter.initialized
    assert [app.test_client().get("/").status_code for _ in range(2)] == [200, 200]
    with pytest.raises(RuntimeError, match="init_app"):
        _ = limiter.storage


def test_static_files_and_404_are_not_limited(make: Any, app: Flask, statuses: Any) -> None:
    make(default_limits=["1 per hour"], application_limits=["1 per hour"])
    assert statuses(3, "/static/nothing.css") == [404] * 3
    assert statuses(3, "/nowhere") == [404] * 3


def test_reset_and_the_counters(make: Any, app: Flask, statuses: Any, caplog: Any) -> None:
    limiter = make(default_limits=["1 per hour"])
    app.add_url_rule("/", "hello", hello)
    caplog.set_level("INFO", "flask-limiter")
    assert statuses(3) == [200, 429, 429]
    assert limiter.counters == {"denied": 2}
    limiter.reset()
    assert "cleared" in caplog.text
    assert statuses(1) == [200]


def test_the_storage_and_the_limiter_count_as_the_extension_does(
    make: Any, app: Flask, statuses: Any
) -> None:
    limiter = make(default_limits=["2 per hour"], key_prefix="a/b")
    app.add_url_rule("/", "hello", hello)
    assert statuses(2) == [200, 200]
    limit = weir.parse("2 per hour")
    arguments = ("a/b", "10.0.0.1", "hello")
    assert limiter.limiter.get_window_stats(limit, *arguments).remaining == 0
    limiter.limiter.clear(limit, *arguments)
    assert statuses(1) == [200]
    with app.app_context():
        assert current_app.extensions["weir"][limiter].storage is limiter.storage


def test_request_filter(make: Any, app: Flask, get: Any) -> None:
    limiter = make(default_limits=["1 per hour"], application_limits=["9 per hour"])

    @limiter.request_filter
    def internal() -> bool:
        from flask import request

        return request.headers.get("X-Internal") == "yes"

    app.add_url_rule("/", "hello", hello)
    app.add_url_rule("/limited", "limited", limiter.limit("1 per hour")(hello))
    for path in ("/", "/limited"):
        assert [get(path, X_Internal="yes").status_code for _ in range(3)] == [200] * 3
        assert [get(path).status_code for _ in range(2)] == [200, 429]
        assert get(path, X_Internal="yes").status_code == 200


def test_current_limit_outside_of_a_check(make: Any, app: Flask) -> None:
    limiter = make()
    with app.test_request_context("/"):
        assert limiter.current_limit is None
        assert limiter.current_limits == []
        assert limiter.identify_request() == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"strategy": "no-such-window"}, "EOPTION"),
        ({"headers_enabled": "draft-3"}, "EOPTION"),
        ({"on_store_error": "panic"}, "EOPTION"),
        ({"default_limit": ["1/hour"]}, "EOPTION"),
        ({"key_func": lambda request: "x"}, "EKEYFUNC"),
        ({"key_func": "remote_addr"}, "EKEYFUNC"),
        ({"key_func": None}, "EOPTION"),
    ],
)
def test_mistakes_have_a_code(arguments: dict[str, Any], code: str) -> None:
    arguments = {"key_func": get_remote_address, "storage_uri": "memory://", **arguments}
    with pytest.raises(ConfigurationError, match=code) as caught:
        Limiter(app=Flask("wrong"), **arguments)
    assert caught.value.code == code


def test_an_unknown_argument_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean default_limits"):
        Limiter(get_remote_address, default_limit=["1/hour"])
    with pytest.raises(TypeError):
        Limiter(get_remote_address, nonsense=1)


def test_an_unreadable_default_raises(app: Flask, make: Any, get: Any) -> None:
    make(default_limits=["10 per fortnight"])
    app.add_url_rule("/", "hello", hello)
    app.testing = True
    with pytest.raises(ValueError, match="fortnight"):
        get("/")
    with pytest.raises(ValueError, match="fortnight"):
        make(default_limits=["10 per fortnight"], strict=True)


def test_an_unreadable_default_may_be_swallowed(
    app: Flask, make: Any, statuses: Any, caplog: Any
) -> None:
    make(default_limits=["10 per fortnight"], swallow_errors=True)
    app.add_url_rule("/", "hello", hello)
    assert statuses(2) == [200, 200]
    assert "fortnight" in caplog.text


def test_made_up_methods_and_paths_leave_nothing_behind(
    app: Flask, make: Any, statuses: Any
) -> None:
    limiter = make(default_limits=["1 per hour"])
    app.add_url_rule("/", "hello", hello)
    for n in range(50):
        assert statuses(1, f"/{n}", method=f"METHOD{n}") == [404]
        assert statuses(1, method=f"METHOD{n}") == [405]
    assert len(app.extensions["weir"][limiter].plans) == 1


def test_threads_get_exactly_the_limit(app: Flask, clock: Any) -> None:
    limiter = Limiter(
        get_remote_address, app=app, storage_uri="memory://", default_limits=["100 per hour"]
    )
    app.add_url_rule("/", "hello", hello)
    app.add_url_rule("/own", "own", limiter.limit("50 per hour; 60 per day")(hello))

    def send(n: int) -> tuple[str, int]:
        path = ("/", "/own")[n % 2]
        if n == 150:
            limiter.exempt(lambda: "something else")  # plans are made again
        return path, app.test_client().get(path).status_code

    with ThreadPoolExecutor(8) as pool:
        replies = Counter(pool.map(send, range(400)))
    assert replies == {("/", 200): 100, ("/", 429): 100, ("/own", 200): 50, ("/own", 429): 150}


def test_after_request_hook_only_if_needed(make: Any, app: Flask, get: Any) -> None:
    limiter = make(default_limits=["9 per minute"])
    app.add_url_rule("/", "hello", hello)
    app.add_url_rule(
        "/later", "later", limiter.limit("2 per minute", deduct_when=lambda r: True)(lambda: "")
    )
    get("/")
    assert not app.after_request_funcs[None]
    assert [get("/later").status_code for _ in range(3)] == [200, 200, 429]
    assert len(app.after_request_funcs[None]) == 1
    app.config["RATELIMIT_HEADERS_ENABLED"] = True
    limiter.init_app(app)
    assert get("/").headers["X-RateLimit-Limit"] == "9"
    assert len(app.after_request_funcs[None]) == 1
