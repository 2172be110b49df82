"""A reset in another process drops the cached denials of a worker, at its next request."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from servers.ports import wait_for
from servers.web import gunicorn
from weir.cli.main import cli

APPLICATION = """
import os
from flask import Flask
from weir.flask import Limiter

app = Flask(__name__)
limiter = Limiter(
    lambda: "192.0.2.7", app=app, storage_uri=os.environ["STORE"],
    key_prefix=os.environ["PREFIX"], on_store_error=os.environ["POLICY"],
)

@app.after_request
def say_who(response):
    response.set_data(str(os.getpid()))
    return response

@app.get("/limited")
@limiter.limit("1 per hour")
def index():
    return ""

@app.get("/reset")
@limiter.exempt
def reset():
    limiter.reset()
    return ""
"""


class Workers:
    """Two workers of one server."""

    def __init__(self, directory: Path, uri: str, policy: str) -> None:
        self.prefix = f"reset-{uuid.uuid4().hex[:12]}"
        (directory / "application.py").write_text(APPLICATION)
        env = {"STORE": uri, "PREFIX": self.prefix, "POLICY": policy}
        self.server = gunicorn(directory, "application:app", workers=2, env=env)

    def both_remember_a_denial(self) -> None:
        """The first request is admitted, and then each worker denies one."""
        assert self.server.send("/limited")[0] == 200
        denied_by = set()

        def send() -> bool:
            status, body = self.server.send("/limited")
            assert status == 429
            denied_by.add(body)
            return len(denied_by) == 2

        wait_for(send)


@pytest.fixture(params=["raise", "local"])
def workers(request: pytest.FixtureRequest, servers: Any, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(tmp_path, f"{servers.redis.uri}?socket_timeout=20", request.param)
    yield workers
    workers.server.stop()


def test_one_worker_resets_all(workers: Workers) -> None:
    for _ in range(10):
        workers.both_remember_a_denial()
        assert workers.server.send("/reset")[0] == 200


def test_a_command_resets_a_client(workers: Workers, servers: Any) -> None:
    for _ in range(5):
        workers.both_remember_a_denial()
        store = ["--store", servers.redis.uri, "--prefix", workers.prefix]
        done = CliRunner().invoke(cli, ["reset", "192.0.2.7", *store])
        assert done.exit_code == 0, done.output
