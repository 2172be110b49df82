"""A storage that is away."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

import weir
import weir._log
from weir.flask import Limiter


class Broken:
    """A storage that can be switched off."""

    def __init__(self, table: weir.Table) -> None:
        self.table = table
        self.broken = False
        self.error: Exception = ConnectionError("no route to storage")
        self.calls = 0

    def decide(self, *arguments: Any) -> weir.Decision:
        self.calls += 1
        if self.broken:
            raise self.error
        return self.table.decide(*arguments)

    def clear(self, *arguments: Any) -> None:
        self.table.clear(*arguments)

    def reset(self) -> None:
        raise NotImplementedError

    def check(self) -> bool:
        return not self.broken


@pytest.fixture
def broken(make: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a limiter over a storage that is away."""
    made: list[Broken] = []

    def open_broken(uri: str, **options: Any) -> Broken:
        made.append(Broken(weir.Table()))
        return made[-1]

    monkeypatch.setitem(weir.storage.SCHEMES, "broken", open_broken)

    def broken(**options: Any) -> tuple[Limiter, Broken]:
        limiter: Limiter = make(storage_uri="broken://", **options)
        made[-1].broken = True
        return limiter, made[-1]

    return broken


@pytest.fixture
def monotonic(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the policies is ours, too."""
    from weir.stores import failover

    monkeypatch.setattr(failover, "monotonic", clock)


@pytest.fixture
def hello(app: Flask) -> None:
    app.add_url_rule("/", "hello", lambda: "hello")


def test_raise_is_the_default(app: Flask, broken: Any, hello: None, get: Any) -> None:
    limiter, _ = broken(default_limits=["1/minute"])
    assert get("/").status_code == 500
    app.testing = True
    with pytest.raises(ConnectionError):
        get("/")
    assert limiter.counters == {"store_error": 2}


def test_swallow_errors(broken: Any, hello: None, statuses: Any, caplog: Any) -> None:
    limiter, storage = broken(
        default_limits=["1/minute"], swallow_errors=True, headers_enabled=True
    )
    assert statuses(3) == [200] * 3
    assert caplog.records[0].levelname == "ERROR"
    assert "ConnectionError" in caplog.text
    storage.broken = False
    assert statuses(2) == [200, 429]
    assert limiter.counters["swallowed"] == 3


def test_an_outage_writes_one_line_in_ten_seconds(
    broken: Any, hello: None, statuses: Any, caplog: Any
) -> None:
    limiter, _ = broken(default_limits=["1/minute"], swallow_errors=True)
    now = 0.0
    limiter._state.swallowed_line.clock = lambda: now
    assert statuses(5) == [200] * 5
    now = 10.0
    assert statuses(2) == [200] * 2
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "Failed to rate limit. Swallowing error",
        "Failed to rate limit. Swallowing error (4 more such requests since the last such line)",
    ]
    assert caplog.text.count("ConnectionError: no route to storage") == 2


def test_programs_written_for_flask_limiter_get_a_line_for_each_request(
    broken: Any, hello: None, statuses: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weir._log, "_shows_keys", True)
    broken(default_limits=["1/minute"], swallow_errors=True)
    assert statuses(3) == [200] * 3
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["Failed to rate limit. Swallowing error"] * 3


def test_swallow_errors_of_a_key_function(
    make: Any, app: Flask, statuses: Any, caplog: Any
) -> None:
    limiter = make(swallow_errors=True)
    app.add_url_rule("/", "x", limiter.limit("1/minute", key_func=lambda: str(1 / 0))(lambda: "x"))
    assert statuses(2) == [200, 200]
    assert "ZeroDivisionError" in caplog.text


def test_open(broken: Any, hello: None, statuses: Any, caplog: Any) -> None:
    _, storage = broken(default_limits=["1/minute"], on_store_error="open", headers_enabled=True)
    assert statuses(3) == [200] * 3
    assert storage.calls == 1
    assert "every request passes" in caplog.text


def test_closed(broken: Any, hello: None, get: Any, clock: Any, monotonic: None) -> None:
    _, storage = broken(default_limits=["1/minute"], on_store_error="closed", headers_enabled=True)
    reply = get("/")
    assert reply.status_code == 429
    assert reply.headers["Retry-After"] == "1"
    storage.broken = False
    clock.forward(1)
    assert [get("/").status_code for _ in range(2)] == [200, 429]


def test_local(broken: Any, hello: None, statuses: Any, clock: Any, monotonic: None) -> None:
    _, storage = broken(default_limits=["2/minute"], on_store_error="local")
    assert statuses(3) == [200, 200, 429]
    assert storage.calls == 1
    storage.broken = False
    clock.forward(1)
    assert statuses(3) == [200, 200, 429]


def test_a_reset_includes_the_fallback(
    broken: Any, hello: None, statuses: Any, monotonic: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter, storage = broken(default_limits=["2/minute"], on_store_error="local")
    monkeypatch.setattr(storage, "reset", storage.table.reset)
    assert statuses(3) == [200, 200, 429]
    limiter.reset()
    assert statuses(3) == [200, 200, 429]


def test_the_usual_limits_are_counted_in_memory_until_the_storage_is_back(
    broken: Any, hello: None, statuses: Any, clock: Any, caplog: Any
) -> None:
    caplog.set_level("INFO", "flask-limiter")
    limiter, storage = broken(default_limits=["2/minute"], in_memory_fallback_enabled=True)
    storage.broken = False
    assert statuses(1) == [200]
    storage.broken = True
    assert statuses(3) == [200, 200, 429]
    assert storage.calls == 2
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert limiter.limiter.storage is not limiter.storage
    storage.broken = False
    clock.forward(2)
    assert statuses(2) == [200, 429]  # its counts are still there
    assert "Rate limit storage recovered" in caplog.text
    assert limiter.limiter.storage is limiter.storage


def test_a_dead_storage_is_probed_after_1_2_4_seconds_up_to_32(
    app: Flask, broken: Any, hello: None, get: Any, clock: Any, monkeypatch: Any
) -> None:
    _, storage = broken(default_limits=["99/second"], in_memory_fallback_enabled=True)
    start = clock.now
    probes: list[float] = []

    def check() -> bool:
        probes.append(clock.now - start)
        return False

    monkeypatch.setattr(storage, "check", check)
    for _ in range(600):
        assert get("/").status_code == 200
        clock.forward(0.25)
    assert probes == [1, 3, 7, 15, 31, 63, 95, 127]
    assert storage.calls == 1


def test_in_memory_fallback_limits_take_the_place_of_all_others(
    app: Flask, broken: Any, get: Any, statuses: Any, clock: Any
) -> None:
    limiter, storage = broken(
        default_limits=["9/minute"], in_memory_fallback=["1/minute"], headers_enabled=True
    )
    app.add_url_rule("/", "hello", lambda: "hello")
    app.add_url_rule("/own", "own", limiter.limit("8/minute")(lambda: "own"))
    assert statuses(2) == [200, 429]
    assert statuses(2, "/own") == [200, 429]
    assert get("/own").headers["X-RateLimit-Limit"] == "1"
    storage.broken = False
    clock.forward(1)
    assert get("/own").headers["X-RateLimit-Limit"] == "8"


def test_a_deduction_that_cannot_be_counted(app: Flask, broken: Any, get: Any, caplog: Any) -> None:
    limiter, storage = broken(swallow_errors=True)
    storage.broken = False

    @app.route("/")
    @limiter.limit("1/minute", deduct_when=lambda response: True)
    def view() -> str:
        storage.broken = True
        return "view"

    assert get("/").status_code == 200
    assert "Failed to deduct rate limit" in caplog.text


@pytest.mark.parametrize("reserve", [False, True])
def test_a_storage_that_fails_before_a_deduction_does_not_spoil_the_response(
    app: Flask, broken: Any, statuses: Any, reserve: bool
) -> None:
    limiter, storage = broken(in_memory_fallback=["2/minute"])
    storage.broken = False

    @app.route("/")
    @limiter.limit("9/minute", deduct_when=lambda response: not reserve, reserve=reserve)
    def view() -> str:
        storage.broken = True
        return "view"

    assert statuses(4) == [200, 200, 200, 429]


@pytest.mark.parametrize("error", [RuntimeError("dead"), LookupError("dead"), OSError("dead")])
def test_in_memory_fallback_begins_whatever_the_storage_raises(
    broken: Any, hello: None, statuses: Any, clock: Any, caplog: Any, error: Exception
) -> None:
    caplog.set_level("INFO", "flask-limiter")
    limiter, storage = broken(default_limits=["5/minute"], in_memory_fallback=["1/minute"])
    assert limiter._in_memory_fallback_enabled
    assert len(limiter._in_memory_fallback) == 1
    storage.error = error
    assert statuses(2) == [200, 429]
    first = caplog.records[0]
    text = "Rate limit storage unreachable - falling back to in-memory storage: dead"
    assert (first.levelname, first.getMessage()) == ("WARNING", text)
    storage.broken = False
    clock.forward(2)
    assert statuses(6) == [200] * 5 + [429]
    assert "Rate limit storage recovered" in caplog.text


@pytest.mark.parametrize("error", [ValueError("a key like that"), weir.KeyRefusedError("that key")])
def test_in_memory_fallback_does_not_begin_because_of_one_request(
    broken: Any, hello: None, get: Any, error: Exception
) -> None:
    limiter, storage = broken(default_limits=["5/minute"], in_memory_fallback_enabled=True)
    storage.error = error
    assert get("/").status_code in (429, 500)
    assert limiter.limiter.storage is storage


@pytest.mark.parametrize("error", [RuntimeError("dead"), OSError("dead")])
def test_a_deduction_that_cannot_be_counted_raises(
    app: Flask, broken: Any, get: Any, error: Exception
) -> None:
    limiter, storage = broken()
    storage.broken = False
    storage.error = error

    @app.route("/")
    @limiter.limit("1/minute", deduct_when=lambda response: True)
    def view() -> str:
        storage.broken = True
        return "view"

    assert get("/").status_code == 500


def test_a_storage_that_cannot_be_reset(broken: Any, hello: None, caplog: Any) -> None:
    limiter, _ = broken()
    limiter.reset()
    assert "does not support being reset" in caplog.text
    assert caplog.records[0].levelname == "WARNING"


def test_a_storage_that_cannot_be_opened(make: Any) -> None:
    with pytest.raises(weir.WeirError, match="nonsense"):
        make(storage_uri="nonsense://")
