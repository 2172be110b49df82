"""Clients that a rule blocks or allows, regardless of limits."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, g, request

from weir import Table
from weir.flask import Limiter, RateLimitExceeded

NAMES = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After")


def table_of(limiter: Limiter) -> Table:
    storage = limiter.storage
    assert isinstance(storage, Table)
    return storage


def limit_headers(reply: Any) -> list[str | None]:
    return [reply.headers.get(name) for name in NAMES]


@pytest.fixture
def hello(app: Flask) -> None:
    app.add_url_rule("/", "hello", lambda: "hello")


def test_a_blocked_client_is_refused_until_the_rule_ends(
    make: Any, hello: None, get: Any, clock: Any
) -> None:
    limiter = make(default_limits=["10 per minute"], headers_enabled=True)
    assert get("/").status_code == 200
    table_of(limiter).block("10.0.0.0/24", clock.now + 90)
    reply = get("/")
    assert reply.status_code == 429
    assert limit_headers(reply) == ["10", "0", "1700000091", "90"]
    assert get("/", address="10.0.1.1").status_code == 200
    clock.forward(89)
    assert get("/").status_code == 429
    clock.forward(1)
    reply = get("/")
    assert reply.status_code == 200
    assert reply.headers["X-RateLimit-Remaining"] == "9"  # nothing was charged meanwhile


def test_a_block_for_good(make: Any, hello: None, get: Any, clock: Any) -> None:
    limiter = make(default_limits=["10 per minute"], headers_enabled=True)
    table_of(limiter).block("10.0.0.1")
    reply = get("/")
    assert reply.status_code == 429
    assert limit_headers(reply) == ["10", "0", "1700000061", "60"]
    clock.forward(1e6)
    assert get("/").status_code == 429
    assert table_of(limiter).unlist("10.0.0.1")
    assert get("/").status_code == 200


@pytest.mark.parametrize("options", [{}, {"fail_on_first_breach": False}])
def test_the_exception_names_the_rule(
    app: Flask, make: Any, hello: None, get: Any, clock: Any, options: dict[str, Any]
) -> None:
    seen: list[RateLimitExceeded] = []

    @app.errorhandler(429)
    def refused(error: RateLimitExceeded) -> tuple[str, int]:
        seen.append(error)
        return "no", 429

    limiter = make(default_limits=["1 per minute", "5 per hour"], **options)
    table_of(limiter).block("10.0.0.1", clock.now + 7.5)
    assert get("/").status_code == 429
    table_of(limiter).block("10.0.0.2")
    assert get("/", address="10.0.0.2").status_code == 429
    for _ in range(2):
        get("/", address="10.0.0.3")
    assert [(error.rule, error.retry_after) for error in seen] == [
        ("block", 8),
        ("block", None),
        ("", 60),
    ]


def test_one_let_through_sees_an_unused_limit(make: Any, hello: None, get: Any, clock: Any) -> None:
    limiter = make(default_limits=["1 per minute", "3 per hour"], headers_enabled=True)
    table_of(limiter).allow("10.0.0.1", clock.now + 10)
    for _ in range(5):
        reply = get("/")
        assert reply.status_code == 200
        assert limit_headers(reply) == ["1", "1", "1700000001", "0"]
    clock.forward(10)
    assert get("/").status_code == 200
    assert get("/").status_code == 429


def test_the_narrowest_rule_wins(make: Any, hello: None, statuses: Any) -> None:
    limiter = make(default_limits=["1 per minute"])
    table_of(limiter).block("0.0.0.0/0")
    table_of(limiter).allow("10.0.0.0/8")
    table_of(limiter).block("10.0.0.1")
    assert statuses(2, address="192.0.2.1") == [429, 429]
    assert statuses(2, address="10.0.0.2") == [200, 200]
    assert statuses(2, address="10.0.0.1") == [429, 429]
    assert statuses(2, address="2001:db8::1") == [200, 429]  # other rules, none of them


@pytest.mark.parametrize("address", ["2001:db8::1", "::ffff:10.0.0.1"])
def test_addresses_of_ipv6(make: Any, hello: None, statuses: Any, address: str) -> None:
    limiter = make(default_limits=["9 per minute"])
    table_of(limiter).load_rules([("2001:db8::/32", "block", None), ("10.0.0.0/8", "block", None)])
    assert statuses(1, address=address) == [429]


@pytest.mark.parametrize("prefix", ["", "shop", "a/b"])
def test_names_behind_a_prefix_of_keys(app: Flask, make: Any, get: Any, prefix: str) -> None:
    limiter = make(key_prefix=prefix)

    @app.route("/<user>")
    @limiter.limit("9 per minute", key_func=lambda: f"user/{request.view_args['user']}")  # type: ignore[index]
    def view(user: str) -> str:
        return user

    table_of(limiter).block("user/eve")
    assert [get(f"/{user}").status_code for user in ("eve", "alice")] == [429, 200]
    assert [rule.client for rule in table_of(limiter).rules()] == ["user/eve"]


def test_limits_of_several_clients(app: Flask, make: Any, get: Any) -> None:
    """An address that is let through is not counted; the user still is."""
    limiter = make(default_limits=["1 per minute"])

    @app.before_request
    def who() -> None:
        g.user = request.headers.get("User", "nobody")

    @app.route("/")
    @limiter.limit("2 per minute", key_func=lambda: g.user, override_defaults=False)
    def view() -> str:
        return "hello"

    table_of(limiter).allow("10.0.0.1")
    assert [get("/", User="alice").status_code for _ in range(3)] == [200, 200, 429]
    table_of(limiter).block("eve")
    assert get("/", User="eve").status_code == 429
    assert get("/", User="bob").status_code == 200


def test_a_view_without_limits_looks_up_no_rule(app: Flask, make: Any, get: Any) -> None:
    limiter = make(default_limits=["1 per minute"])

    @app.route("/")
    @limiter.exempt
    def view() -> str:
        return "hello"

    table_of(limiter).block("10.0.0.1")
    assert get("/").status_code == 200


def test_deductions_of_one_let_through(app: Flask, make: Any, statuses: Any) -> None:
    limiter = make()

    @app.route("/")
    @limiter.limit("1 per minute", deduct_when=lambda response: response.status_code == 200)
    def view() -> str:
        return "hello"

    table_of(limiter).allow("10.0.0.1")
    assert statuses(3) == [200, 200, 200]
    table_of(limiter).unlist("10.0.0.1")
    assert statuses(2) == [200, 429]
