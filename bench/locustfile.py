"""Kinds of clients for Locust, for the example app that bench/load.py serves.

    locust -f bench/locustfile.py --host http://127.0.0.1:8000

Each user is a separate client: an address in ``X-Forwarded-For``. A 429 is not a failure. At the
end, a table of the results of each kind is printed.

- Polite: few requests; waits as long as Retry-After says.
- Bursting: thirty requests in a row, then a pause of some seconds, whatever the responses are.
- Hammering: as fast as it can; ignores Retry-After.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import defaultdict
from typing import Any

import gevent
from locust import FastHttpUser, between, constant, events, task

PATH = os.environ.get("LOAD_PATH", "/work")

_numbers = itertools.count(1)
_started = 0.0

#: Seconds until the response, by kind of client and by the result of the request.
seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))


class Client(FastHttpUser):
    """The common part of all kinds: makes requests and records the responses."""

    abstract = True

    def on_start(self) -> None:
        number = next(_numbers)
        self.address = f"10.9.{number // 250}.{number % 250 + 1}"

    def request(self) -> float:
        """One request. Returns the seconds of Retry-After, 0 if it passed."""
        kind = type(self).__name__
        started = time.perf_counter()
        headers = {"X-Forwarded-For": self.address}
        with self.client.get(PATH, headers=headers, name=kind, catch_response=True) as response:
            took = time.perf_counter() - started
            if response.status_code == 429:
                response.success()
                seen[kind]["denied"].append(took)
                return float(response.headers.get("Retry-After", "1"))
            seen[kind]["admitted" if response.status_code == 200 else "failed"].append(took)
            return 0.0


class Polite(Client):
    weight = 6
    wait_time = between(0.5, 1.5)

    @task
    def visit(self) -> None:
        gevent.sleep(min(self.request(), 30.0))


class Bursting(Client):
    weight = 3
    wait_time = between(2, 4)

    @task
    def visit(self) -> None:
        for _ in range(30):
            self.request()


class Hammering(Client):
    weight = 1
    wait_time = constant(0)

    @task
    def visit(self) -> None:
        self.request()


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000


@events.test_start.add_listener
def start(**_: Any) -> None:
    global _started
    _started = time.perf_counter()


@events.test_stop.add_listener
def report(**_: Any) -> None:
    """Print the results of each kind of client."""
    seconds = time.perf_counter() - _started
    heads = ("admitted", "denied", "admitted/s", "p50 ms", "p99 ms")
    print(f"{'':10}  {heads[0]:>8}  {heads[1]:>8}  {heads[2]:>10}  {heads[3]:>8}  {heads[4]:>8}")
    for kind in ("Polite", "Bursting", "Hammering"):
        answers = seen[kind]
        admitted, denied = len(answers["admitted"]), len(answers["denied"])
        every = answers["admitted"] + answers["denied"]
        p50, p99 = (percentile(every, share) if every else 0.0 for share in (0.5, 0.99))
        print(
            f"{kind.lower():10}  {admitted:8}  {denied:8}  {admitted / seconds:10.1f}  "
            f"{p50:8.1f}  {p99:8.1f}"
        )
        if answers["failed"]:
            print(f"{'':10}  {len(answers['failed'])} other responses")
