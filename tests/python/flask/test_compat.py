"""Weir under the names of Flask-Limiter and limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import flask_limiter, limits, limits.storage, limits.strategies, limits.errors, limits.util
import flask_limiter.commands
from flask import Flask
from flask_limiter import ExemptionScope, HEADERS, Limiter, RateLimitExceeded, RequestLimit
from flask_limiter.constants import ConfigVars
from flask_limiter.errors import RateLimitExceeded as Same
from flask_limiter.util import get_remote_address, get_qualified_name
from limits import RateLimitItemPerMinute, parse, parse_many
from limits.limits import RateLimitItem
from flask_limiter.contrib.util import get_remote_address_cloudflare
from limits.storage import MemcachedStorage, MemoryStorage, RedisStorage, storage_from_string
from limits.storage.memory import MemoryStorage as Memory
from limits.storage.redis_sentinel import RedisSentinelStorage

assert Memory is MemoryStorage
from flask_limiter.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

assert Same is RateLimitExceeded
assert issubclass(limits.errors.ConfigurationError, Exception)
assert "Limiter" in dir(flask_limiter)
limiter = MovingWindowRateLimiter(MemoryStorage())
assert [limiter.hit(RateLimitItemPerMinute(1), "key") for _ in range(2)] == [True, False]
app = Flask(__name__)
limiter = Limiter(get_remote_address, app=app, default_limits=["1/hour"], storage_uri="memory://")
app.add_url_rule("/", "hello", lambda: "hello")
statuses = [app.test_client().get("/").status_code for _ in "12"]
print(__name__, sys.argv[1:], Limiter.__module__, statuses)
from limits import aio
from flask_limiter.extension import Limiter as earlier
assert earlier is flask_limiter.Limiter
import limits.aio.storage, limits.typing
assert flask_limiter.__version__.startswith("4.1.1+weir")
assert limits.__version__.startswith("5.8.0+weir")
assert str(limits.parse("10/second;5/minute")) == "10 per 1 second"
names = {}
exec("from limits import *; from flask_limiter import *", names)
assert names["parse"] is limits.parse and names["aio"] is limits.aio
assert names["Limiter"] is flask_limiter.Limiter and "Table" not in names
try:
    import limits.nothing
except ModuleNotFoundError as error:
    print(error)
"""


def run(*arguments: str, cwd: Path) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


EXPECTED = "__main__ ['an', 'argument'] weir.flask.limiter [200, 429]\n"
EXPECTED += "limits.nothing has no counterpart in weir\n"


def test_a_script(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "program.py").write_text("import beside\n" + PROGRAM)
    (tmp_path / "sub" / "beside.py").write_text("")
    assert run("-m", "weir.compat", "program.py", "an", "argument", cwd=tmp_path) == EXPECTED
    assert run("-m", "weir.compat", "sub/program.py", "an", "argument", cwd=tmp_path) == EXPECTED


def test_a_module(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    assert run("-m", "weir.compat", "-m", "program", "an", "argument", cwd=tmp_path) == EXPECTED


def test_from_within(tmp_path: Path) -> None:
    install = "import weir\nweir.install_as_flask_limiter()\nweir.install_as_flask_limiter()\n"
    (tmp_path / "program.py").write_text(install + PROGRAM)
    assert run("program.py", "an", "argument", cwd=tmp_path) == EXPECTED


SLOWAPI = """
import asyncio
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

limiter = Limiter(lambda request: "me", headers_enabled=True, strategy="moving-window")

@limiter.limit("2/minute; 9/hour")
async def index(request):
    return PlainTextResponse("hello")

async def refuse(request, error):
    return PlainTextResponse(error.detail, 429)

app = Starlette(routes=[Route("/", index)], exception_handlers={RateLimitExceeded: refuse})
app.state.limiter = limiter

async def send():
    messages = []
    async def receive():
        return {"type": "http.request", "body": b""}
    async def send(message):
        messages.append(message)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await app(scope | {"client": ("10.0.0.1", 1)}, receive, send)
    headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return messages[0]["status"], headers.get("x-ratelimit-remaining")

print([asyncio.run(send()) for _ in range(3)], type(limiter._storage).__module__.split(".")[0])
"""


def test_slowapi_is_a_user_of_limits(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SLOWAPI)
    expected = "[(200, '1'), (200, '0'), (429, None)] %s\n"
    assert run("program.py", cwd=tmp_path) == expected % "limits"
    assert run("-m", "weir.compat", "program.py", cwd=tmp_path) == expected % "weir"


def test_too_late(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import limits, weir\n"
        "try:\n"
        "    weir.install_as_flask_limiter()\n"
        "except weir.ConfigurationError as error:\n"
        "    print(error)\n"
    )
    assert "limits is imported already" in run("program.py", cwd=tmp_path)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-m"]])
def test_usage(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "weir.compat", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "usage: python -m weir.compat" in done.stdout
    assert done.returncode == (0 if arguments == ["--help"] else 2)
