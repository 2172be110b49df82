"""The live page: who may see it, what it shows, and what it does."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, redirect, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import weir
from weir import Table, parse
from weir.flask import ConfigurationError, Limiter, dashboard

PATHS = ["/weir/", "/weir/page.css", "/weir/page.js", "/weir/state", "/weir/events"]


@pytest.fixture
def limiter(app: Flask, make: Callable[..., Limiter]) -> Limiter:
    limiter = make()

    @app.get("/limited")
    @limiter.limit("3 per minute")
    def limited() -> str:
        return "passed"

    return limiter


@pytest.fixture
def client(app: Flask, limiter: Limiter) -> FlaskClient:
    app.secret_key = "of a test"
    dashboard.mount(app, limiter, authorize=lambda: True)
    return app.test_client()


def token_of(client: FlaskClient) -> str:
    found = re.search(r'name="csrf-token" content="([^"]+)"', client.get("/weir/").text)
    assert found
    return found[1]


def act(client: FlaskClient, token: str | None = None, /, **body: Any) -> TestResponse:
    headers = {"X-CSRF-Token": token_of(client) if token is None else token}
    return client.post("/weir/rules", json=body, headers=headers)


def state_of(client: FlaskClient) -> dict[str, Any]:
    state: dict[str, Any] = client.get("/weir/state").get_json()
    return state


# ------------------------------------------------------------------------------------ who may see


@pytest.mark.parametrize("authorize", [None, True, "yes"])
def test_nothing_is_mounted_without_an_access_check(
    app: Flask, limiter: Limiter, authorize: Any
) -> None:
    with pytest.raises(ConfigurationError, match="authorize="):
        dashboard.mount(app, limiter, authorize=authorize)
    assert not any(str(rule).startswith("/weir") for rule in app.url_map.iter_rules())


@pytest.mark.parametrize("path", PATHS)
def test_who_is_not_authorized_gets_403_and_sees_nothing(
    app: Flask, limiter: Limiter, path: str
) -> None:
    dashboard.mount(app, limiter, authorize=lambda: False)
    client = app.test_client()
    client.get("/limited")
    response = client.get(path)
    assert response.status_code == 403
    assert "127.0.0.1" not in response.text
    assert "per 1 minute" not in response.text


def test_who_is_not_authorized_does_nothing(app: Flask, limiter: Limiter) -> None:
    dashboard.mount(app, limiter, authorize=lambda: False)
    client = app.test_client()
    assert client.post("/weir/rules", json={"action": "block", "client": "a"}).status_code == 403
    assert isinstance(limiter.storage, Table)
    assert limiter.storage.rules() == []


def test_a_response_is_sent_instead_of_the_page(app: Flask, limiter: Limiter) -> None:
    dashboard.mount(app, limiter, authorize=lambda: redirect("/login"))
    response = app.test_client().get("/weir/")
    assert response.status_code == 302
    assert response.headers["Location"] == "/login"


@pytest.mark.parametrize("answer", [False, None, "", (), 0])
def test_what_is_false_is_a_403(app: Flask, limiter: Limiter, answer: Any) -> None:
    dashboard.mount(app, limiter, authorize=lambda: answer)
    assert {app.test_client().get(path).status_code for path in PATHS} == {403}


def test_a_coroutine_function_is_awaited(app: Flask, limiter: Limiter) -> None:
    async def only_bob() -> bool:
        return request.headers.get("X-User") == "bob"

    dashboard.mount(app, limiter, authorize=only_bob)
    client = app.test_client()
    assert client.get("/weir/state").status_code == 403
    assert client.get("/weir/state", headers={"X-User": "bob"}).status_code == 200


def test_an_authorize_coroutine_is_refused(app: Flask, limiter: Limiter) -> None:
    async def deny() -> bool:
        return False

    dashboard.mount(app, limiter, authorize=lambda: deny())
    assert {app.test_client().get(path).status_code for path in PATHS} == {500}


def test_a_limiter_that_is_off_has_nothing_to_show(
    app: Flask, make: Callable[..., Limiter]
) -> None:
    dashboard.mount(app, make(enabled=False), authorize=lambda: True)
    assert {app.test_client().get(path).status_code for path in PATHS} == {503}


def test_the_access_check_can_read_the_request(app: Flask, limiter: Limiter) -> None:
    from flask import request

    dashboard.mount(app, limiter, authorize=lambda: request.headers.get("X-Admin") == "1")
    client = app.test_client()
    assert client.get("/weir/").status_code == 403
    assert client.get("/weir/", headers={"X-Admin": "1"}).status_code == 200


# ---------------------------------------------------------------------------------- the snapshot


def test_nothing_of_the_page_comes_from_elsewhere(client: FlaskClient) -> None:
    for path in PATHS[:3]:
        response = client.get(path)
        assert response.status_code == 200
        found = re.findall(
            r"(?:https?:)?//[a-z][\w.-]+", re.sub(r"(?m)^\s*//.*$", "", response.text)
        )
        assert [url for url in found if "www.w3.org" not in url] == []
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["Cache-Control"] == "no-store"


def test_the_state_counts_what_was_decided(client: FlaskClient) -> None:
    for _ in range(5):
        client.get("/limited")
    state = state_of(client)
    [row] = state["limits"]
    assert (row["limit"], row["allowed"], row["denied"]) == ("3 per 1 minute", 3, 2)
    [top] = state["denied"]
    assert (top["client"], top["denied"], top["error"]) == ("127.0.0.1", 2, 0)
    assert state["store"]["reachable"] is True
    assert state["store"]["evictions"] == 0


def test_a_new_frequent_client_is_listed_beside_earlier_ones(
    client: FlaskClient, limiter: Limiter, clock: Any
) -> None:
    stats_table = limiter._state.stats_table
    limit = parse("1 per hour")
    for i in range(60):
        for _ in range(40):
            stats_table.decide([limit], f"10.1.0.{i}")
    clock.forward(600)
    for _ in range(10):
        stats_table.decide([limit], "10.9.9.9")
    state = state_of(client)
    assert "10.9.9.9" in [row["client"] for row in state["denied"]]
    assert len(state["denied"]) <= 40


def test_the_page_itself_is_not_limited(app: Flask, make: Callable[..., Limiter]) -> None:
    limiter = make(default_limits=["1 per hour"], application_limits=["2 per hour"])
    dashboard.mount(app, limiter, authorize=lambda: True)
    client = app.test_client()
    assert [client.get("/weir/state").status_code for _ in range(5)] == [200] * 5


def test_a_worker_that_serves_one_at_a_time_is_not_held(client: FlaskClient) -> None:
    response = client.get("/weir/events", environ_overrides={"wsgi.multithread": False})
    assert response.mimetype == "text/event-stream"
    lines = [line for line in response.text.split("\n") if line]
    assert lines[0] == "retry: 1000"
    [data] = lines[1:]
    assert json.loads(data.removeprefix("data: "))["store"]["reachable"] is True


def test_a_worker_with_threads_keeps_sending(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "INTERVAL", 0.01)
    response = client.get(
        "/weir/events", environ_overrides={"wsgi.multithread": True}, buffered=False
    )
    seen = 0
    for chunk in response.response:
        seen += str(chunk).count("data:") if isinstance(chunk, str) else chunk.count(b"data:")
        if seen == 3:
            break
    response.close()
    assert seen == 3


@pytest.mark.parametrize("broken", ["counts", "top_clients", "rules"])
def test_damaged_statistics_are_reported(
    app: Flask, make: Callable[..., Limiter], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    limiter = make()
    dashboard.mount(app, limiter, authorize=lambda: True)

    class Damaged:
        def __getattr__(self, name: str) -> Any:
            if name == broken:
                raise weir.TableError("the statistics are damaged")
            return getattr(limiter._state.store.stats_table, name)

    monkeypatch.setattr(type(limiter._state), "stats_table", property(lambda state: Damaged()))
    answer = app.test_client().get("/weir/state")
    assert answer.status_code == 200
    assert "damaged" in answer.json["store"]["trouble"]


def test_open_pages_keep_one_thread_at_most(client: FlaskClient) -> None:
    """A worker with four threads and twenty open pages still has three for requests."""
    threaded = {"wsgi.multithread": True}
    first = client.get("/weir/events", environ_overrides=threaded, buffered=False)
    chunks = iter(first.response)
    next(chunks)
    next(chunks)  # it is open now, and goes on
    shortest = dashboard.INTERVAL
    for _ in range(20):
        began = time.monotonic()
        other = client.get("/weir/events", environ_overrides=threaded)
        assert other.text.count("data:") == 1, "it has ended"
        shortest = min(shortest, time.monotonic() - began)
    assert shortest < dashboard.INTERVAL
    first.close()
    assert dashboard._streams.open._value == 1, "the first has given its place back"


def test_a_key_is_shown_by_its_hash_by_default(app: Flask, make: Callable[..., Limiter]) -> None:
    limiter = make()
    dashboard.mount(app, limiter, authorize=lambda: True)

    @app.get("/limited")
    @limiter.limit("1 per minute", key_func=lambda: "secret-key")
    def limited() -> str:
        return "passed"

    client = app.test_client()
    client.get("/limited")
    client.get("/limited")
    text = client.get("/weir/state").text
    assert "secret-key" not in text
    assert re.search(r'"client": ?"#[0-9a-f]{16}"', text)


# ----------------------------------------------------------------------------------- what it does


def test_a_blocked_client_is_denied_until_it_is_taken_back(client: FlaskClient, clock: Any) -> None:
    assert act(client, action="block", client="127.0.0.1", seconds=60).status_code == 204
    [rule] = state_of(client)["rules"]
    assert (rule["client"], rule["kind"]) == ("127.0.0.1", "block")
    assert client.get("/limited").status_code == 429
    assert act(client, action="unlist", client="127.0.0.1").status_code == 204
    assert client.get("/limited").status_code == 200


def test_a_block_ends(client: FlaskClient, clock: Any) -> None:
    act(client, action="block", client="127.0.0.0/8", seconds=60)
    assert client.get("/limited").status_code == 429
    clock.forward(61)
    assert client.get("/limited").status_code == 200


def test_an_allowed_client_is_not_counted(client: FlaskClient) -> None:
    act(client, action="allow", client="127.0.0.1", seconds=None)
    assert [client.get("/limited").status_code for _ in range(10)] == [200] * 10


@pytest.mark.parametrize("token", ["", "guessed", "ä"])
def test_an_action_needs_the_token_of_the_page(client: FlaskClient, token: str) -> None:
    client.get("/weir/")
    refused = client.post(
        "/weir/rules",
        json={"action": "block", "client": "127.0.0.1"},
        headers=[("X-CSRF-Token", token.encode().decode("latin-1"))],
    )
    assert refused.status_code == 403
    assert state_of(client)["rules"] == []


def test_the_token_of_another_session_is_not_ours(app: Flask, client: FlaskClient) -> None:
    foreign = token_of(app.test_client())
    client.get("/weir/")
    assert act(client, foreign, action="block", client="127.0.0.1").status_code == 403


@pytest.mark.parametrize("reveal", [False, True])
def test_without_a_secret_key_the_token_cannot_be_computed(
    app: Flask, make: Callable[..., Limiter], reveal: bool
) -> None:
    assert app.secret_key is None
    dashboard.mount(app, make(reveal_keys=reveal), authorize=lambda: True)
    client = app.test_client()
    token = token_of(client)
    cookie = client.get_cookie("weir-dashboard", path="/weir")
    assert cookie is not None
    for key in (b"", f"weir dashboard\0{cookie.value}".encode()):
        digest = hmac.digest(key, f"weir dashboard {cookie.value}".encode(), "sha256")
        guessed = base64.urlsafe_b64encode(digest).decode()
        assert act(client, guessed, action="block", client="10.9.9.9").status_code == 403
    assert act(client, token, action="block", client="10.9.9.9").status_code == 204


def test_the_cookie_names_no_path(client: FlaskClient) -> None:
    # The browser sees /intern/weir/, the application /weir/. Without a path the cookie is of the
    # folder that the browser sees.
    assert "path=" not in client.get("/weir/").headers["Set-Cookie"].lower()


def test_another_site_cannot_act(client: FlaskClient) -> None:
    refused = client.post(
        "/weir/rules",
        json={"action": "block", "client": "127.0.0.1"},
        headers={"X-CSRF-Token": token_of(client), "Sec-Fetch-Site": "cross-site"},
    )
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"action": "block"}, 400),
        ({"action": "block", "client": " "}, 400),
        ({"action": "block", "client": 7}, 400),
        ({"action": "block", "client": "x" * 257}, 400),
        ({"action": "block", "client": "a", "seconds": 0}, 400),
        ({"action": "block", "client": "a", "seconds": True}, 400),
        ({"action": "block", "client": "a", "seconds": "60"}, 400),
        ({"action": "block", "client": "a", "seconds": 1e300}, 400),
        ({"action": "explode", "client": "a"}, 400),
        ({"action": "unlist", "client": "a"}, 404),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(
    client: FlaskClient, body: dict[str, Any], status: int
) -> None:
    response = act(client, **body)
    assert response.status_code == status
    assert response.get_json()["error"]
    assert state_of(client)["rules"] == []


def test_what_is_no_json_is_refused(client: FlaskClient) -> None:
    response = client.post("/weir/rules", data="block", headers={"X-CSRF-Token": token_of(client)})
    assert response.status_code == 400


@pytest.mark.parametrize(
    "body", ['{"action": "block", "client": "\\ud800"}', "[" * 100_000, '{"client": ' + "9" * 9999]
)
def test_what_no_client_would_send_is_refused(client: FlaskClient, body: str) -> None:
    headers = {"X-CSRF-Token": token_of(client), "Content-Type": "application/json"}
    response = client.post("/weir/rules", data=body, headers=headers)
    assert response.status_code == 400
    assert state_of(client)["rules"] == []


def test_an_action_is_logged_without_the_secret(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        act(client, action="block", client="10.0.0.0/8", seconds=60)
        act(client, action="block", client="secret-key", seconds=60)
        act(client, action="block", client="#secret-key\nforged", seconds=60)
        act(client, action="block", client="#0123456789abcdef", seconds=60)
    assert "block 10.0.0.0/8" in caplog.text
    assert "secret-key" not in caplog.text
    assert "forged" not in caplog.text
    assert "block #0123456789abcdef" in caplog.text


def test_two_pages_of_one_application(app: Flask, limiter: Limiter) -> None:
    dashboard.mount(app, limiter, authorize=lambda: True, url_prefix="/a", name="a")
    dashboard.mount(app, limiter, authorize=lambda: Response("no", 401), url_prefix="/b", name="b")
    client = app.test_client()
    assert client.get("/a/").status_code == 200
    assert client.get("/b/").status_code == 401
