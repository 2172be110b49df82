"""flask limiter config, limits, clear."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from flask import Blueprint, Flask, request
from flask.views import MethodView

import weir
from weir.flask import Limiter
from weir.flask.commands import cli
from weir.flask.util import get_remote_address


@pytest.fixture
def limiter(app: Flask, make: Any) -> Limiter:
    limiter: Limiter = make(
        default_limits=["50 per hour"],
        application_limits=["99 per day"],
        meta_limits=["5 per day"],
        headers_enabled=True,
        key_prefix="p",
    )
    app.add_url_rule("/a", "a", lambda: "a")
    app.add_url_rule(
        "/b",
        "b",
        limiter.limit("2 per minute", per_method=True)(lambda: "b"),
        methods=["GET", "POST"],
    )
    app.add_url_rule("/free", "free", limiter.exempt(lambda: "free"))
    app.add_url_rule(
        "/dynamic",
        "dynamic",
        limiter.limit(lambda: "7 per minute", deduct_when=lambda response: True)(lambda: "d"),
    )
    blueprint = Blueprint("bp", "bp", url_prefix="/bp")
    blueprint.add_url_rule("/", "x", lambda: "x")
    limiter.limit("7 per second")(blueprint)

    class Methods(MethodView):
        @limiter.limit("1 per second burst 5")
        def post(self) -> str:
            return "posted"

    blueprint.add_url_rule("/m", view_func=Methods.as_view("m"))
    app.register_blueprint(blueprint)
    return limiter


@pytest.fixture
def run(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "120")
    runner = app.test_cli_runner()

    def run(*arguments: str, **options: Any) -> str:
        result = runner.invoke(cli, arguments, **options)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return run


def test_config(limiter: Limiter, run: Any) -> None:
    output = run("config")
    for text in (
        "RATELIMIT_ENABLED",
        "weir.flask.util.get_remote_address()",
        "'p'",
        "fixed-window",
        "memory://",
        "OK",
        "99 per 1 day",
        "50 per 1 hour",
        "5 per 1 day",
        "X-RateLimit-Reset",
        "delta-seconds",
        "RATELIMIT_FAIL_ON_FIRST_BREACH",
    ):
        assert text in output, text


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({}, "raise"),
        ({"on_store_error": "open"}, "open"),
        ({"in_memory_fallback_enabled": True}, "local"),
        ({"in_memory_fallback": ["1/minute"]}, "local"),
        ({"on_store_error": "raise", "in_memory_fallback_enabled": True}, "raise"),
    ],
)
def test_config_shows_the_policy_that_is_in_effect(
    run: Any, make: Any, options: dict[str, Any], policy: str
) -> None:
    make(**options)
    rows = [line.replace("│", " ").split() for line in run("config").splitlines()]
    assert ["RATELIMIT_ON_STORE_ERROR", policy] in rows


def test_config_shows_a_value_for_each_setting(limiter: Limiter, run: Any) -> None:
    for line in run("config").splitlines():
        words = line.replace("│", " ").split()
        settings = [word for word in words if word.startswith("RATELIMIT_")]
        assert not settings or words[-1] != settings[0], line


def test_config_shows_no_password(app: Flask, run: Any, make: Any) -> None:
    limiter = make()
    app.extensions["weir"][limiter].storage_uri = "redis://user:secret@host/0"
    output = run("config")
    assert "secret" not in output
    assert "redis://user:***@host/0" in output


def test_limits(limiter: Limiter, run: Any) -> None:
    lines = [line.strip("│├└─ ") for line in run("limits").splitlines()]
    assert lines == [
        "Meta limits",
        "5 per 1 day",
        "Application limits",
        "99 per 1 day",
        "tested",
        "a: /a",
        "50 per 1 hour",
        "b: /b",
        "2 per 1 minute (GET)",
        "2 per 1 minute (HEAD)",
        "2 per 1 minute (OPTIONS)",
        "2 per 1 minute (POST)",
        "dynamic: /dynamic",
        f"7 per 1 minute {{deduct_when: {__name__}.limiter.<locals>.<lambda>()}}",
        "free: /free",
        "Exempt",
        "bp",
        "bp.x: /bp/",
        "7 per 1 second",
        "bp.m: /bp/m",
        "1 per 1 second burst 5 (token-bucket)",
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--endpoint", "a"], ["tested", "a: /a", "50 per 1 hour"]),
        (["--path", "/a"], ["tested", "a: /a", "50 per 1 hour"]),
        (["--path", "/b", "--method", "POST"], ["tested", "b: /b", "2 per 1 minute (POST)"]),
    ],
)
def test_limits_of_one_route(
    limiter: Limiter, run: Any, arguments: list[str], expected: list[str]
) -> None:
    assert [line.strip("│├└─ ") for line in run("limits", *arguments).splitlines()] == expected


@pytest.mark.parametrize(
    "arguments",
    [["--endpoint", "nope"], ["--path", "/nope"], ["--path", "/a", "--method", "PUT"]],
)
def test_a_route_that_is_not_there(limiter: Limiter, run: Any, arguments: list[str]) -> None:
    assert run("limits", *arguments).startswith("Error: ")


def test_limits_of_a_key_and_clear(limiter: Limiter, run: Any, get: Any) -> None:
    assert [get("/b").status_code for _ in range(3)] == [200, 200, 429]
    output = run("limits", "--key", "10.0.0.1", "--endpoint", "b", "--method", "GET")
    assert "Fail (0 out of 2 remaining)" in output
    output = run("limits", "--key", "10.0.0.1")
    assert "Pass (96 out of 99 remaining)" in output
    assert "Pass (4 out of 5 remaining)" in output
    assert "Cleared" not in run("clear", "--key", "10.0.0.1", input="n\n")
    assert get("/b").status_code == 429
    assert "Cleared" in run("clear", "--key", "10.0.0.1", "--path", "/b", "-y")
    assert get("/b").status_code == 200
    assert "Cleared" in run("clear", "--key", "10.0.0.1", input="y\n")
    assert "Pass (99 out of 99 remaining)" in run("limits", "--key", "10.0.0.1")


def test_watch(limiter: Limiter, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert "99 per 1 day" in run("limits", "--watch")


def test_an_application_without_a_limiter(
    app: Flask, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has no limiter" in run("config")
    monkeypatch.setattr("weir.flask.commands.replaces_flask_limiter", lambda: True)
    assert "No Flask-Limiter extension installed on <Flask 'tested'>" in run("limits")


def test_limits_that_read_the_request(app: Flask, make: Any, run: Any) -> None:
    def by_header() -> str:
        return "9/minute" if request.headers.get("X-Trusted") else "3/minute"

    make(default_limits=[by_header], default_limits_cost=lambda: len(request.path))
    app.add_url_rule("/", "hello", lambda: "hello")
    assert "3 per 1 minute" in run("config")
    assert "3 per 1 minute" in run("limits")


def test_an_unavailable_storage_is_reported(limiter: Limiter, run: Any) -> None:
    with mock.patch.object(limiter.storage, "check", return_value=False):
        assert "99 per 1 day: Storage not available" in run("limits", "--key", "10.0.0.1")
        assert "Error" in run("config")
    assert "Pass (99 out of 99 remaining)" in run("limits", "--key", "10.0.0.1")


def test_what_is_left_comes_from_the_strategy(limiter: Limiter, run: Any) -> None:
    with (
        mock.patch.object(limiter.limiter, "test", return_value=False),
        mock.patch.object(limiter.limiter, "get_window_stats", return_value=(0, 0)),
    ):
        assert "Fail (0 out of 99 remaining)" in run("limits", "--key", "10.0.0.1")


def test_flask_finds_the_commands_and_they_see_what_other_processes_count(tmp_path: Path) -> None:
    name = f"shm://test-commands-{tmp_path.name}"
    (tmp_path / "app.py").write_text(
        "from flask import Flask\n"
        "from weir.flask import Limiter\n"
        "from weir.flask.util import get_remote_address\n"
        "app = Flask('other')\n"
        f"options = dict(default_limits=['9 per day'], storage_uri={name!r})\n"
        "Limiter(get_remote_address, app=app, **options)\n"
        "app.add_url_rule('/', 'hello', lambda: 'hello')\n"
    )
    app = Flask("other")
    Limiter(get_remote_address, app=app, default_limits=["9 per day"], storage_uri=name)
    app.add_url_rule("/", "hello", lambda: "hello")
    try:
        app.test_client().get("/")
        # By module: the entry point is Flask-Limiter's if that is installed, too.
        code = (
            "import app; from weir.flask.commands import cli;"
            "print(app.app.test_cli_runner().invoke(cli, ['limits', '--key', '127.0.0.1']).output)"
        )
        output = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        assert "Pass (8 out of 9 remaining)" in output
    finally:
        weir.unlink(name)


ORDERS = """
import sys
from importlib.metadata import entry_points
import click
import weir.flask.commands

found = [entry for entry in entry_points(group="flask.commands") if entry.name != "shell"]
group = click.Group()
for entry in sorted(found, key=lambda entry: entry.value, reverse=sys.argv[1] == "reverse"):
    group.add_command(entry.load(), entry.name)
print([entry.value for entry in found if entry.value.startswith("flask_limiter")])
print(group.commands["limiter"] is group.commands["weir"] is weir.flask.commands.cli)
"""


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_flask_limiter_is_our_command_whichever_is_found_first(order: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", ORDERS, order], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == ["['flask_limiter.commands:cli']", "True"]


@pytest.mark.parametrize("command", ["limiter", "weir"])
def test_an_application_of_flask_limiter_is_handed_over(tmp_path: Path, command: str) -> None:
    script = tmp_path / "theirs.py"
    script.write_text(
        """
from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

app = Flask("theirs")
Limiter(get_remote_address, app=app, default_limits=["7 per day"], storage_uri="memory://")
app.add_url_rule("/", "hello", lambda: "hello")
"""
    )

    def flask(*arguments: str) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "flask", "--app", str(script), command, *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout

    assert "7 per 1 day" in flask("limits")
    assert "FixedWindowRateLimiter" in flask("config")
    assert "Cleared" in flask("clear", "--key", "1.2.3.4", "-y")


def test_without_rich(tmp_path: Path) -> None:
    script = "import sys; sys.modules['rich.console'] = None; from flask.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", script, "limiter", "config"], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr.strip() == "Error: these commands need rich: pip install rich"
