"""The live page over Redis: it shows all hosts, and its rules apply on all of them."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from weir.flask import Limiter, dashboard
from weir.storage import storage_from_string
from weir.stores.shared_stats import SharedStats

PROGRAM_LIMIT = "3 per minute"


@pytest.fixture
def client(servers: Any) -> FlaskClient:
    app = Flask("paged")
    limiter = Limiter(lambda: request.headers["X-Client"], app=app, storage_uri=servers.redis.uri)

    @app.get("/limited")
    @limiter.limit(PROGRAM_LIMIT)
    def limited() -> str:
        return "passed"

    dashboard.mount(app, limiter, authorize=lambda: True)
    return app.test_client()


def send(client: FlaskClient, who: str) -> int:
    return client.get("/limited", headers={"X-Client": who}).status_code


def state_of(client: FlaskClient) -> dict[str, Any]:
    state: dict[str, Any] = client.get("/weir/state").get_json()
    return state


def act(client: FlaskClient, /, **asked: Any) -> int:
    found = re.search(r'"csrf-token" content="([^"]+)"', client.get("/weir/").text)
    assert found
    headers = {"X-CSRF-Token": found[1]}
    return client.post("/weir/rules", json=asked, headers=headers).status_code


def test_counts_of_other_hosts_are_added(client: FlaskClient, servers: Any) -> None:
    assert [send(client, "10.0.0.1") for _ in range(5)] == [200, 200, 200, 429, 429]
    shared = SharedStats(storage_from_string(servers.redis.uri))
    now = time.time()
    shared.publish(
        "another",
        {
            "name": "another.example",
            "counts": [["3 per 1 minute", 10, 20, 1, 0]],
            "top_clients": {
                "denied": [
                    ["10.0.0.1", "3 per 1 minute", 3, 7, 0, now],
                    ["10.0.0.2", "3 per 1 minute", 3, 13, 2, now],
                ],
                "allowed": [],
            },
        },
    )
    state = state_of(client)
    assert [(row["limit"], row["allowed"], row["denied"]) for row in state["limits"]] == [
        ("3 per 1 minute", 13, 22)
    ]
    assert [(row["client"], row["denied"]) for row in state["denied"]] == [
        ("10.0.0.2", 13),
        ("10.0.0.1", 9),
    ]
    assert [host["host"] for host in state["store"]["hosts"]] == ["another.example"]


def test_a_block_reaches_all_hosts(client: FlaskClient, servers: Any) -> None:
    assert act(client, action="block", client="10.0.0.0/8", seconds=60) == 204
    assert send(client, "10.0.0.1") == 429
    assert send(client, "192.0.2.1") == 200
    shared = SharedStats(storage_from_string(servers.redis.uri))
    assert [(rule.client, rule.kind) for rule in shared.rules()] == [("10.0.0.0/8", "block")]
    assert act(client, action="unlist", client="10.0.0.0/8", seconds=None) == 204
    assert shared.rules() == []
    assert send(client, "10.0.0.1") == 200
