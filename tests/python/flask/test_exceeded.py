"""The response to a client over its limit, and the events for the application."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, Response, jsonify, make_response
from werkzeug.exceptions import ServiceUnavailable

from weir.flask import MetaLimit, RateLimitExceeded, RequestLimit


@pytest.fixture
def hello(app: Flask) -> None:
    app.add_url_rule("/", "hello", lambda: "hello")


def test_the_description_is_the_limit(make: Any, hello: None, get: Any) -> None:
    make(default_limits=["1 per minute"])
    get("/")
    reply = get("/")
    assert reply.status_code == 429
    assert "<p>1 per 1 minute</p>" in reply.text


@pytest.mark.parametrize("message", ["slow down", lambda: "slow down"])
def test_error_message(make: Any, app: Flask, get: Any, message: Any) -> None:
    limiter = make()
    app.add_url_rule("/", "x", limiter.limit("1/minute", error_message=message)(lambda: "x"))
    get("/")
    assert "<p>slow down</p>" in get("/").text


def test_the_exception_carries_everything(make: Any, app: Flask, hello: None, get: Any) -> None:
    make(default_limits=["3 per minute"], default_limits_cost=2, key_prefix="p")
    seen: list[RateLimitExceeded] = []

    @app.errorhandler(429)
    def handler(error: RateLimitExceeded) -> tuple[Response, int]:
        seen.append(error)
        return jsonify(error=error.description, retry=error.retry_after), 429

    get("/")
    assert get("/").json == {"error": "3 per 1 minute", "retry": 60}
    (error,) = seen
    assert isinstance(error, RateLimitExceeded)
    assert str(error.limit.limit) == "3 per 1 minute"
    assert (error.retry_after, error.reset_at, error.remaining) == (60, 1700000061, 1)
    assert error.headers == {
        "X-RateLimit-Limit": "3",
        "X-RateLimit-Remaining": "1",
        "X-RateLimit-Reset": "1700000061",
        "Retry-After": "60",
    }
    assert error.request_limit is not None
    assert error.request_limit.key == "LIMITER/p/10.0.0.1/hello/3/1/minute"
    assert error.request_limit.breached


def test_a_request_that_can_never_pass(make: Any, app: Flask, hello: None, get: Any) -> None:
    make(default_limits=["3 per minute"], default_limits_cost=4, headers_enabled=True)
    seen: list[Any] = []
    app.register_error_handler(429, lambda error: seen.append(error.retry_after) or ("no", 429))
    assert get("/").status_code == 429
    assert seen == [None]


def test_problem_json(make: Any, hello: None, get: Any) -> None:
    make(default_limits=["1 per minute"], problem_json=True, headers_enabled=True)
    get("/")
    reply = get("/")
    assert reply.status_code == 429
    assert reply.content_type == "application/problem+json"
    assert reply.json == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "1 per 1 minute",
        "violated-policies": ["1 per 1 minute"],
        "retry-after": 60,
    }
    assert reply.headers.getlist("Retry-After") == ["60"]


def test_problem_json_names_the_policies_of_the_headers(make: Any, app: Flask, get: Any) -> None:
    limiter = make(problem_json=True, headers_enabled="draft-11")
    errors: list[RateLimitExceeded] = []
    app.add_url_rule("/one", "one", limiter.limit("1 per minute")(lambda: ""))
    app.add_url_rule("/two", "two", limiter.limit("1 per minute; 5 per hour")(lambda: ""))
    for path, name in [("/one", "default"), ("/two", "1 per 1 minute")]:
        get(path)
        reply = get(path)
        assert reply.json["violated-policies"] == [name]
        assert reply.headers["RateLimit"] == f'"{name}";r=0;t=60'

    @app.errorhandler(429)
    def keep(error: RateLimitExceeded) -> Any:
        errors.append(error)
        return error

    get("/one")
    assert errors[0].headers == {
        "RateLimit-Policy": '"default";q=1;w=60',
        "RateLimit": '"default";r=0;t=60',
        "Retry-After": "60",
    }


def test_on_breach(make: Any, app: Flask, get: Any) -> None:
    calls: list[tuple[str, str, int, bool]] = []

    def note(who: str) -> Any:
        def callback(limit: RequestLimit) -> None:
            calls.append((who, str(limit.limit), limit.remaining, limit.breached))

        return callback

    both = note("both")
    limiter = make(on_breach=note("limiter"))
    app.add_url_rule("/", "x", limiter.limit("1/minute", on_breach=note("limit"))(lambda: "x"))
    get("/")
    get("/")
    assert calls == [("limiter", "1 per 1 minute", 0, True), ("limit", "1 per 1 minute", 0, True)]
    calls.clear()
    limiter = make(on_breach=both)
    app.add_url_rule("/b", "b", limiter.limit("1/minute", on_breach=both)(lambda: "x"))
    get("/b")
    get("/b")
    assert calls == [("both", "1 per 1 minute", 0, True)]


def test_a_response_of_on_breach_is_sent(make: Any, hello: None, get: Any) -> None:
    make(
        default_limits=["1 per minute"],
        on_breach=lambda limit: make_response(f"not more than {limit.limit}", 418),
        headers_enabled=True,
    )
    get("/")
    reply = get("/")
    assert (reply.status_code, reply.text) == (418, "not more than 1 per 1 minute")
    assert reply.headers["X-RateLimit-Remaining"] == "0"


@pytest.mark.parametrize("of_view", [False, True])
def test_on_breach_may_return_the_same_response_each_time(
    make: Any, app: Flask, get: Any, of_view: bool
) -> None:
    same = Response("slow down", 429)
    limiter = make(application_limits=[] if of_view else ["1/day"], on_breach=lambda limit: same)
    view: Any = lambda: "hello"  # noqa: E731
    app.add_url_rule("/", "hello", limiter.limit("1/day")(view) if of_view else view)

    @app.after_request
    def mark(response: Response) -> Response:
        response.headers.add("X-Mark", "here")
        return response

    assert [get("/").headers.getlist("X-Mark") for _ in range(4)] == [["here"]] * 4
    assert get("/").text == "slow down"


@pytest.mark.parametrize("of_view", [False, True])
@pytest.mark.parametrize("error", [ValueError, ServiceUnavailable])
def test_an_error_in_the_handler_of_429_is_an_error_of_the_application(
    make: Any, app: Flask, statuses: Any, of_view: bool, error: type[Exception]
) -> None:
    limiter = make(application_limits=[] if of_view else ["1/day"])
    view: Any = lambda: "hello"  # noqa: E731
    app.add_url_rule("/", "hello", limiter.limit("1/day")(view) if of_view else view)

    @app.errorhandler(429)
    def too_many(denial: Any) -> str:
        raise error

    @app.errorhandler(error)
    def of_views_only(error: Any) -> tuple[str, int]:
        return "handled", 418

    assert statuses(3) == [200, 500, 500]


@pytest.mark.parametrize("swallow", [False, True])
def test_an_error_in_on_breach(
    make: Any, app: Flask, hello: None, get: Any, swallow: bool, caplog: Any
) -> None:
    make(default_limits=["1 per minute"], on_breach=lambda limit: 1 / 0, swallow_errors=swallow)
    get("/")
    assert get("/").status_code == (429 if swallow else 500)
    assert "ZeroDivisionError" in caplog.text


def test_a_breach_is_logged(make: Any, hello: None, get: Any, caplog: Any) -> None:
    make(default_limits=["1 per minute"])
    caplog.set_level("INFO", "flask-limiter")
    get("/")
    assert caplog.records == []
    get("/")
    (record,) = (record for record in caplog.records if record.name != "weir.audit")
    assert (record.name, record.levelname) == ("flask-limiter", "INFO")
    assert record.getMessage() == (
        "ratelimit 1 per 1 minute (10.0.0.1) exceeded at endpoint: hello"
    )


def test_without_fail_on_first_breach_every_limit_with_room_counts(
    make: Any, app: Flask, get: Any, clock: Any
) -> None:
    breached: list[str] = []
    limiter = make(
        default_limits=["1 per second", "2 per minute", "9 per hour"],
        fail_on_first_breach=False,
        on_breach=lambda limit: breached.append(str(limit.limit)),
    )
    remaining: list[list[int]] = []

    @app.after_request
    def look(response: Response) -> Response:
        remaining.append([item.remaining for item in limiter.current_limits])
        return response

    app.add_url_rule("/", "hello", lambda: "hello")
    assert [get("/").status_code for _ in range(3)] == [200, 429, 429]
    assert remaining == [[0, 1, 8], [0, 0, 7], [0, 0, 6]]
    assert breached == ["1 per 1 second", "1 per 1 second", "2 per 1 minute"]


# ------------------------------------------------------------------------------- meta limits


def test_a_meta_limit_refuses_everything_for_its_time(
    make: Any, app: Flask, get: Any, statuses: Any, clock: Any
) -> None:
    calls: list[str] = []
    limiter = make(
        default_limits=["1 per second"],
        meta_limits=["2 per hour"],
        on_meta_breach=lambda limit: calls.append(limit.key),
        headers_enabled=True,
    )
    app.add_url_rule("/", "hello", lambda: "hello")
    app.add_url_rule("/other", "other", lambda: "other")
    app.add_url_rule("/free", "free", limiter.exempt(flags=weir_meta())(lambda: "free"))
    assert statuses(3) == [200, 429, 429]
    clock.forward(5)
    reply = get("/other")
    assert reply.status_code == 429
    assert "2 per 1 hour" in reply.text
    assert reply.headers["X-RateLimit-Limit"] == "2"
    assert reply.headers["Retry-After"] == "3595"
    assert get("/nowhere").status_code == 429
    assert get("/free").status_code == 200
    assert get("/other", address="10.0.0.2").status_code == 200
    assert calls == ["LIMITER/10.0.0.1/meta/2/1/hour"] * 2
    clock.forward(3600)
    assert get("/other").status_code == 200


def weir_meta() -> Any:
    from weir.flask import ExemptionScope

    return ExemptionScope.META


def test_meta_limits_of_a_limit(make: Any, app: Flask, get: Any, statuses: Any, clock: Any) -> None:
    limiter = make()
    keys: list[str] = []
    meta = MetaLimit("1 per day", scope="mine", on_breach=lambda limit: keys.append(limit.key))
    app.add_url_rule(
        "/",
        "x",
        limiter.limit("1 per second", key_func=lambda: "user", meta_limits=[meta])(lambda: "x"),
    )
    app.add_url_rule("/other", "other", lambda: "other")
    assert statuses(2) == [200, 429]
    clock.forward(2)
    assert statuses(1) == [429]
    assert keys == ["LIMITER/user/mine/1/1/day"]
    assert statuses(1, "/other") == [200]


def test_a_response_of_on_meta_breach_is_sent(make: Any, hello: None, get: Any) -> None:
    make(
        default_limits=["1 per minute"],
        meta_limits=["1 per hour"],
        on_meta_breach=lambda limit: make_response("go away", 403),
    )
    assert [get("/").status_code for _ in range(4)] == [200, 429, 403, 403]


# -------------------------------------------------------------------------------- deduct_when


def deduct_if_failed(response: Response) -> bool:
    return response.status_code == 401


def test_a_cost_may_be_whether_something_holds(make: Any, app: Flask, statuses: Any) -> None:
    limiter = make()
    counts = [False]
    app.add_url_rule("/", "view", limiter.limit("1/day", cost=lambda: counts[0])(lambda: "view"))
    assert statuses(3) == [200, 200, 200]
    counts[0] = True
    assert statuses(2) == [200, 429]


@pytest.mark.parametrize("reserve", [False, True])
def test_deduct_when(make: Any, app: Flask, get: Any, reserve: bool) -> None:
    limiter = make(headers_enabled=True)
    app.add_url_rule(
        "/<int:status>",
        "login",
        limiter.limit("2 per minute", deduct_when=deduct_if_failed, reserve=reserve)(
            lambda status: ("", status)
        ),
    )

    def send(status: int) -> tuple[int, str]:
        reply = get(f"/{status}")
        return reply.status_code, reply.headers["X-RateLimit-Remaining"]

    assert send(200) == (200, "2")
    assert send(401) == (401, "1")
    assert send(200) == (200, "1")
    assert send(401) == (401, "0")
    assert send(200) == (429, "0")


@pytest.mark.parametrize("reserve", [False, True])
def test_requests_at_the_same_time_under_deduct_when(
    make: Any, app: Flask, get: Any, reserve: bool
) -> None:
    """A request arrives while another one is in its view."""
    limiter = make()
    inner: list[int] = []

    @app.route("/")
    @limiter.limit("1 per minute", deduct_when=deduct_if_failed, reserve=reserve)
    def view() -> tuple[str, int]:
        if not inner:
            inner.append(0)
            inner[0] = get("/").status_code
        return "", 401

    assert get("/").status_code == 401
    # Without a reservation both get in, one more than the limit.
    assert inner == [429 if reserve else 401]


def test_a_deduction_together_with_limits_that_count_at_once(
    make: Any, app: Flask, get: Any
) -> None:
    limiter = make(default_limits=["3 per hour"])

    @app.route("/<int:status>")
    @limiter.limit("1 per minute", deduct_when=deduct_if_failed, override_defaults=False)
    def view(status: int) -> tuple[str, int]:
        return str([item.remaining for item in limiter.current_limits]), status

    assert get("/200").text == "[1, 2]"
    assert get("/401").text == "[1, 1]"
    assert get("/200").status_code == 429  # refused by the first, not counted by the second
    with app.test_request_context("/"):
        import weir

        stats = limiter.limiter.get_window_stats(weir.parse("3 per hour"), "10.0.0.1", "view")
    assert stats.remaining == 1


def test_an_error_in_deduct_when_is_an_error(make: Any, app: Flask, get: Any) -> None:
    limiter = make()
    app.add_url_rule(
        "/", "x", limiter.limit("1/minute", deduct_when=lambda response: 1 / 0)(lambda: "x")
    )
    app.testing = True
    with pytest.raises(ZeroDivisionError):
        get("/")


# ------------------------------------------------------------------------------------- shadow


def test_a_shadow_limit_refuses_no_request(make: Any, app: Flask, get: Any, caplog: Any) -> None:
    limiter = make(headers_enabled=True)
    caplog.set_level("INFO", "flask-limiter")
    app.add_url_rule(
        "/",
        "x",
        limiter.limit("1 per second", shadow=True)(limiter.limit("3 per minute")(lambda: "x")),
    )
    replies = [get("/") for _ in range(4)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
    assert [reply.headers["X-RateLimit-Limit"] for reply in replies] == ["3"] * 4
    assert limiter.counters == {"shadow_denied": 3, "denied": 1}
    assert caplog.text.count("would have been exceeded") == 3


def test_a_shadow_limiter_refuses_no_request(make: Any, app: Flask, hello: None, get: Any) -> None:
    limiter = make(
        default_limits=["1 per minute"],
        meta_limits=["1 per minute"],
        shadow=True,
        headers_enabled=True,
    )
    replies = [get("/") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200] * 3
    assert "X-RateLimit-Limit" not in replies[2].headers
    assert limiter.counters == {"shadow_denied": 2}


@pytest.mark.parametrize("other_key", [False, True])
def test_meta_limits_with_one_counter_are_one(
    make: Any, app: Flask, statuses: Any, clock: Any, other_key: bool
) -> None:
    """A limiter's and a limit's, here: each counts a refusal once, and refuses when it is full."""
    limiter = make(meta_limits=["2 per day"])
    meta = MetaLimit("2 per day", key_function=(lambda: "10.0.0.1") if other_key else None)
    app.add_url_rule("/", "hello", limiter.limit("1 per minute", meta_limits=[meta])(lambda: ""))
    app.add_url_rule("/other", "other", lambda: "")
    assert statuses(2) == [200, 429]
    clock.forward(60)
    assert statuses(1) == [200]
    assert statuses(1, "/other") == [200]
    assert statuses(1) == [429]
    clock.forward(60)
    assert statuses(1) == [429]
    assert statuses(1, "/other") == [429]


@pytest.mark.parametrize("limits", [3, 40])
@pytest.mark.parametrize("reserve", [False, True])
def test_a_refusal_gives_nothing_back_that_was_not_charged(
    make: Any, app: Flask, statuses: Any, reserve: bool, limits: int
) -> None:
    """More limits than one decision takes are decided in groups, as if they were one."""
    limiter = make()
    refusing = [False]

    def view() -> tuple[str, int]:
        return "wrong password", 401

    for n in range(limits):
        view = limiter.limit(f"{1000 + n}/hour")(view)
    view = limiter.limit("4/minute", deduct_when=deduct_if_failed, reserve=reserve)(view)
    view = limiter.limit("1/year", exempt_when=lambda: not refusing[0])(view)
    app.add_url_rule("/", "login", view)

    assert statuses(2) == [401, 401]
    refusing[0] = True
    assert statuses(4) == [401, 429, 429, 429]
    refusing[0] = False
    assert statuses(3) == [401, 429, 429]


@pytest.mark.parametrize("limits", [3, 40])
@pytest.mark.parametrize("reserve", [False, True])
def test_a_denial_is_deducted_if_deduct_when_is_true(
    make: Any, app: Flask, statuses: Any, reserve: bool, limits: int
) -> None:
    limiter = make()

    def view() -> str:
        return "hello"

    for n in range(limits):
        view = limiter.limit(f"{1000 + n}/hour")(view)
    refused = limiter.limit("3/minute", deduct_when=lambda r: r.status_code == 429, reserve=reserve)
    view = refused(limiter.limit("1/year", exempt_when=lambda: open_again[0])(view))
    open_again = [False]
    app.add_url_rule("/", "login", view)

    assert statuses(3) == [200, 429, 429]
    open_again[0] = True
    assert statuses(2) == [200, 200]
    open_again[0] = False
    assert statuses(1) == [429]
    open_again[0] = True
    assert statuses(2) == [429, 429]
