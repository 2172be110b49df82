"""The headers of a response."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from flask import Flask, Response, make_response

import weir
from weir.flask import HEADERS, HeaderNames
from weir.flask.headers import parse_kinds

NOW = 1_700_000_000.25
MINE = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After")


def limit_headers(reply: Any) -> list[str | None]:
    return [reply.headers.get(name) for name in MINE]


@pytest.fixture
def hello(app: Flask) -> None:
    app.add_url_rule("/", "hello", lambda: "hello")


def test_none_unless_enabled(make: Any, hello: None, get: Any) -> None:
    make(default_limits=["1 per minute"])
    assert limit_headers(get("/")) == limit_headers(get("/")) == [None] * 4


def test_of_a_fixed_window(make: Any, hello: None, get: Any, clock: Any) -> None:
    make(default_limits=["2 per minute"], headers_enabled=True)
    assert limit_headers(get("/")) == ["2", "1", "1700000061", "60"]
    clock.forward(10)
    assert limit_headers(get("/")) == ["2", "0", "1700000061", "50"]
    refused = get("/")
    assert refused.status_code == 429
    assert limit_headers(refused) == ["2", "0", "1700000061", "50"]


def test_retry_after_is_the_first_second_at_which_the_request_passes(
    make: Any, hello: None, get: Any, clock: Any
) -> None:
    make(default_limits=["1 per minute"], headers_enabled=True)
    get("/")
    clock.forward(0.9)
    wait = int(get("/").headers["Retry-After"])
    assert wait == 60
    clock.forward(wait - 1)
    assert get("/").status_code == 429
    clock.forward(1)
    assert get("/").status_code == 200


@pytest.mark.parametrize(
    "strategy",
    ["fixed-window", "moving-window", "sliding-window-counter", "token-bucket"],
)
def test_retry_after_is_exact_under_every_strategy(
    make: Any, hello: None, get: Any, clock: Any, strategy: str
) -> None:
    make(default_limits=["7 per minute; 50 per hour"], headers_enabled=True, strategy=strategy)
    refused = 0
    while refused < 30:
        reply = get("/")
        if reply.status_code == 200:
            clock.forward(0.7)
            continue
        refused += 1
        wait = int(reply.headers["Retry-After"])
        clock.forward(wait - 1)
        assert get("/").status_code == 429
        clock.forward(1)
        assert get("/").status_code == 200


def test_if_all_limits_allow_headers_report_the_smallest_window(
    make: Any, hello: None, get: Any
) -> None:
    make(default_limits=["9 per 90 second", "8 per minute", "7 per hour"], headers_enabled=True)
    assert get("/").headers["X-RateLimit-Limit"] == "8"


def test_if_limits_deny_headers_report_the_longest_wait(make: Any, hello: None, get: Any) -> None:
    make(default_limits=["1 per second", "1 per hour", "1 per minute"], headers_enabled=True)
    get("/")
    refused = get("/")
    assert refused.headers["Retry-After"] == "3600"
    assert "1 per 1 hour" in refused.text


def test_headers_prefer_a_limit_of_the_route_to_a_shared_one(
    make: Any, hello: None, get: Any
) -> None:
    make(default_limits=["9 per hour"], application_limits=["8 per second"], headers_enabled=True)
    assert get("/").headers["X-RateLimit-Limit"] == "9"


def test_headers_report_the_size_of_a_token_bucket(make: Any, hello: None, get: Any) -> None:
    make(default_limits=["1 per second burst 20"], headers_enabled=True)
    assert limit_headers(get("/"))[:2] == ["20", "19"]


@pytest.mark.parametrize("names", [HeaderNames, HEADERS])
def test_other_names(make: Any, hello: None, get: Any, names: Any) -> None:
    mapping = {names.LIMIT: "X-L", names.REMAINING: "X-R", names.RESET: "X-T"}
    make(
        default_limits=["1 per minute"],
        headers_enabled=True,
        header_name_mapping={**mapping, names.RETRY_AFTER: "X-A"},
    )
    reply = get("/")
    assert [reply.headers[name] for name in ("X-L", "X-R", "X-T", "X-A")] == [
        "1",
        "0",
        "1700000061",
        "60",
    ]
    assert limit_headers(reply) == [None] * 4


def test_http_date(make: Any, hello: None, get: Any) -> None:
    make(default_limits=["1 per minute"], headers_enabled=True, retry_after="http-date")
    assert get("/").headers["Retry-After"] == "Tue, 14 Nov 2023 22:14:21 GMT"
    assert get("/").headers["Retry-After"] == "Tue, 14 Nov 2023 22:14:21 GMT"


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ("30", "60"),
        ("90", "90"),
        ("Tue, 14 Nov 2023 22:14:50 GMT", "90"),  # in 89.75 s
        ("Tue, 14 Nov 2023 22:13:30 GMT", "60"),
        ("Tue Nov 14 22:14:50 2023", "90"),  # as asctime() has it: UTC, too
        ("Tuesday, 14-Nov-23 22:14:50 GMT", "90"),
        ("9" * 5000, "3110400000"),  # a hundred years of 360 days
        ("Tue, 14 Nov 2000 22:13:30 GMT", "60"),
        ("soon", "60"),
        ("-5", "60"),
        ("", "60"),
    ],
)
@pytest.mark.parametrize("status", [200, 429])
def test_a_retry_after_of_the_view_is_merged(
    make: Any,
    app: Flask,
    get: Any,
    monkeypatch: Any,
    zone: str,
    theirs: str,
    expected: str,
    status: int,
) -> None:
    monkeypatch.setitem(os.environ, "TZ", zone)
    time.tzset()
    try:
        make(default_limits=["2 per minute"], headers_enabled=True)

        @app.route("/")
        def view() -> Response:
            response = make_response("view", 503)
            response.headers["retry-after"] = theirs
            return response

        @app.errorhandler(429)
        def handler(error: Any) -> Response:
            response = make_response("handler", 429)
            response.headers["retry-after"] = theirs
            return response

        replies = [get("/") for _ in range(3)]
        reply = replies[0] if status == 200 else replies[2]
        assert reply.headers.getlist("Retry-After") == [expected]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_error_handler_gets_headers_too(make: Any, app: Flask, hello: None, get: Any) -> None:
    make(default_limits=["1 per minute"], headers_enabled=True)
    app.register_error_handler(429, lambda error: ("handled", 429))
    get("/")
    assert limit_headers(get("/")) == ["1", "0", "1700000061", "60"]


def test_a_wait_that_is_merged_into_a_count_after_the_view(make: Any, app: Flask, get: Any) -> None:
    limiter = make(headers_enabled=True)
    limit = limiter.limit("5 per minute", deduct_when=lambda response: True)
    app.add_url_rule("/", "view", limit(lambda: ("view", {"Retry-After": "90"})))
    replies = [get("/").headers for _ in range(3)]
    assert [headers["X-RateLimit-Remaining"] for headers in replies] == ["4", "3", "2"]
    assert [headers.getlist("Retry-After") for headers in replies] == [["90"]] * 3


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ("30", "Tue, 14 Nov 2023 22:14:21 GMT"),
        ("90", "Tue, 14 Nov 2023 22:14:51 GMT"),
        ("Tue, 14 Nov 2023 22:14:50 GMT", "Tue, 14 Nov 2023 22:14:50 GMT"),
        ("9" * 50, "Mon, 08 Jun 2122 22:13:21 GMT"),
    ],
)
def test_a_retry_after_of_the_view_is_merged_as_a_date(
    make: Any, app: Flask, get: Any, theirs: str, expected: str
) -> None:
    make(default_limits=["2 per minute"], headers_enabled=True, retry_after="http-date")
    app.add_url_rule("/", "view", lambda: ("view", {"Retry-After": theirs}))
    assert get("/").headers.getlist("Retry-After") == [expected]


def test_a_retry_after_of_the_view_counts_for_one_of_another_name(
    make: Any, app: Flask, get: Any
) -> None:
    mapping = {HeaderNames.RETRY_AFTER: "X-Wait"}
    make(default_limits=["2 per minute"], headers_enabled=True, header_name_mapping=mapping)
    app.add_url_rule("/", "view", lambda: ("view", {"Retry-After": "90", "X-Wait": "70"}))
    headers = get("/").headers
    assert headers.getlist("Retry-After") == ["90"]
    assert headers.getlist("X-Wait") == ["90"]


def test_integers_of_draft_11_have_15_digits(make: Any, app: Flask, get: Any) -> None:
    limiter = make(headers_enabled="draft-11")
    limit = limiter.limit("9223372036854775807 per minute")
    app.add_url_rule("/", "view", limit(lambda: "view"))
    headers = get("/").headers
    assert headers["RateLimit-Policy"] == '"default";q=999999999999999;w=60'
    assert headers["RateLimit"] == '"default";r=999999999999999;t=60'


def test_draft_11(make: Any, app: Flask, get: Any, clock: Any) -> None:
    limiter = make(default_limits=["10 per minute"], headers_enabled="draft-11")
    app.add_url_rule("/", "hello", lambda: "hello")
    app.add_url_rule("/two", "two", limiter.limit("2 per second; 50 per 2 hour")(lambda: "two"))
    get("/")
    clock.forward(29.9)
    reply = get("/")
    assert reply.headers["RateLimit-Policy"] == '"default";q=10;w=60'
    assert reply.headers["RateLimit"] == '"default";r=8;t=31'
    assert limit_headers(reply) == [None] * 4
    reply = get("/two")
    assert reply.headers["RateLimit-Policy"] == (
        '"2 per 1 second";q=2;w=1, "50 per 2 hour";q=50;w=7200'
    )
    assert reply.headers["RateLimit"] == '"2 per 1 second";r=1;t=1'
    get("/two")
    refused = get("/two")
    assert refused.status_code == 429
    assert refused.headers["RateLimit"] == '"2 per 1 second";r=0;t=1'
    assert refused.headers["Retry-After"] == "1"


def test_both_kinds(make: Any, hello: None, get: Any) -> None:
    make(default_limits=["10 per minute"], headers_enabled="x-ratelimit, draft-11")
    reply = get("/")
    assert limit_headers(reply) == ["10", "9", "1700000061", "60"]
    assert reply.headers["RateLimit"] == '"default";r=9;t=60'


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        (True, {"x-ratelimit"}),
        (False, set()),
        (None, set()),
        ("", set()),
        ("X-RateLimit", {"x-ratelimit"}),
        ("draft-11", {"draft-11"}),
        (["draft-11", "x-ratelimit"], {"x-ratelimit", "draft-11"}),
    ],
)
def test_what_headers_enabled_may_be(value: Any, kinds: set[str]) -> None:
    assert parse_kinds(value) == kinds


@pytest.mark.parametrize("reset_at", [NOW, NOW + 0.75, NOW + 59.999999, NOW + 60, NOW - 5, 2e9])
@pytest.mark.parametrize("remaining", [0, 9, 10, 2**63 - 1])
def test_a_decision_makes_the_texts_of_headers(clock: Any, reset_at: float, remaining: int) -> None:
    verdicts = [
        weir.Verdict(True, 1, 1, NOW, 0.0, 0.0),
        weir.Verdict(True, 2**63 - 1, remaining, reset_at, 0.0, 0.0),
    ]
    decision = weir.Decision(verdicts, 0, NOW)
    clock.forward(1.5)
    reset = int(reset_at) + 1
    expected = (str(remaining), str(reset), str(max(0, int(reset - clock.now))))
    assert decision.texts(1) == expected
    for index in (2, -1, 2**70):
        with pytest.raises(IndexError):
            decision.texts(index)
    with pytest.raises(TypeError):
        decision.texts("0")  # type: ignore[arg-type]
