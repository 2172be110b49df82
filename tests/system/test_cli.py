"""``weir`` with a real server: it shows the counts of all workers, and its rules apply in each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.load import hammering
from servers.ports import wait_for

SHM = Path("/dev/shm")

#: Sets no storage. The client is in a header, so that one test can be several clients.
APP = """
import os
from flask import Flask, request
from weir.flask import Limiter

app = Flask(__name__)
limiter = Limiter(lambda: request.headers.get("X-Client", "nobody"), app=app)

@app.get("/")
@limiter.exempt
def index():
    return str(os.getpid())

@app.get("/search")
@limiter.limit("100000/day")
def search():
    return str(os.getpid())

@app.get("/login")
@limiter.limit("10/hour")
def login():
    return str(os.getpid())

@app.errorhandler(429)
def refuse(error):
    return str(os.getpid()), 429
"""


def weir(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "weir", *arguments], capture_output=True, text=True, timeout=300
    )


def weir_json(*arguments: str) -> Any:
    done = weir(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Running:
    """The server, and its table's URI."""

    def __init__(self, server: Any) -> None:
        self.server = server
        found = [
            table
            for table in weir_json("tables")["tables"]
            if table["server"] == server.process.pid
        ]
        (table,) = found
        self.store: str = table["store"]
        assert table["running"]

    def send(self, path: str, client: str) -> tuple[int, str]:
        """Status, and the worker that answered."""
        answer: tuple[int, str] = self.server.send(path, X_Client=client)
        return answer

    def by_workers(self, path: str, client: str, workers: int = 4) -> dict[str, set[int]]:
        """The statuses by worker; waits until ``workers`` workers have answered."""
        seen: dict[str, set[int]] = {}

        def all_seen() -> bool:
            status, worker = self.send(path, client)
            seen.setdefault(worker, set()).add(status)
            return len(seen) >= workers

        wait_for(all_seen, pause=0)
        return seen


@pytest.fixture
def running(serve: Callable[..., Any]) -> Iterator[Running]:
    server = serve(APP)
    server.send("/search", X_Client="first")
    running = Running(server)
    yield running
    server.stop()
    for path in SHM.glob(f"weir.auto-*/*-{server.process.pid}-*"):
        path.unlink()


def test_block_stops_a_client_in_every_worker_at_once(running: Running) -> None:
    client = "203.0.113.7"
    assert set.union(*running.by_workers("/search", client).values()) == {200}
    assert weir("block", client, "--for", "1h", "-s", running.store).returncode == 0
    # From the next request on, in any worker.
    assert set.union(*running.by_workers("/search", client).values()) == {429}
    assert running.send("/search", "203.0.113.8")[0] == 200
    assert weir("unlist", client, "-s", running.store).returncode == 0
    assert set.union(*running.by_workers("/search", client).values()) == {200}


def test_a_range_is_blocked_and_one_of_it_let_through(running: Running) -> None:
    store = running.store
    weir("block", "203.0.113.0/24", "--for", "1h", "-s", store)
    weir("allow", "203.0.113.9", "--for", "1h", "-s", store)
    statuses = Counter(running.send("/login", "203.0.113.9")[0] for _ in range(30))
    assert statuses == {200: 30}, "beyond the limit of 10"
    assert running.send("/login", "203.0.113.10")[0] == 429
    assert running.send("/login", "203.0.114.10")[0] == 200


def test_a_rule_applies_to_every_way_to_write_an_address(running: Running) -> None:
    weir("block", "2001:db8::/32", "--for", "1h", "-s", running.store)
    weir("block", "198.51.100.7", "--for", "1h", "-s", running.store)
    for client in ("2001:db8::1", "2001:0DB8:0:0::1", "::ffff:198.51.100.7"):
        assert running.send("/search", client)[0] == 429, client


def hammered(answer: Any) -> Any:
    return answer if answer["clients"][0]["denied_per_second"] > 0 else None


def test_top_shows_who_is_hammering(running: Running) -> None:
    for i in range(20):
        running.send("/search", f"192.0.2.{i}")
    with hammering(lambda: running.send("/login", "203.0.113.7")):
        wait_for(lambda: running.send("/login", "203.0.113.7")[0] == 429)
        # A rate is that of half a second, in which a busy machine may send nothing.
        answer = wait_for(lambda: hammered(weir_json("top", "-s", running.store)))
    top_clients = answer["clients"][0]
    assert (top_clients["client"], top_clients["limit"]) == ("203.0.113.7", "10 per 1 hour")
    limits = {one["limit"]: one for one in answer["limits"]}
    assert limits["10 per 1 hour"]["allowed"] == 10
    assert limits["100000 per 1 day"]["allowed"] >= 21
    assert answer["health"]["table"]["evictions"] == 0


def test_show_and_reset_find_the_limits_of_the_application(running: Running) -> None:
    for _ in range(13):
        running.send("/login", "203.0.113.7")
    running.send("/search", "203.0.113.7")
    answer = weir_json("show", "203.0.113.7", "-s", running.store)
    used = {one["limit"]: one["used"] for one in answer["limits"]}
    assert used == {"10 per 1 hour": 10, "100000 per 1 day": 1}
    assert answer["place"]["denied"] == 1
    assert running.send("/login", "203.0.113.7")[0] == 429
    assert weir("reset", "203.0.113.7", "-s", running.store).returncode == 0
    assert running.send("/login", "203.0.113.7")[0] == 200


def test_an_api_key_is_not_shown_and_can_be_blocked_all_the_same(running: Running) -> None:
    for _ in range(13):
        running.send("/login", "secret-of-ann")
    answer = weir_json("top", "-s", running.store)
    assert "secret-of-ann" not in json.dumps(answer)
    name = next(one["client"] for one in answer["clients"] if one["denied"] == 3)
    assert name.startswith("#")
    assert weir("block", name, "--for", "5m", "-s", running.store).returncode == 0
    assert running.send("/search", "secret-of-ann")[0] == 429
    assert running.send("/search", "secret-of-bob")[0] == 200


def test_the_store_of_a_server_that_has_ended_is_not_running(running: Running) -> None:
    running.server.stop()
    (table,) = [t for t in weir_json("tables")["tables"] if t["store"] == running.store]
    assert (table["running"], table["server"]) == (False, None)
    assert table["table"]["keys"] >= 1
