"""An application answers the same on every kind of store, whatever its limits are made of.

Random applications, each with the same requests on all stores. Limits are per hour or day, so that
the clocks of servers do not matter. The seed is in the name of a failing test.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from typing import Any

import flask
import pytest

import weir
import weir.storage
from weir.flask import Limiter, MetaLimit
from weir.flask.util import get_remote_address

APPS = 40


class Plain(weir.storage.Storage):
    """A store with decide() only."""

    STORAGE_SCHEME = ("agree", "agree-peeks")

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(uri)
        self.table = weir.Table("memory://?keys=4096")
        self.PEEKS = uri.startswith("agree-peeks")

    def decide(self, *arguments: Any) -> weir.Decision:
        return self.table.decide(*arguments)

    def clear(self, *arguments: Any) -> None:
        self.table.clear(*arguments)


def header(name: str, default: str = "") -> str:
    return flask.request.headers.get(name, default)


FUNCTIONS: dict[str, list[Any]] = {
    "key_func": [lambda: header("X-Key", "anonymous"), lambda: header("X-Key") or None],
    "exempt_when": [lambda: header("X-Exempt") == "1"],
    "deduct_when": [
        lambda response: response.status_code == 200,
        lambda response: response.status_code >= 400,
    ],
    "cost": [lambda: int(header("X-Cost", "1")), 2],
    "scope": [lambda endpoint: header("X-Scope", "part")],
}


def limit_of(pick: random.Random, amount: int) -> tuple[Any, dict[str, Any]]:
    options: dict[str, Any] = {
        name: pick.choice(functions)
        for name, functions in FUNCTIONS.items()
        if pick.random() < 0.25
    }
    text = f"{amount} per {pick.choice(['hour', 'day', '2 hour'])}"
    strategy = pick.choice([None, None, "token-bucket", "sliding-window-counter", "moving-window"])
    if strategy is not None:
        options["strategy"] = strategy
    if "deduct_when" in options and pick.random() < 0.5:
        options["reserve"] = True
    if pick.random() < 0.15:
        options["shadow"] = True
    if pick.random() < 0.2:
        options["meta_limits"] = [MetaLimit(f"{pick.randint(1, 3)} per day")]
    if pick.random() < 0.2:
        options["per_method"] = True
    return (lambda: text) if pick.random() < 0.15 else text, options


def make_app(seed: int, uri: str, **options: Any) -> flask.Flask:
    pick = random.Random(seed)
    app = flask.Flask("agree")
    app.config["PROPAGATE_EXCEPTIONS"] = False
    amounts = iter(pick.sample(range(1, 40), 30))
    for n in range(pick.choice([1, 1, 1, 2])):
        limiter = Limiter(
            get_remote_address,
            app=app,
            storage_uri=uri,
            storage_options=options,
            key_prefix=f"{uuid.uuid4()}-{n}",
            default_limits=[f"{next(amounts)} per day"] if pick.random() < 0.5 else [],
            default_limits_deduct_when=FUNCTIONS["deduct_when"][0] if pick.random() < 0.3 else None,
            application_limits=[f"{next(amounts) + 5} per day"] if pick.random() < 0.5 else [],
            meta_limits=[f"{pick.randint(1, 4)} per 3 hour"] if pick.random() < 0.3 else [],
            fail_on_first_breach=pick.random() < 0.75,
            swallow_errors=pick.random() < 0.5,
            shadow=pick.random() < 0.1,
            headers_enabled=True,
        )
        if n == 0:
            first = limiter
    for n in range(2):

        def view(n: int = n) -> tuple[str, int]:
            return f"view {n}", 401 if header("X-Wrong") else 200

        function: Any = view
        function.__name__ = function.__qualname__ = f"view{n}"
        for _ in range(pick.randint(0, 3)):
            text, options = limit_of(pick, next(amounts) % 7 + 1)
            function = first.limit(text, **options)(function)
        app.add_url_rule(f"/{n}", f"view{n}", function, methods=["GET", "POST"])
    return app


def requests_of(seed: int) -> Iterator[dict[str, Any]]:
    pick = random.Random(-seed)
    for _ in range(24):
        headers = {
            name: pick.choice(values)
            for name, values in {
                "X-Key": ["a", "b", ""],
                "X-Exempt": ["1", "0"],
                "X-Cost": ["1", "2", "9"],
                "X-Scope": ["x", "y/z"],
                "X-Wrong": ["1"],
            }.items()
            if pick.random() < 0.3
        }
        yield {
            "path": f"/{pick.randint(0, 1)}",
            "method": pick.choice(["GET", "GET", "POST"]),
            "headers": headers,
            "environ_base": {"REMOTE_ADDR": pick.choice(["10.0.0.1", "10.0.0.2", "2001:db8::7"])},
        }


def answers(app: flask.Flask, seed: int) -> list[tuple[Any, ...]]:
    client = app.test_client()
    replies = [client.open(**request) for request in requests_of(seed)]
    return [
        (r.status_code, r.headers.getlist("X-RateLimit-Limit"),
         r.headers.getlist("X-RateLimit-Remaining"), r.get_data(as_text=True))
        for r in replies
    ]  # fmt: skip


def statuses(answered: list[tuple[Any, ...]]) -> list[int]:
    return [status for status, *_ in answered]


@pytest.mark.parametrize("seed", range(APPS))
def test_every_store_answers_the_same(seed: int, servers: Any) -> None:
    table = f"shm://agree-{uuid.uuid4()}"
    redis = f"redis://127.0.0.1:{servers.redis.port}/5"
    expected = answers(make_app(seed, "memory://?keys=4096"), seed)
    assert 500 not in statuses(expected)
    try:
        for uri in (f"{table}?keys=4096", "agree://", "agree-peeks://"):
            assert answers(make_app(seed, uri), seed) == expected, f"seed {seed} on {uri}"
    finally:
        weir.unlink(table)
    exact = answers(make_app(seed, redis, remember_denials=0), seed)
    assert exact == expected, f"seed {seed} on Redis"
    # The remaining amount of a cached denial may be a moment old.
    cached = answers(make_app(seed, redis), seed)
    assert statuses(cached) == statuses(expected), f"seed {seed} on Redis, with denials"


def test_a_request_that_only_a_meta_limit_without_force_watches(servers: Any) -> None:
    for uri in (
        "memory://?keys=4096",
        "agree://",
        f"redis://127.0.0.1:{servers.redis.port}/5",
    ):
        app = flask.Flask("agree")
        Limiter(lambda: "key", app=app, storage_uri=uri, meta_limits=["1/minute"], shadow=True)
        app.add_url_rule("/", "hello", lambda: "hello")
        assert [app.test_client().get("/").status_code for _ in range(3)] == [200] * 3, uri
