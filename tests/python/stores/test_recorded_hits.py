"""Processes record each admitted hit while one server fails: see servers/recorded_hits.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.recorded_hits import SECONDS, Run, four_workers, third

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path, server_kind: Any) -> Iterator[Any]:
    """One that writes every hit down before it answers."""
    server = server_kind(
        tmp_path / "server", ["--appendonly", "yes", "--appendfsync", "always"]
    ).start()
    yield server
    server.stop()


def test_clients_are_cut_off_and_scripts_forgotten(run: Run, server: Any) -> None:
    four_workers(run, server.uri)
    end = time.monotonic() + SECONDS * 0.8
    with server.client() as client:
        while time.monotonic() < end:
            client.execute_command("CLIENT KILL TYPE normal SKIPME yes")
            client.script_flush()
            time.sleep(0.02)
    run.finish()
    run.check()


def test_a_server_is_frozen_and_woken(run: Run, server: Any) -> None:
    four_workers(run, server.uri)
    third()
    with server.frozen():
        third()
    run.finish()
    run.check()
    assert run.errors


@pytest.mark.parametrize("policy", ["raise", "closed", "local"])
def test_a_server_is_killed_and_started_again(
    run: Run, server: Any, policy: str, tmp_path: Path
) -> None:
    """Under ``local``, this host admits each key up to its limit once more."""
    four_workers(run, server.uri, policy=policy, fallback=f"file://{tmp_path}/fallback")
    third()
    server.kill()
    time.sleep(SECONDS / 10)
    server.start()
    run.finish()
    run.check(2 if policy == "local" else 1)
