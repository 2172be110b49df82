"""How the Flask extension reports breaches: the audit log, and the signal."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request

from weir import Decision, Table
from weir.audit import Breach
from weir.flask import Limiter, RequestLimit
from weir.flask.signals import rate_limit_breached
from weir.storage import Storage


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """What was logged so far."""
    return lambda: [json.loads(r.getMessage()) for r in caplog.records if r.name == "weir.audit"]


Make = Callable[..., Limiter]
Events = Callable[[], list[dict[str, Any]]]
Statuses = Callable[..., list[int]]


def hello() -> str:
    return "hello"


def test_a_breach_is_an_event_with_all_it_takes_to_understand_it(
    app: Flask, make: Make, clock: Any, statuses: Statuses, events: Events
) -> None:
    limiter = make()
    app.route("/search")(limiter.limit("5/minute", cost=2)(hello))
    assert statuses(2, "/search") == [200, 200]
    assert events() == [], "who is within the limit leaves no trace"
    assert statuses(50, "/search") == [429] * 50
    assert events() == [
        {
            "event": "breach",
            "time": "2023-11-14T22:13:20.250000Z",
            "limit": "5 per 1 minute",
            "scope": "hello",
            "endpoint": "hello",
            "key": "10.0.0.1",
            "cost": 2,
            "remaining": 1,
            "retry_after": 60.0,
            "shadow": False,
            "store": "memory://",
            "rule": "",
        }
    ]
    clock.forward(61)
    statuses(3, "/search")
    assert [(e["event"], e.get("count")) for e in events()[1:]] == [
        ("summary", 50),
        ("breach", None),
    ]


def test_secrets_are_hidden_by_default(
    app: Flask, make: Make, get: Any, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    def api_key() -> str:
        return request.headers["X-API-Key"]

    for path, limiter in (("/hidden", make()), ("/clear", make(reveal_keys=True))):
        app.route(path, endpoint=path)(limiter.limit("1/minute", key_func=api_key)(hello_at(path)))
    for path in ("/hidden", "/clear"):
        for _ in range(3):
            get(path, X_API_Key="k-secret")
    hidden, clear = events()
    assert hidden["key"].startswith("#")
    assert "secret" not in json.dumps(hidden)
    assert clear["key"] == "k-secret"


def hello_at(path: str) -> Callable[[], str]:
    def view() -> str:
        return path

    return view


def test_the_setting_reveals_keys(app: Flask, make: Make) -> None:
    app.config["RATELIMIT_REVEAL_KEYS"] = True
    assert make()._state.audit.name_of("k-secret") == "k-secret"
    assert make(reveal_keys=False)._state.audit.name_of("k-secret").startswith("#")


@pytest.mark.parametrize("whole", [False, True], ids=["limit", "limiter"])
def test_shadow_denials_are_events(
    app: Flask, make: Make, statuses: Statuses, events: Events, whole: bool
) -> None:
    limiter = make(shadow=whole)
    app.route("/")(limiter.limit("1/minute", shadow=not whole)(hello))
    assert statuses(5) == [200] * 5
    (event,) = events()
    assert event["shadow"] is True
    assert event["limit"] == "1 per 1 minute"


def test_each_limit_that_denies_is_an_event_without_first_breach(
    app: Flask, make: Make, statuses: Statuses, events: Events
) -> None:
    limiter = make(fail_on_first_breach=False)
    app.route("/")(limiter.limit("1/minute; 1/hour")(hello))
    statuses(4)
    assert [e["limit"] for e in events()] == ["1 per 1 minute", "1 per 1 hour"]


def test_a_meta_limit_that_refuses_is_an_event(
    app: Flask, make: Make, statuses: Statuses, events: Events
) -> None:
    limiter = make(meta_limits=["2/hour"])
    app.route("/")(limiter.limit("1/minute")(hello))
    assert statuses(9) == [200] + [429] * 8
    assert [(e["limit"], e["scope"]) for e in events()] == [
        ("1 per 1 minute", "hello"),
        ("2 per 1 hour", "meta"),
    ]


def test_a_signal_is_sent_for_every_breach(app: Flask, make: Make, statuses: Statuses) -> None:
    limiter = make()
    app.route("/")(limiter.limit("1/minute", key_func=lambda: "k-secret")(hello))
    received: list[tuple[Breach, RequestLimit]] = []

    def receive(sender: Flask, breach: Breach, limit: RequestLimit, limiter: Limiter) -> None:
        assert sender is app
        assert request.path == "/"
        assert limiter.current_limit is not None
        received.append((breach, limit))

    with rate_limit_breached.connected_to(receive, sender=app):
        assert statuses(4) == [200, 429, 429, 429]
    assert len(received) == 3
    breach, limit = received[0]
    assert breach.limit == "1 per 1 minute"
    assert breach.endpoint == "hello"
    assert breach.retry_after == 60.0
    assert str(breach.key).startswith("#")
    assert limit.request_args == ["k-secret", "hello"], "code may have the key"
    assert limit.breached


def test_a_receiver_that_fails_harms_no_request(
    app: Flask, make: Make, statuses: Statuses, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = make()
    app.route("/")(limiter.limit("1/minute")(hello))

    def fail(sender: object, **extra: object) -> None:
        raise RuntimeError("no such metric")

    with rate_limit_breached.connected_to(fail):
        assert statuses(2) == [200, 429]
    assert "no such metric" in caplog.text


def test_the_log_is_silenced_as_any_other(app: Flask, make: Make, statuses: Statuses) -> None:
    limiter = make()
    app.route("/")(limiter.limit("1/minute")(hello))
    logging.getLogger("weir.audit").setLevel(logging.ERROR)
    try:
        assert statuses(2) == [200, 429]
    finally:
        logging.getLogger("weir.audit").setLevel(logging.INFO)
    assert not limiter._state.audit._windows


def test_a_store_is_named_without_its_password(app: Flask, make: Make) -> None:
    assert make(storage_uri="auto://")._state.store_name() == "auto://"
    limiter = make(storage_uri="redis://me:hush@127.0.0.1:1/0")
    assert limiter._state.store_name() == "redis://127.0.0.1:1/0"
    failover = make(storage_uri="redis://me:hush@127.0.0.1:1/0", on_store_error="open")
    assert failover._state.store_name() == "redis://127.0.0.1:1/0"
    failover.storage.away = True  # type: ignore[attr-defined]
    assert failover._state.store_name() == "open"


@pytest.mark.parametrize("remote", [False, True], ids=["table", "store"])
def test_an_event_names_the_rule_that_denied(
    app: Flask, make: Make, statuses: Statuses, events: Events, remote: bool
) -> None:
    class Elsewhere(Storage):
        STORAGE_SCHEME = ("elsewhere",)
        table = Table()

        def decide(self, *arguments: Any) -> Decision:
            return self.table.decide(*arguments)

        def clear(self, limits: Any, keys: Any, /) -> None:
            pass

    limiter = make(storage_uri="elsewhere://" if remote else "memory://", key_prefix="shop")
    app.route("/")(limiter.limit("5/minute")(hello))
    assert statuses(2) == [200, 200]
    stats_table = limiter._state.stats_table
    stats_table.block("10.0.0.0/24", time.time() + 3600)
    stats_table.block("2001:db8::/32")
    stats_table.allow("10.0.0.9")
    assert statuses(2) == [429, 429]
    assert statuses(9, address="10.0.0.9") == [200] * 9
    assert statuses(2, address="2001:db8::1") == [429, 429]
    first, second = events()
    assert (first["key"], first["rule"]) == ("10.0.0.1", "block")
    assert first["retry_after"] == 3600.0
    assert (second["key"], second["rule"]) == ("2001:db8::/64", "block")
    assert second["retry_after"] is None, "it never passes"
    assert stats_table.unlist("10.0.0.0/24")
    assert statuses(4) == [200, 200, 200, 429], "what was blocked was charged nothing"
