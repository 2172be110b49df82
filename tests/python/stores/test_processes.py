"""Eight processes, one key, twenty rounds: exactly the limit, on every remote store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from weir._core import STRATEGIES

pytestmark = pytest.mark.slow

PROCESSES, ROUNDS, LIMIT, HITS = 8, 20, 100, 25

#: The limit of each strategy, and hits of each process.
FEW, FEW_HITS = 40, 10

#: Seconds that the last of FEW requests per year waits in a leaky bucket, and half a request more.
WAIT = 360 * 86400 * (FEW - 0.5) / FEW

WORKER = """
import json, sys, time, weir
from weir.storage import storage_from_string

uri, options, run, limits, rounds, hits, wait = sys.argv[1:]
store = storage_from_string(uri, remember_denials=0, **json.loads(options))

def item(strategy, text):
    limit = weir.parse(text).replace(strategy=strategy)
    return limit.replace(max_delay=float(wait)) if strategy == "leaky-bucket" else limit

items = [item(*limit) for limit in json.loads(limits)]

def send(key):
    while True:
        try:
            return store.decide(items, key).allowed
        except weir.StorageError:
            time.sleep(0.02)  # the server is being started again

print(flush=True)
input()
allowed = []
for n in range(int(rounds)):
    key = f"{run}-{n}"
    allowed.append(sum(send(key) for _ in range(int(hits))))
print(json.dumps(allowed))
"""


def run(
    uri: str,
    options: dict[str, Any],
    limits: list[tuple[str, str]],
    name: str,
    meanwhile: Callable[[], None] = lambda: None,
    hits: int = HITS,
) -> list[int]:
    """How many hits passed in each round, over all processes."""
    arguments = [json.dumps(options), name, json.dumps(limits), str(ROUNDS), str(hits), str(WAIT)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, uri, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        assert worker.stdout
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("\n")
        worker.stdin.flush()
    meanwhile()
    answers = [worker.communicate(timeout=120)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    return [sum(counts) for counts in zip(*map(json.loads, answers), strict=True)]


def options_of(where: str) -> dict[str, Any]:
    """Each state of Memcached, and a busy row of PostgreSQL, is for one process at a time."""
    return {"socket_timeout": 30, **({"create": True} if where == "postgresql" else {})}


@pytest.mark.parametrize("where", ["redis", "cluster", "memcached", "postgresql", "mongodb"])
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_exactly_the_limit(servers: Any, where: str, strategy: str) -> None:
    if where == "mongodb" and not servers.mongodb.atomic:
        pytest.skip("its updates are not atomic")
    # Memcached supports at most 30 days.
    period = "day" if where == "memcached" and strategy != "leaky-bucket" else "year"
    limits = [(strategy, f"{FEW} per {period}")]
    uri = getattr(servers, where).uri
    assert run(uri, options_of(where), limits, strategy, hits=FEW_HITS) == [FEW] * ROUNDS


@pytest.mark.parametrize("where", ["redis", "cluster", "postgresql"])
def test_exactly_the_tightest_of_several(servers: Any, where: str) -> None:
    limits = [(strategy, f"{FEW + n} per year") for n, strategy in enumerate(STRATEGIES)]
    uri = getattr(servers, where).uri
    # A leaky bucket delays as many as the others admit.
    assert run(uri, options_of(where), limits, "all", hits=FEW_HITS) == [FEW] * ROUNDS


@pytest.mark.parametrize("where", ["memcached", "mongodb"])
def test_never_more_than_the_tightest_where_they_are_charged_in_turn(
    servers: Any, where: str
) -> None:
    """A temporary charge that is refunded may deny other requests, but admits none too many."""
    if where == "mongodb" and not servers.mongodb.atomic:
        pytest.skip("its updates are not atomic")
    limits = [("fixed-window", f"{FEW} per hour"), ("fixed-window", f"{FEW + 9} per day")]
    uri = getattr(servers, where).uri
    passed = run(uri, options_of(where), limits, "two", hits=FEW_HITS)
    assert all(FEW - PROCESSES <= count <= FEW for count in passed), passed


@pytest.mark.parametrize("keeps", [True, False], ids=["appendfsync always", "keeps nothing"])
def test_the_server_is_killed_and_started_again(
    make_redis: Callable[..., Any], wait_for: Callable[..., Any], keeps: bool
) -> None:
    """Never more than the limit, plus what a restart lost: nothing that was written down."""
    server = make_redis(*(["--appendonly", "yes", "--appendfsync", "always"] if keeps else []))
    server.start()
    kills = 3

    def kill_it() -> None:
        for _ in range(kills):
            before = server.commands()
            wait_for(lambda before=before: server.commands() > before + 400)
            server.kill()
            time.sleep(0.05)
            server.start()

    try:
        strategies = ["fixed-window", "moving-window", "token-bucket"]
        limits = [(strategy, f"{LIMIT} per day") for strategy in strategies]
        passed = run(server.uri, {"socket_timeout": 10}, limits, "killed", kill_it)
        # Who was charged when the answer was cut off is not among those who passed.
        assert sum(passed) >= LIMIT * ROUNDS - kills * PROCESSES * 2
        if keeps:
            assert all(count <= LIMIT for count in passed), passed
        else:
            # Each restart returns the existing counters: those of the current rounds.
            assert sum(passed) <= (LIMIT * ROUNDS) * 2
            assert all(count <= LIMIT * (kills + 1) for count in passed), passed
    finally:
        server.stop()
