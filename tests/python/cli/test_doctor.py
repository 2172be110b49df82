"""weir doctor: each thing that is wrong is a finding, and says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from weir import _foreign
from weir.cli import doctor as module
from weir.cli.main import cli

APP = """
from flask import Flask
from weir.flask import Limiter
from weir.flask.util import get_remote_address
app = Flask(__name__)
limiter = Limiter(get_remote_address, app=app, {options})
"""


def look(*arguments: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    done = CliRunner().invoke(cli, ["doctor", "--json", *arguments], standalone_mode=False)
    assert done.exception is None, done.output
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(done.output)["findings"]:
        found.setdefault(finding["name"], []).append(finding)
    return done.return_value, found


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> str:
    name = f"doctored_{request.node.name.partition('[')[0]}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{name}.py").write_text(APP.format(options=request.param))
    return f"{name}:app"


def test_a_sound_machine_has_nothing_to_change() -> None:
    code, found = look("--store", "memory://")
    assert found["python"][0]["status"] == "ok"
    assert "libc" in found["python"][0]["text"] or "musl" in found["python"][0]["text"]
    assert found["store"][0]["status"] == "ok"
    if code:
        assert any(one["status"] != "ok" and one["fix"] for of in found.values() for one in of)


def test_a_store_that_does_not_answer_is_an_error_without_its_password() -> None:
    code, found = look("--store", "redis://:hush@127.0.0.1:1")
    assert code == 1
    assert found["store"][0]["status"] == "error"
    assert "hush" not in json.dumps(found)


def test_a_store_that_cannot_be_read_is_an_error() -> None:
    code, found = look("--store", "nothing://")
    assert code == 1
    assert found["store"][0]["status"] == "error"


@pytest.mark.parametrize(
    "application", ['default_limits=["10/minute", "100/minute"]'], indirect=True
)
def test_a_limit_that_never_binds_is_a_warning(application: str) -> None:
    code, found = look("--app", application)
    assert code == 1
    assert "default limits" in found["limits"][0]["text"]
    assert found["limits"][0]["status"] == "warning"


@pytest.mark.parametrize("application", ['storage_uri="memory://"'], indirect=True)
def test_private_memory_of_an_application_is_a_warning(application: str) -> None:
    code, found = look("--app", application)
    assert code == 1
    assert [one["status"] for one in found["its store"]] == ["ok", "warning"]
    assert "trusted_proxies" in found["proxies"][0]["fix"]


def test_an_application_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    code, found = look("--app", "no_such_module_at_all:app")
    assert code == 1
    assert "cannot be loaded" in found["application"][0]["text"]


def test_a_foreign_weir_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_foreign, "foreign_distribution", lambda: tmp_path / "weir-1.dist-info")
    code, found = look()
    assert code == 1
    assert "pip uninstall weir" in found["conflict"][0]["fix"]


def test_a_look_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_stars(_: object) -> Any:
        raise KeyError("cloud")
        yield

    monkeypatch.setattr(module, "_CHECKS", (check_stars, module.check_python))
    code, found = look()
    assert code == 1
    assert found["stars"][0]["status"] == "error"
    assert found["python"][0]["status"] == "ok"
