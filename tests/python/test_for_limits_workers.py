"""An unmodified Flask-Limiter, and limits.aio, over a table that all workers share."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

FLASK = """
import os
import weir.for_limits
from flask import Flask, request
from flask_limiter import Limiter

app = Flask("shop")
limiter = Limiter(
    lambda: request.path, app=app, default_limits=["50 per hour"],
    storage_uri=os.environ["URI"], strategy=os.environ["STRATEGY"],
)

@app.get("/<name>")
def index(name):
    return "hello"
"""

ASGI = """
import os
import weir.for_limits
import limits, limits.aio.strategies as strategies
from limits.storage import storage_from_string

kinds = {
    "fixed-window": strategies.FixedWindowRateLimiter,
    "moving-window": strategies.MovingWindowRateLimiter,
    "sliding-window-counter": strategies.SlidingWindowCounterRateLimiter,
}
limiter = kinds[os.environ["STRATEGY"]](storage_from_string("async+" + os.environ["URI"]))
item = limits.parse("50 per hour")

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    status = 200 if await limiter.hit(item, scope["path"]) else 429
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""


def command(server: str, port: int) -> list[str]:
    if server == "gunicorn":
        return [
            "gunicorn",
            "-w",
            "4",
            "-b",
            f"127.0.0.1:{port}",
            "--log-level",
            "error",
            "program:app",
        ]
    return ["uvicorn", "--workers", "4", "--port", str(port), "--log-level", "error", "program:app"]


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def ready(port: int) -> bool:
    try:
        return get(port, "/ready") == 200
    except OSError:
        return False


def ask(port: int, path: str, times: int) -> Counter[int]:
    """The answers to so many requests of eight clients at once."""
    answers: list[int] = []

    def work() -> None:
        answers.extend(get(port, path) for _ in range(times // 8))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(answers)


@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window", "sliding-window-counter"])
@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_fifty_per_hour_admits_fifty(server: str, strategy: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FLASK if server == "gunicorn" else ASGI)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", *command(server, port)],
        cwd=tmp_path,
        env={**os.environ, "URI": "weir+auto://", "STRATEGY": strategy},
    )
    try:
        end = time.monotonic() + 60
        while not ready(port):
            assert process.poll() is None
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.1)
        for path in ("/a", "/b", "/c"):
            assert ask(port, path, 80) == {200: 50, 429: 30}
    finally:
        process.terminate()
        process.wait()
