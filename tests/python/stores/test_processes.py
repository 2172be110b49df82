"""Eight processes, one key, twenty rounds: exactly the limit, on every remote store."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROCESSES, ROUNDS, LIMIT, HITS = 8, 20, 100, 25

WORKER = """
import json, sys, weir
from weir.storage import storage_from_string

uri, options, run, limits, rounds, hits = sys.argv[1:]
store = storage_from_string(uri, remember_denials=0, **json.loads(options))
items = [weir.parse(text).replace(strategy=strategy) for strategy, text in json.loads(limits)]
print(flush=True)
input()
allowed = []
for n in range(int(rounds)):
    key = f"{run}-{n}"
    allowed.append(sum(store.decide(items, key).allowed for _ in range(int(hits))))
print(json.dumps(allowed))
"""


def run(uri: str, options: dict[str, Any], limits: list[tuple[str, str]], name: str) -> list[int]:
    """How many hits passed in each round, over all processes."""
    arguments = [json.dumps(options), name, json.dumps(limits), str(ROUNDS), str(HITS)]
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
    answers = [worker.communicate(timeout=120)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    return [sum(counts) for counts in zip(*map(json.loads, answers), strict=True)]


@pytest.mark.parametrize("where", ["redis", "cluster", "memcached"])
@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window"])
def test_exactly_the_limit(servers: Any, where: str, strategy: str) -> None:
    server = getattr(servers, where)
    # Each of Memcached's states is stored by one process at a time; give them time for that.
    options = {"socket_timeout": 10}
    limits = [(strategy, f"{LIMIT} per hour")]
    assert run(server.uri, options, limits, strategy) == [LIMIT] * ROUNDS


@pytest.mark.parametrize("where", ["redis", "cluster"])
def test_exactly_the_tightest_of_several(servers: Any, where: str) -> None:
    server = getattr(servers, where)
    strategies = ["fixed-window", "moving-window", "sliding-window-counter", "token-bucket"]
    limits = [(strategy, f"{LIMIT + n} per day") for n, strategy in enumerate(strategies)]
    # A token bucket refills by a token in a quarter of an hour.
    assert run(server.uri, {"socket_timeout": 10}, limits, "all") == [LIMIT] * ROUNDS


def test_never_more_than_the_tightest_on_memcached(servers: Any) -> None:
    """What is charged and given back in between may deny others, but admits nobody too many."""
    limits = [("fixed-window", f"{LIMIT} per hour"), ("fixed-window", f"{LIMIT + 20} per day")]
    passed = run(servers.memcached.uri, {"socket_timeout": 10}, limits, "two")
    assert all(LIMIT - PROCESSES <= count <= LIMIT for count in passed), passed
