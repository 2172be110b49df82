"""``flask limiter`` shows the counts of the workers of a running server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from servers import web

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
    server = web.gunicorn(tmp_path, "app:app", workers=2)
    try:
        for _ in range(2):  # and one when it was ready
            assert server.send("/")[0] == 200
        assert "Pass (6 out of 9 remaining)" in limits(tmp_path, "limits", "--key", "127.0.0.1")
        elsewhere = tmp_path / "elsewhere"
        assert "Pass (9 out of 9 remaining)" in limits(elsewhere, "limits", "--key", "127.0.0.1")
        assert "Cleared" in limits(tmp_path, "clear", "--key", "127.0.0.1", "-y")
        assert "Pass (9 out of 9 remaining)" in limits(tmp_path, "limits", "--key", "127.0.0.1")
    finally:
        server.stop()
