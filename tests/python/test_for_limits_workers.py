"""Unmodified Flask-Limiter, slowapi and limits.aio over a table that all workers share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from servers import process
from servers.ports import free_port
from servers.web import hammer, serves

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

SLOWAPI = """
import os
import weir.for_limits
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

limiter = Limiter(
    lambda request: request.url.path,
    storage_uri=os.environ["URI"], strategy=os.environ["STRATEGY"],
)

@limiter.limit("50/hour")
async def index(request):
    return PlainTextResponse("hello")

async def refuse(request, error):
    return PlainTextResponse(error.detail, 429)

app = Starlette(
    routes=[Route("/{name}", index)], exception_handlers={RateLimitExceeded: refuse}
)
app.state.limiter = limiter
"""

PROGRAMS = {"gunicorn": FLASK, "uvicorn": ASGI, "slowapi": SLOWAPI}


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


@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window", "sliding-window-counter"])
@pytest.mark.parametrize("server", PROGRAMS)
def test_fifty_per_hour_admits_fifty(server: str, strategy: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAMS[server])
    port = free_port()
    with process.running(
        [sys.executable, "-m", *command(server, port)],
        lambda: serves(port, "/ready"),
        tmp_path / "log",
        cwd=tmp_path,
        env={"URI": "weir+auto://", "STRATEGY": strategy},
    ):
        for path in ("/a", "/b", "/c"):
            assert hammer([port], path, 80) == {200: 50, 429: 30}
