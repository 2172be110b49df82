"""Eight processes, one key, twenty rounds: exactly the limit, on every remote store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clocks import noon_zone
from servers.crew import Crew, nothing
from weir._core import STRATEGIES

pytestmark = pytest.mark.slow

PROCESSES, ROUNDS, LIMIT, HITS = 8, 20, 100, 25

#: A server is killed after this many of the 200 commands of a round.
KILLED_AFTER = 20

#: The limit of each strategy, and hits of each process.
FEW, FEW_HITS = 40, 10

#: Seconds that the last of FEW requests per year waits in a leaky bucket, and half a request more.
WAIT = 360 * 86400 * (FEW - 0.5) / FEW

SOURCE = """
import functools, json, time, weir
from weir.storage import storage_from_string

@functools.lru_cache(maxsize=1)
def open_store(uri, options):
    return storage_from_string(uri, remember_denials=0, **json.loads(options))

def prepare(task):
    uri, options, limits, wait, zone, keys, hits = task
    store = open_store(uri, options)

    def item(strategy, text):
        limit = weir.parse(text).replace(strategy=strategy)
        if strategy == "calendar-window":
            return limit.replace(tz=zone)
        return limit.replace(max_delay=wait) if strategy == "leaky-bucket" else limit

    items = [item(*limit) for limit in limits]

    def send(key):
        while True:
            try:
                return store.decide(items, key).allowed
            except weir.StorageError:
                time.sleep(0.02)  # the server is being started again

    return lambda: [sum(send(key) for _ in range(hits)) for key in keys]
"""


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    crew = Crew(SOURCE, PROCESSES)
    yield crew
    crew.end()


def run(
    crew: Crew,
    uri: str,
    options: dict[str, Any],
    limits: list[tuple[str, str]],
    keys: list[str],
    hits: int = HITS,
    meanwhile: Callable[[], None] = nothing,
) -> list[int]:
    """How many hits of each key passed, over all processes."""
    task = [uri, json.dumps(options), limits, WAIT, noon_zone(), keys, hits]
    answers = crew.run([task] * PROCESSES, meanwhile)
    return [sum(counts) for counts in zip(*answers, strict=True)]


def rounds(name: str) -> list[str]:
    return [f"{name}-{n}" for n in range(ROUNDS)]


def options_of(where: str) -> dict[str, Any]:
    """Each state of Memcached, and a busy row of PostgreSQL, is for one process at a time."""
    return {"socket_timeout": 30, **({"create": True} if where == "postgresql" else {})}


@pytest.mark.parametrize("where", ["redis", "cluster", "memcached", "postgresql", "mongodb"])
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_exactly_the_limit(crew: Crew, servers: Any, where: str, strategy: str) -> None:
    if where == "mongodb" and not servers.mongodb.atomic:
        pytest.skip("its updates are not atomic")
    # Memcached supports at most 30 days.
    period = "day" if where == "memcached" and strategy != "leaky-bucket" else "year"
    limits = [(strategy, f"{FEW} per {period}")]
    uri = getattr(servers, where).uri
    assert run(crew, uri, options_of(where), limits, rounds(strategy), FEW_HITS) == [FEW] * ROUNDS


@pytest.mark.parametrize("where", ["redis", "cluster", "postgresql"])
def test_exactly_the_tightest_of_several(crew: Crew, servers: Any, where: str) -> None:
    limits = [(strategy, f"{FEW + n} per year") for n, strategy in enumerate(STRATEGIES)]
    uri = getattr(servers, where).uri
    # A leaky bucket delays as many as the others admit.
    assert run(crew, uri, options_of(where), limits, rounds("all"), FEW_HITS) == [FEW] * ROUNDS


@pytest.mark.parametrize("where", ["memcached", "mongodb"])
def test_never_more_than_the_tightest_where_they_are_charged_in_turn(
    crew: Crew, servers: Any, where: str
) -> None:
    """A temporary charge that is refunded may deny other requests, but admits none too many."""
    if where == "mongodb" and not servers.mongodb.atomic:
        pytest.skip("its updates are not atomic")
    limits = [("fixed-window", f"{FEW} per hour"), ("fixed-window", f"{FEW + 9} per day")]
    uri = getattr(servers, where).uri
    passed = run(crew, uri, options_of(where), limits, rounds("two"), FEW_HITS)
    assert all(FEW - PROCESSES <= count <= FEW for count in passed), passed


@pytest.mark.parametrize("keeps", [True, False], ids=["appendfsync always", "keeps nothing"])
def test_the_server_is_killed_and_started_again(
    crew: Crew, make_redis: Callable[..., Any], wait_for: Callable[..., Any], keeps: bool
) -> None:
    """Admits at most the limit plus the hits lost in a restart; no persisted hit is lost."""
    server = make_redis(*(["--appendonly", "yes", "--appendfsync", "always"] if keeps else []))
    server.start()

    def kill_it() -> None:
        wait_for(lambda: server.commands() > commands + KILLED_AFTER)
        server.kill()
        time.sleep(0.05)
        server.start()

    strategies = ["fixed-window", "moving-window", "token-bucket"]
    limits = [(strategy, f"{LIMIT} per day") for strategy in strategies]
    options = {"socket_timeout": 10}
    passed = []
    try:
        for round_, key in enumerate(rounds("killed")):
            killed = round_ % 3 == 1
            commands = server.commands()
            passed += run(
                crew, server.uri, options, limits, [key], meanwhile=kill_it if killed else nothing
            )
            # A hit may be charged although its reply was cut off; it is not in `passed`.
            assert passed[-1] >= LIMIT - PROCESSES * 2 * killed
            # A restart without a file returns the quota of the current round.
            assert passed[-1] <= LIMIT * (2 if killed and not keeps else 1)
    finally:
        server.stop()
