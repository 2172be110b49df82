"""A stopped server under gunicorn: how long a request takes, and what it is told."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

APPLICATION = """
import os, weir
from weir.storage import Guarded

store = Guarded(os.environ["STORE"], os.environ["POLICY"])
limits = [weir.parse("1000000/minute"), weir.parse("10000000/hour"), weir.parse("100000000/day")]

def app(environ, start_response):
    try:
        allowed = store.decide(limits, environ["PATH_INFO"]).allowed
        status = "200 OK" if allowed else "429 Too Many Requests"
    except weir.StorageError:
        status = "503 Service Unavailable"
    start_response(status, [("Content-Length", "0")])
    return []
"""


class Gunicorn:
    """Two workers of twelve threads that serve the application."""

    def __init__(self, directory: Path, port: int, store: str, policy: str) -> None:
        (directory / "application.py").write_text(APPLICATION)
        self.port = port
        command = [sys.executable, "-m", "gunicorn", "-w", "2", "--threads", "12"]
        self.process = subprocess.Popen(
            [*command, "-b", f"127.0.0.1:{port}", "--log-level", "warning", "application:app"],
            cwd=directory,
            env={**os.environ, "STORE": store, "POLICY": policy},
        )

    def request(self) -> tuple[int, float]:
        """The status of a request, and the seconds it took."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        start = time.perf_counter()
        connection.request("GET", "/")
        status = connection.getresponse().status
        connection.close()
        return status, time.perf_counter() - start

    def ready(self) -> bool:
        try:
            return self.request()[0] == 200
        except OSError:
            return False

    def load(self, clients: int, seconds: float) -> list[tuple[int, float]]:
        """What so many clients are told that ask for so long."""
        answers: list[tuple[int, float]] = []
        end = time.monotonic() + seconds

        def work() -> None:
            while time.monotonic() < end:
                answers.append(self.request())

        threads = [threading.Thread(target=work) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers


@pytest.fixture
def gunicorn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    started: list[Gunicorn] = []

    def start(store: str, policy: str, port: int) -> Gunicorn:
        server = Gunicorn(tmp_path, port, store, policy)
        started.append(server)
        end = time.monotonic() + 60
        while not server.ready():
            assert time.monotonic() < end
            time.sleep(0.05)
        return server

    yield start
    for server in started:
        server.process.terminate()
        server.process.wait(60)


def percentile(answers: list[tuple[int, float]], share: float) -> float:
    waits = sorted(wait for _, wait in answers)
    return waits[min(len(waits) - 1, int(len(waits) * share))]


@pytest.mark.parametrize("policy", ["raise", "open", "local"])
def test_a_stopped_redis(servers: Any, gunicorn: Any, free_port: Any, policy: str) -> None:
    deadline = 1.0  # long beside what a busy machine may add
    server = gunicorn(f"{servers.redis.uri}?socket_timeout={deadline}", policy, free_port())
    with servers.redis.frozen():
        answers = server.load(12 if policy == "raise" else 3, 3.5)
    statuses = {status for status, _ in answers}
    slow = [wait for _, wait in answers if wait > 0.8 * deadline]
    if policy == "raise":
        assert statuses == {503}
        assert percentile(answers, 0.5) < 1.5 * deadline
        assert percentile(answers, 0.99) < 1.9 * deadline
    else:
        # Each worker asks when it is stopped, and a second later.
        assert statuses == {200}
        assert len(answers) > 60  # some ten, if each of them had waited
        assert len(slow) <= 12
        assert percentile(answers, 0.5) < 0.2 * deadline
    end = time.monotonic() + 60
    while server.request()[0] != 200:
        assert time.monotonic() < end
    with servers.redis.client() as client:
        before = client.info("stats")["total_commands_processed"]
        while client.info("stats")["total_commands_processed"] < before + 20:
            assert server.request()[0] == 200
            assert time.monotonic() < end
