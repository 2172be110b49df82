"""Programs as in tutorials of Flask-Limiter and limits, run unchanged, with Weir in their place."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from servers import process
from servers.ports import free_port, listens

HERE = Path(__file__).parent / "tutorials"


class Reply(NamedTuple):
    status: int
    text: str
    headers: Any


Send = Callable[..., Reply]


@contextlib.contextmanager
def running(program: str, log: Path, *, by: str = "weir", **environment: str) -> Iterator[Send]:
    """The program, limited by Weir instead of the package that it imports, or by that package."""
    port = free_port()
    stand_in = ["-m", "weir.compat"] if by == "weir" else []

    def send(path: str, data: bytes | None = None, **headers: str) -> Reply:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            data=data,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as reply:
                return Reply(reply.status, reply.read().decode(), reply.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read().decode(), error.headers)

    with process.running(
        [sys.executable, *stand_in, str(HERE / program)],
        lambda: listens(("127.0.0.1", port)),
        log,
        env={"PORT": str(port), **environment},
    ):
        yield send


def statuses(send: Send, n: int, path: str, *arguments: Any, **options: Any) -> list[int]:
    return [send(path, *arguments, **options).status for _ in range(n)]


def test_quickstart(tmp_path: Path) -> None:
    with running("quickstart.py", tmp_path / "log") as send:
        assert statuses(send, 2, "/slow") == [200, 429]
        assert "1 per 1 day" in send("/slow").text
        assert statuses(send, 51, "/fast") == [200] * 50 + [429]
        assert statuses(send, 60, "/ping") == [200] * 60
        assert 429 in statuses(send, 5, "/medium")


def test_old_signature(tmp_path: Path) -> None:
    with running("old_signature.py", tmp_path / "log") as send:
        assert statuses(send, 3, "/") == [200] * 3
        refused = send("/")
        assert refused.status == 429
        assert json.loads(refused.text) == {"error": "ratelimit exceeded 3 per 1 minute"}
        assert refused.headers["X-RateLimit-Remaining"] == "0"
        assert 0 < int(refused.headers["Retry-After"]) <= 60
        assert [send(f"/search/{what}").status for what in ("users", "posts", "users")] == [
            200,
            200,
            429,
        ]


def test_api_keys(tmp_path: Path) -> None:
    with running("api_keys.py", tmp_path / "log") as send:
        assert send("/api/data").status == 401
        assert statuses(send, 3, "/api/data", X_API_KEY="free-key") == [200, 200, 429]
        assert json.loads(send("/api/data", X_API_KEY="paid-key").text) == {
            "plan": "4 per minute;100 per day",
            "left": 3,
        }
        assert statuses(send, 4, "/api/data", X_API_KEY="paid-key") == [200, 200, 200, 429]
        assert send("/api/report", b"", X_API_KEY="free-key").status == 200
        refused = send("/api/report", b"", X_API_KEY="free-key")
        assert (refused.status, json.loads(refused.text)) == (429, {"error": "one report a minute"})


def test_login(tmp_path: Path) -> None:
    with running("login.py", tmp_path / "log") as send:
        assert statuses(send, 5, "/login", b"password=secret") == [200] * 5
        assert statuses(send, 4, "/login", b"password=guess") == [401, 401, 429, 429]
        assert send("/breaches").text == ",".join(["LIMITER/127.0.0.1/login/2/1/minute"] * 2)
        assert send("/login", b"password=secret").status == 429
        assert "3 per 1 hour" in send("/login", b"password=secret").text


def test_without_flask_limiter(tmp_path: Path) -> None:
    with running("without_flask_limiter.py", tmp_path / "log") as send:
        assert statuses(send, 3, "/moving") == [200, 200, 429]
        assert send("/fixed").status == 200
        refused = send("/fixed")
        assert refused.status == 429
        body = json.loads(refused.text)
        assert 3500 <= body["retry_in"] <= 3600
        assert body["remaining"] == 0


class Step(NamedTuple):
    """Some requests, and the statuses of their responses."""

    path: str
    statuses: list[int]
    data: bytes | None = None
    headers: dict[str, str] = {}  # noqa: RUF012


#: The requests to each program, with Flask-Limiter and limits, and with Weir instead.
PROGRAMS: dict[str, list[Step]] = {
    "redis_storage.py": [
        Step("/reset", [200]),
        Step("/", [200, 200, 200, 429, 429]),
        Step("/reset", [200]),
        Step("/", [200]),
    ],
    "factory.py": [
        Step("/api/items", [200] * 4 + [429]),
        Step("/api/v1/items", [200, 200, 429]),
        Step("/health", [200] * 12),
        Step("/", [200] * 5 + [429]),
    ],
    "filters.py": [
        Step("/", [200] * 5, headers={"X-Internal": "true"}),
        Step("/", [200, 200, 429]),
        Step("/admins?admin=yes", [200] * 3),
        Step("/admins", [200, 429]),
        Step("/admins", [200], headers={"X-Internal": "true"}),
    ],
    "current_user.py": [
        Step("/", [200, 429]),
        Step("/", [200] * 4 + [429], headers={"Authorization": "Bearer token-1"}),
        Step("/", [200] * 2 + [429], headers={"Authorization": "Bearer token-2"}),
        Step("/expensive", [200] * 2 + [429], headers={"Authorization": "Bearer token-2"}),
        Step("/expensive", [200] * 3),
    ],
    "strategies.py": [Step("/parsing", [200]), Step("/hits", [200]), Step("/errors", [200])],
    "error_handlers.py": [
        Step("/json", [200, 429]),
        Step("/message", [200, 429]),
        Step("/callback", [200, 429]),
        Step("/caught", [200, 503]),
    ],
    "class_views.py": [
        Step("/items", [200, 200, 429]),
        Step("/items", [201, 201, 429], data=b"x"),
        Step("/report", [200] * 3),
        Step("/report", [200, 429], data=b"x"),
        Step("/r1", [200, 200]),
        Step("/r2", [200, 429]),
        Step("/hosts/a", [200]),
        Step("/hosts/b", [200, 429]),
    ],
    "own_headers.py": [
        Step("/", [200] * 3 + [429]),
        Step("/mine", [200, 200, 429]),
        Step("/nowhere", [404]),
    ],
    "behind_proxy.py": [
        Step("/", [200, 200, 429], headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.5"}),
        Step("/", [200], headers={"X-Forwarded-For": "203.0.113.6"}),
        Step("/cloudflare", [200], headers={"CF-Connecting-IP": "203.0.113.7"}),
        Step("/cloudflare", [200, 200, 429]),
    ],
    "decorators_order.py": [
        Step("/limited", [401] * 3),
        Step("/limited?key=a", [200, 200, 429]),
        Step("/limited?key=b", [200, 200, 429]),
        Step("/mail", [200, 429]),
        Step("/slow?missing=1", [404] * 3),
        Step("/slow", [200, 429]),
    ],
}


#: Times: they differ, because the programs run one after the other.
MOMENTS = ("X-RateLimit-Reset", "X-My-Reset", "Retry-After")


def replies(send: Send, program: str) -> list[tuple[str, int, str, dict[str, str]]]:
    replies_seen = []
    for step in PROGRAMS[program]:
        for _ in step.statuses:
            reply = send(step.path, step.data, **step.headers)
            headers = {
                name: "there" if name in MOMENTS else value
                for name, value in reply.headers.items()
                if name.startswith("X-") or name in MOMENTS
            }
            replies_seen.append((step.path, reply.status, reply.text, headers))
    return replies_seen


@pytest.mark.parametrize("program", PROGRAMS)
def test_weir_replies_like_the_library_that_the_program_imports(
    program: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment = {}
    if program == "redis_storage.py":
        environment["REDIS_URL"] = request.getfixturevalue("redis").uri
    with running(program, tmp_path / "weir", **environment) as send:
        ours = replies(send, program)
    with running(program, tmp_path / "theirs", by="flask-limiter", **environment) as send:
        theirs = replies(send, program)
    expected = [status for step in PROGRAMS[program] for status in step.statuses]
    assert [status for _, status, _, _ in ours] == expected
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine == reference
