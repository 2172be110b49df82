"""A stopped server under gunicorn: how long a request takes, and what it receives."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from servers.ports import quickest, wait_for
from servers.web import gunicorn

#: The body of a response says which worker it is, whether this request asked the store, whether
#: the store answered it, and how many requests of the worker are still waiting for the store.
APPLICATION = """
import json, os, pathlib, threading, weir
from weir.storage import FailoverStorage

store = FailoverStorage(
    os.environ["STORE"], os.environ["POLICY"],
    clock=lambda: float(pathlib.Path("clock").read_text()),
)
limits = [weir.parse("1000000/minute"), weir.parse("10000000/hour"), weir.parse("100000000/day")]
decide, lock, waiting, request = store.storage.decide, threading.Lock(), [], threading.local()

def ask(*arguments):
    request.asked = True
    with lock:
        waiting.append(request)
    try:
        decision = decide(*arguments)
        request.answered = True
        return decision
    finally:
        with lock:
            waiting.pop()

store.storage.decide = ask

def app(environ, start_response):
    request.asked = request.answered = False
    try:
        allowed = store.decide(limits, environ["PATH_INFO"]).allowed
        status = "200 OK" if allowed else "429 Too Many Requests"
    except weir.StorageError:
        status = "503 Service Unavailable"
    body = json.dumps([os.getpid(), request.asked, request.answered, len(waiting)]).encode()
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]
"""

WORKERS = 2


class Answer(NamedTuple):
    seconds: float
    status: int
    worker: int
    asked: bool
    answered: bool
    waiting: int


class Load:
    """Workers of twelve threads that serve the application, and clients that send requests.

    The clock by which the policy pauses stands still unless it is moved.
    """

    def __init__(self, directory: Path, store: str, policy: str) -> None:
        (directory / "application.py").write_text(APPLICATION)
        self._clock = directory / "clock"
        self._now = 1000.0
        self.move_clock(0)
        self.server = gunicorn(
            directory,
            "application:app",
            *("--threads", "12", "--log-level", "warning"),
            workers=WORKERS,
            env={"STORE": store, "POLICY": policy},
        )

    def move_clock(self, seconds: float) -> None:
        self._now += seconds
        new = self._clock.with_name("new")
        new.write_text(str(self._now))
        new.replace(self._clock)  # workers never read an empty file

    def request(self) -> Answer:
        start = time.perf_counter()
        status, body = self.server.send("/")
        return Answer(time.perf_counter() - start, status, *json.loads(body))

    def of(self, clients: int, requests: int) -> list[Answer]:
        """The responses to ``clients`` clients that send ``requests`` requests each."""
        answers: list[Answer] = []

        def work() -> None:
            for _ in range(requests):
                answers.append(self.request())

        threads = [threading.Thread(target=work) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == clients * requests
        return answers


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[[str, str], Load]]:
    with contextlib.ExitStack() as stack:

        def start(store: str, policy: str) -> Load:
            load = Load(tmp_path, store, policy)
            stack.callback(load.server.stop)
            wait_for(lambda: returned(load))
            return load

        yield start


def returned(served: Load) -> bool:
    """Whether Redis answers both workers. The clock moves by the longest pause between probes."""
    served.move_clock(32)
    answers = served.of(3, 20)
    return len({a.worker for a in answers}) == WORKERS and all(a.answered for a in answers)


def percentile(answers: list[Answer], share: float) -> float:
    waits = sorted(answer.seconds for answer in answers)
    return waits[min(len(waits) - 1, int(len(waits) * share))]


DEADLINE = 1.0  # long beside what a busy machine may add


def test_each_request_waits_for_its_own_deadline(servers: Any, load: Any) -> None:
    served = load(f"{servers.redis.uri}?socket_timeout={DEADLINE}", "raise")

    def measure() -> float:
        """The waits as a part of the longest ones that are accepted."""
        answers = served.of(12, 3)
        assert {(a.status, a.asked, a.answered) for a in answers} == {(503, True, False)}
        return max(percentile(answers, 0.5) / 1.5, percentile(answers, 0.99) / 1.9) / DEADLINE

    with servers.redis.frozen():
        assert quickest(measure, 1) < 1
    wait_for(lambda: returned(served))


@pytest.mark.parametrize("policy", ["open", "local"])
def test_one_request_of_each_worker_tries_a_stopped_redis(
    servers: Any, load: Any, policy: str
) -> None:
    served, clients = load(f"{servers.redis.uri}?socket_timeout={DEADLINE}", policy), 3
    answers: list[Answer] = []

    def asked() -> Counter[int]:
        """How many requests of each worker ask the store, once some of both do."""
        asked: Counter[int] = Counter()

        def both() -> bool:
            more = served.of(clients, 20)
            answers.extend(more)
            asked.update(answer.worker for answer in more if answer.asked)
            return len(asked) == WORKERS

        wait_for(both)
        return asked

    with servers.redis.frozen():
        # Those that begin before the first of a worker has waited for its deadline ask, too.
        assert max(asked().values()) <= clients
        more = served.of(clients, 20)
        assert not any(answer.asked for answer in more), "the clock stands still"
        answers += more
        assert quickest(lambda: percentile(served.of(clients, 20), 0.5), 0.2) < 0.2 * DEADLINE
        for pause in (1, 2, 4):
            served.move_clock(pause)
            assert list(asked().values()) == [1] * WORKERS
        assert {(answer.status, answer.answered) for answer in answers} == {(200, False)}
        others = [answer for answer in answers if not answer.asked]
        assert any(answer.waiting for answer in others), "each waits until a probe has ended"
    wait_for(lambda: returned(served))
