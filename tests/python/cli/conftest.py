"""Runs commands, in the process of the test and in a separate one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click.testing
import pytest

import weir as core
from table_requests import HOURLY, LIMIT
from weir.cli.main import cli

Weir = Callable[..., click.testing.Result]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No store from outside, and times in UTC."""
    import time

    monkeypatch.delenv("WEIR_STORE", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def weir() -> Weir:
    """``weir("check", "10/minute")``: the result, with .exit_code, .stdout and .stderr."""

    def run(*arguments: str, **options: Any) -> click.testing.Result:
        runner = click.testing.CliRunner()
        return runner.invoke(cli, list(arguments), prog_name="weir", **options)

    return run


@pytest.fixture
def weir_json(weir: Weir) -> Callable[..., Any]:
    """The same with --json, and what was printed, read."""

    def run(*arguments: str, code: int = 0, **options: Any) -> Any:
        result = weir(*arguments, "--json", **options)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    return run


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``python -m weir …``"""

    def run(
        *arguments: str, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "weir", *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **(env or {})},
            **options,
        )

    return run


@pytest.fixture
def store() -> Iterator[str]:
    """A table's URI; nothing of it stays."""
    name = f"test-cli-{uuid.uuid4()}"
    yield f"shm://{name}"
    Path(f"/dev/shm/weir.{name}").unlink(missing_ok=True)


@pytest.fixture
def table(store: str) -> core.Table:
    """The table, with two limits of one endpoint in use."""
    table = core.Table(store, namespace=0)
    for limit in (LIMIT, HOURLY):
        table.register(limit, "", "/search")
    return table
