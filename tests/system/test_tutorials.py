"""What tutorials of Flask-Limiter and limits show, run as it stands, with Weir in their place."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

HERE = Path(__file__).parent / "tutorials"


class Reply(NamedTuple):
    status: int
    text: str
    headers: Any


Ask = Callable[..., Reply]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(program: str, log: Path) -> Iterator[Ask]:
    port = free_port()
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "weir.compat", str(HERE / program)],
            env={**os.environ, "PORT": str(port)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def ask(path: str, data: bytes | None = None, **headers: str) -> Reply:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            data=data,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return Reply(reply.status, reply.read().decode(), reply.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read().decode(), error.headers)

    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{program} does not answer:\n{log.read_text()}")
                time.sleep(0.02)
        yield ask
    finally:
        server.terminate()
        server.wait(60)


def statuses(ask: Ask, n: int, path: str, *arguments: Any, **options: Any) -> list[int]:
    return [ask(path, *arguments, **options).status for _ in range(n)]


def test_quickstart(tmp_path: Path) -> None:
    with running("quickstart.py", tmp_path / "log") as ask:
        assert statuses(ask, 2, "/slow") == [200, 429]
        assert "1 per 1 day" in ask("/slow").text
        assert statuses(ask, 51, "/fast") == [200] * 50 + [429]
        assert statuses(ask, 60, "/ping") == [200] * 60
        assert 429 in statuses(ask, 5, "/medium")


def test_old_signature(tmp_path: Path) -> None:
    with running("old_signature.py", tmp_path / "log") as ask:
        assert statuses(ask, 3, "/") == [200] * 3
        refused = ask("/")
        assert refused.status == 429
        assert json.loads(refused.text) == {"error": "ratelimit exceeded 3 per 1 minute"}
        assert refused.headers["X-RateLimit-Remaining"] == "0"
        assert 0 < int(refused.headers["Retry-After"]) <= 60
        assert [ask(f"/search/{what}").status for what in ("users", "posts", "users")] == [
            200,
            200,
            429,
        ]


def test_api_keys(tmp_path: Path) -> None:
    with running("api_keys.py", tmp_path / "log") as ask:
        assert ask("/api/data").status == 401
        assert statuses(ask, 3, "/api/data", X_API_KEY="free-key") == [200, 200, 429]
        assert json.loads(ask("/api/data", X_API_KEY="paid-key").text) == {
            "plan": "4 per minute;100 per day",
            "left": 3,
        }
        assert statuses(ask, 4, "/api/data", X_API_KEY="paid-key") == [200, 200, 200, 429]
        assert ask("/api/report", b"", X_API_KEY="free-key").status == 200
        refused = ask("/api/report", b"", X_API_KEY="free-key")
        assert (refused.status, json.loads(refused.text)) == (429, {"error": "one report a minute"})


def test_login(tmp_path: Path) -> None:
    with running("login.py", tmp_path / "log") as ask:
        assert statuses(ask, 5, "/login", b"password=secret") == [200] * 5
        assert statuses(ask, 4, "/login", b"password=guess") == [401, 401, 429, 429]
        assert ask("/breaches").text == ",".join(["LIMITER/127.0.0.1/login/2/1/minute"] * 2)
        assert ask("/login", b"password=secret").status == 429
        assert "3 per 1 hour" in ask("/login", b"password=secret").text


def test_without_flask_limiter(tmp_path: Path) -> None:
    with running("without_flask_limiter.py", tmp_path / "log") as ask:
        assert statuses(ask, 3, "/moving") == [200, 200, 429]
        assert ask("/fixed").status == 200
        refused = ask("/fixed")
        assert refused.status == 429
        told = json.loads(refused.text)
        assert 3500 <= told["retry_in"] <= 3600
        assert told["remaining"] == 0
