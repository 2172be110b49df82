"""Names and idioms of public programs and tests that were written for Flask-Limiter."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from flask import Flask, abort

from weir import compat
from weir.flask import Limiter
from weir.flask.errors import UsageError


@pytest.fixture
def app() -> Flask:
    return Flask("shop")


@pytest.fixture
def limiter(app: Flask) -> Limiter:
    limiter = Limiter(lambda: "me", app=app, storage_uri="memory://")
    app.add_url_rule("/", "index", limiter.limit("1/minute")(lambda: "hello"))
    return limiter


def statuses(app: Flask, count: int, path: str = "/") -> list[int]:
    return [app.test_client().get(path).status_code for _ in range(count)]


def test_clear_by_the_key_of_a_counter(app: Flask, limiter: Limiter) -> None:
    assert statuses(app, 2) == [200, 429]
    storage: Any = limiter.limiter.storage
    storage.clear("LIMITER/me/index/1/1/minute")
    assert statuses(app, 2) == [200, 429]
    private: Any = limiter
    assert private._storage is limiter.storage
    assert private._limiter.storage is limiter.storage
    assert storage.get("LIMITER/me/index/1/1/minute") == 1


def test_a_patch_of_enabled_is_over_when_it_is_over(app: Flask, limiter: Limiter) -> None:
    with mock.patch.object(limiter, "enabled", False):
        assert statuses(app, 3) == [200, 200, 200]
    assert limiter.enabled
    assert statuses(app, 2) == [200, 429]
    limiter.enabled = False
    with mock.patch.object(limiter, "enabled", True):
        assert statuses(app, 1) == [429]
    assert not limiter.enabled


@pytest.mark.parametrize("name", ["_check_request_limit", "_Limiter__evaluate_limits"])
def test_a_method_that_would_never_be_called_is_refused_where_it_is_defined(name: str) -> None:
    with pytest.raises(UsageError, match=f"Mine.{name}.* would never be called"):
        type("Mine", (Limiter,), {name: lambda self: None})
    type("Mine", (Limiter,), {"of_my_own": lambda self: None})


def test_a_limiter_without_an_application_is_an_error_in_the_log(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = Limiter(lambda: "me", storage_uri="memory://")
    app.add_url_rule("/", "index", limiter.limit("1/minute")(lambda: "hello"))
    assert statuses(app, 3) == [200, 200, 200]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "call limiter.init_app(app)" in errors[0]
    app.testing = True
    strict = Limiter(lambda: "me", strict=True)
    with app.test_request_context("/"), pytest.raises(UsageError, match="not in force"):
        strict.limit("1/minute")(lambda: "hello")()
    off = Limiter(lambda: "me", enabled=False, strict=True)
    with app.test_request_context("/"):
        assert off.limit("1/minute")(lambda: "hello")() == "hello"


def test_unknown_urls_are_limited_by_a_catch_all_route(app: Flask, limiter: Limiter) -> None:
    @app.route("/<path:unknown>", methods=["GET", "POST"])
    @limiter.limit("2/minute")
    def not_found(unknown: str) -> str:
        abort(404)

    assert statuses(app, 3, "/admin.php") == [404, 404, 429]
    assert statuses(app, 1, "/other.php") == [429]
    assert statuses(app, 1) == [200]


def test_a_limit_on_a_404_handler_is_an_error_in_the_log(
    app: Flask, limiter: Limiter, caplog: pytest.LogCaptureFixture
) -> None:
    @app.errorhandler(404)
    @limiter.limit("2/minute")
    def not_found(error: Exception) -> tuple[str, int]:
        return "there is no such page", 404

    assert statuses(app, 3, "/admin.php") == [404, 404, 404]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "limit a catch-all route" in errors[0]


PROGRAM = """
import weir
weir.install_as_flask_limiter()
from flask import Flask, request
from flask_limiter import Limiter
app = Flask("shop")
limiter = Limiter(lambda: "me", app=app, storage_uri="memory://")

@app.get("/")
@limiter.limit(lambda: "5/minute" if request.args.get("a") else "1/minute")
def index():
    return "hello"
"""


@pytest.mark.parametrize("command", [["limiter", "config"], ["limiter", "limits"], ["routes"]])
def test_the_flask_command_with_flask_limiter_installed_beside(
    command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "program", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_executes_itself_again_keeps_weir(monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda file, args, env: executed.append(args))
    monkeypatch.setattr(sys, "argv", ["/bin/gunicorn", "-w", "4", "program:app"])
    compat._keep_running("weir.compat", ["-m", "gunicorn", "-w", "4", "program:app"])
    execute: Any = os.execvpe
    execute(sys.executable, [sys.executable, *sys.argv], {})
    execute("/bin/other", ["/bin/other", "x"], {})
    assert executed == [
        [sys.executable, "-m", "weir.compat", "-m", "gunicorn", "-w", "4", "program:app"],
        ["/bin/other", "x"],
    ]
