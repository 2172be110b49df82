"""The tutorial's app matches its docstrings."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

APP = Path(__file__).parents[2] / "examples" / "tutorial" / "app.py"


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    spec = importlib.util.spec_from_file_location("tutorial", APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.limiter.reset()
    with module.app.test_client() as client:
        yield client
    module.limiter.reset()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def passes(client: FlaskClient, path: str, tries: int, **request: object) -> int:
    """How many of that many requests were not refused for their number."""
    answers = [client.open(path, **request) for _ in range(tries)]  # type: ignore[arg-type]
    return sum(answer.status_code != 429 for answer in answers)


def test_a_route_with_a_limit_has_no_default_limits(client: FlaskClient) -> None:
    assert passes(client, "/limited", 15) == 10


def test_the_defaults_hold_the_rest(client: FlaskClient) -> None:
    assert passes(client, "/", 60) == 50


def test_a_refusal_is_json_with_retry_after(client: FlaskClient) -> None:
    passes(client, "/limited", 10)
    refused: TestResponse = client.get("/limited")
    assert refused.status_code == 429
    assert refused.json == {"error": "too many requests", "limit": "10 per 1 minute"}
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["X-RateLimit-Limit"] == "10"
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert refused.headers["X-Worker"] == str(os.getpid())


def test_guessing_passwords_is_slow(client: FlaskClient) -> None:
    form = {"name": "ada", "password": "guess"}
    assert passes(client, "/login", 10, method="POST", data=form) == 5


def test_login_gives_a_token_that_identifies(client: FlaskClient) -> None:
    answer = client.post("/login", data={"name": "bob", "password": "builder"})
    assert answer.json is not None
    orders = client.get("/orders", headers=bearer(answer.json["token"]))
    assert orders.json == {"user": "bob", "orders": []}


def test_each_api_key_has_its_own_count(client: FlaskClient) -> None:
    for key in ("k-shop", "k-partner"):
        assert passes(client, "/prices", 40, headers={"X-API-Key": key}) == 30


def test_inventing_api_keys_buys_nothing(client: FlaskClient) -> None:
    answers = [client.get("/prices", headers={"X-API-Key": f"k-{n}"}) for n in range(40)]
    assert [answer.status_code for answer in answers] == [401] * 30 + [429] * 10


def test_a_user_is_one_from_every_address(client: FlaskClient) -> None:
    passed = sum(
        passes(
            client,
            "/orders",
            5,
            headers=bearer("t-ada"),
            environ_overrides={"REMOTE_ADDR": f"10.0.0.{n}"},
        )
        for n in range(6)
    )
    assert passed == 20


def test_the_role_sets_the_limit(client: FlaskClient) -> None:
    assert passes(client, "/reports", 10, headers=bearer("t-bob")) == 3
    assert passes(client, "/reports", 110, headers=bearer("t-ada")) == 100
    assert passes(client, "/reports", 10) == 1


def test_health_is_never_limited(client: FlaskClient) -> None:
    assert passes(client, "/health", 300) == 300
    assert "X-RateLimit-Limit" not in client.get("/health").headers
