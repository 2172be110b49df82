"""Programs for Flask-Limiter and limits under real servers, unchanged."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import process, web
from servers.ports import free_port, wait_for

APP = """
import os
from flask import Flask
from flask_limiter import Limiter

app = Flask("shop")
limiter = Limiter(lambda: "all", app=app, storage_uri="{scheme}://{name}")

@app.get("/")
@limiter.exempt
def who():
    return f"{{os.getppid()}} {{{shown}.__module__}}"

@app.get("/limited")
@limiter.limit("50 per hour")
def limited():
    return "hello"
"""


@pytest.fixture
def name() -> Iterator[str]:
    name = f"test-compat-{os.getpid()}"
    yield name
    for left in Path("/dev/shm").glob(f"weir.{name}*"):
        left.unlink()


@pytest.mark.parametrize(
    ("runner", "scheme", "shown", "module"),
    [
        ("weir.compat", "shm", "Limiter", "weir.flask.limiter"),
        ("weir.for_limits", "weir+shm", "type(limiter.storage)", "weir.for_limits"),
    ],
)
def test_gunicorn_keeps_weir_after_usr2(
    runner: str, scheme: str, shown: str, module: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(APP.format(scheme=scheme, shown=shown, name=name))
    port, pids = free_port(), tmp_path / "pid"
    command = [sys.executable, "-m", runner, "-m", "gunicorn", "-w", "2", "--no-control-socket"]
    command += ["-b", f"127.0.0.1:{port}", "--pid", str(pids), "shop:app"]

    def arbiter() -> int | None:
        """The parent of the worker that answers; the worker must use Weir."""
        if not web.serves(port):
            return None
        parent, _, where = web.fetch(port, "/").text.partition(" ")
        assert where == module
        return int(parent)

    log = tmp_path / "log"
    with process.running(command, arbiter, log, cwd=tmp_path) as first:
        assert web.hammer([port], "/limited", 40) == {200: 40}
        os.kill(first.pid, signal.SIGUSR2)
        successor = pids.with_name("pid.2")
        wait_for(successor.exists)
        second = int(wait_for(successor.read_text))
        try:
            wait_for(lambda: arbiter() == second)
            first.send_signal(signal.SIGTERM)
            first.wait(process.PATIENCE)
            assert wait_for(arbiter) == second
            assert web.hammer([port], "/limited", 20) == {200: 10, 429: 10}
        finally:
            os.kill(second, signal.SIGTERM)
            wait_for(lambda: not Path(f"/proc/{second}").exists())
