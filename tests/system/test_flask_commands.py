"""flask limiter sees what the workers of a running server count."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

APP = """
from flask import Flask
from weir.flask import Limiter
from weir.flask.util import get_remote_address

app = Flask("served")
Limiter(get_remote_address, app=app, default_limits=["9 per day"])
app.add_url_rule("/", "hello", lambda: "hello")
"""

LIMITS = """
import sys, app
from weir.flask.commands import cli
print(app.app.test_cli_runner().invoke(cli, sys.argv[1:]).output)
"""


def limits(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", LIMITS, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_commands_see_the_automatic_storage_of_the_server_in_the_same_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "app.py").write_text(APP)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "app:app"],
        cwd=tmp_path,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 120
        for n in range(1, 4):
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as reply:
                        assert reply.status == 200
                    break
                except OSError:
                    if n > 1 or time.monotonic() > deadline:
                        pytest.fail((tmp_path / "log").read_text())
                    time.sleep(0.05)
        assert "Pass (6 out of 9 remaining)" in limits(tmp_path, "limits", "--key", "127.0.0.1")
        elsewhere = tmp_path / "elsewhere"
        assert "Pass (9 out of 9 remaining)" in limits(elsewhere, "limits", "--key", "127.0.0.1")
        assert "Cleared" in limits(tmp_path, "clear", "--key", "127.0.0.1", "-y")
        assert "Pass (9 out of 9 remaining)" in limits(tmp_path, "limits", "--key", "127.0.0.1")
    finally:
        server.terminate()
        server.wait(60)
        log.close()
