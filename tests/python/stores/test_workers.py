"""A stopped server under gunicorn: how long a request takes, and what it receives."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.ports import wait_for
from servers.web import gunicorn

APPLICATION = """
import os, weir
from weir.storage import FailoverStorage

store = FailoverStorage(os.environ["STORE"], os.environ["POLICY"])
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


class Load:
    """Two workers of twelve threads that serve the application, and clients that send requests."""

    def __init__(self, directory: Path, store: str, policy: str) -> None:
        (directory / "application.py").write_text(APPLICATION)
        self.server = gunicorn(
            directory,
            "application:app",
            *("--threads", "12", "--log-level", "warning"),
            workers=2,
            env={"STORE": store, "POLICY": policy},
        )

    def request(self) -> tuple[int, float]:
        """The status of a request, and the seconds it took."""
        start = time.perf_counter()
        status, _ = self.server.send("/")
        return status, time.perf_counter() - start

    def of(self, clients: int, seconds: float) -> list[tuple[int, float]]:
        """The responses to ``clients`` concurrent clients within ``seconds``."""
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
def load(tmp_path: Path) -> Iterator[Callable[[str, str], Load]]:
    with contextlib.ExitStack() as stack:

        def start(store: str, policy: str) -> Load:
            load = Load(tmp_path, store, policy)
            stack.callback(load.server.stop)
            wait_for(lambda: load.request()[0] == 200)
            return load

        yield start


def percentile(answers: list[tuple[int, float]], share: float) -> float:
    waits = sorted(wait for _, wait in answers)
    return waits[min(len(waits) - 1, int(len(waits) * share))]


@pytest.mark.parametrize("policy", ["raise", "open", "local"])
def test_a_stopped_redis(servers: Any, load: Any, policy: str) -> None:
    deadline = 1.0  # long compared with the delay of a busy machine
    served = load(f"{servers.redis.uri}?socket_timeout={deadline}", policy)
    with servers.redis.frozen():
        answers = served.of(12 if policy == "raise" else 3, 3.5)
    statuses = {status for status, _ in answers}
    slow = [wait for _, wait in answers if wait > 0.8 * deadline]
    if policy == "raise":
        assert statuses == {503}
        assert percentile(answers, 0.5) < 1.5 * deadline
        assert percentile(answers, 0.99) < 1.9 * deadline
    else:
        # Each worker probes when the store is stopped, and a second later.
        assert statuses == {200}
        assert len(answers) > 60  # some ten, if each of them had waited
        assert len(slow) <= 12
        assert percentile(answers, 0.5) < 0.2 * deadline
    end = time.monotonic() + 60
    while served.request()[0] != 200:
        assert time.monotonic() < end
    with servers.redis.client() as client:
        before = client.info("stats")["total_commands_processed"]
        while client.info("stats")["total_commands_processed"] < before + 20:
            assert served.request()[0] == 200
            assert time.monotonic() < end
