"""The live page with a custom store that its scheme opens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from weir.flask import Limiter, dashboard

EXAMPLES = Path(__file__).parents[3] / "examples/stores"


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a file that the example's class counts in; WEIR_STORES names the module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("WEIR_STORES", "sqlite")
    return f"sqlite://{tmp_path}/limits.db"


@pytest.fixture
def client(uri: str) -> FlaskClient:
    app = Flask("paged")
    limiter = Limiter(
        lambda: request.headers["X-Client"],
        app=app,
        storage_uri=uri,
        storage_options={"socket_timeout": 20.0},
    )

    @app.get("/limited")
    @limiter.limit("3 per minute")
    def limited() -> str:
        return "passed"

    dashboard.mount(app, limiter, authorize=lambda: True)
    return app.test_client()


def send(client: FlaskClient, who: str) -> int:
    return client.get("/limited", headers={"X-Client": who}).status_code


def test_the_page_shows_what_a_custom_store_counts(client: FlaskClient) -> None:
    assert [send(client, "203.0.113.9") for _ in range(5)] == [200, 200, 200, 429, 429]
    state: Any = client.get("/weir/state").get_json()
    rows = [(row["limit"], row["allowed"], row["denied"]) for row in state["limits"]]
    assert rows == [("3 per 1 minute", 3, 2)]
    assert [row["client"] for row in state["denied"]] == ["203.0.113.9"]
    token = re.search(r'"csrf-token" content="([^"]+)"', client.get("/weir/").text)
    assert token
    blocked = client.post(
        "/weir/rules",
        json={"action": "block", "client": "192.0.2.1", "seconds": 60},
        headers={"X-CSRF-Token": token[1]},
    )
    assert blocked.status_code == 204
    assert send(client, "192.0.2.1") == 429
