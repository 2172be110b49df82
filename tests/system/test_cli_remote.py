"""``weir`` and applications that count in Redis or Memcached, on one host and on two."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from servers.memcached_server import Memcached
from servers.ports import wait_for
from servers.redis_server import RedisServer
from servers.terminal import Screen

SHM = Path("/dev/shm")

APP = """
import os
from flask import Flask, request
from weir.flask import Limiter

app = Flask(__name__)
limiter = Limiter(
    lambda: request.headers.get("X-Client", "nobody"), app=app, storage_uri=os.environ["STORE"],
    on_store_error="local",
)

@app.get("/")
@limiter.exempt
def index():
    return "up"

@app.get("/login")
@limiter.limit("100/hour")
def login():
    return "in"

@app.get("/report")
@limiter.limit("3 per day", strategy="calendar-window", tz=os.environ["ZONE"])
def report():
    return "reported"
"""


def zone_in_the_day() -> str:
    """Of two zones, half a day apart, the one where midnight is farther away."""

    def from_noon(zone: str) -> float:
        now = datetime.now(ZoneInfo(zone))
        return abs(now.hour + now.minute / 60 - 12)

    return min("Pacific/Auckland", "Europe/Berlin", key=from_noon)


def weir(*arguments: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "weir", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def weir_json(*arguments: str, **options: Any) -> Any:
    return json.loads(weir(*arguments, "--json", **options).stdout)


@pytest.fixture
def memcached(tmp_path: Path) -> Iterator[Memcached]:
    server = Memcached(tmp_path / "memcached").start()
    yield server
    server.stop()


@pytest.fixture
def hosts(serve: Callable[..., Any]) -> Iterator[Callable[..., list[Any]]]:
    """Servers of one application with one store, each with its own workers and statistics."""
    started: list[Any] = []

    def start(store: str, count: int) -> list[Any]:
        servers = [serve(APP, workers=2, STORE=store, ZONE=zone_in_the_day()) for _ in range(count)]
        started.extend(servers)
        return servers

    yield start
    for server in started:
        server.stop()
        for path in SHM.glob(f"weir.auto-*/*-{server.process.pid}-*"):
            path.unlink()


def login(server: Any, client: str) -> int:
    status: int = server.send("/login", X_Client=client)[0]
    return status


#: A deadline for a machine that is busy with other tests.
PATIENT = "socket_timeout=20"


def test_two_hosts_count_together(redis: RedisServer, hosts: Callable[..., list[Any]]) -> None:
    store = f"{redis.uri}/0?{PATIENT}"
    one, two = hosts(store, 2)
    statuses = [login(host, "203.0.113.7") for host in [one, two] * 80]
    assert statuses.count(200) == 100
    login(one, "192.0.2.1")

    # The counts of both hosts together, once each host has reported.
    def reported() -> Any:
        login(one, "192.0.2.2")
        login(two, "192.0.2.2")
        answer = weir_json("top", "-s", store)
        limits = {limit["limit"]: limit for limit in answer["limits"]}
        both = len(answer["health"]["remote"]["hosts"]) == 2
        return both and limits["100 per 1 hour"]["denied"] >= 60 and answer

    answer = wait_for(reported)
    top = next(one for one in answer["clients"] if one["client"] == "203.0.113.7")
    assert (top["allowed"], top["denied"]) == (100, 60)
    assert answer["health"]["remote"]["latency"] > 0
    assert answer["health"]["remote"]["fallback"] is False
    shown = weir("top", "--once", "-s", store).stdout
    assert "answers in" in shown
    assert "203.0.113.7" in shown

    answer = weir_json("show", "203.0.113.7", "-s", store)
    assert [(limit["limit"], limit["used"]) for limit in answer["limits"]] == [
        ("100 per 1 hour", 100)
    ]
    assert answer["place"]["denied"] == 1
    weir("reset", "203.0.113.7", "-s", store)
    # Each worker caches the denial for a minute, and drops it after the reset.
    for host in (one, two):
        wait_for(lambda host=host: {login(host, "203.0.113.7") for _ in range(4)} == {200}, 45)


def test_a_rule_holds_on_both_hosts(redis: RedisServer, hosts: Callable[..., list[Any]]) -> None:
    store = f"{redis.uri}/0?{PATIENT}"
    one, two = hosts(store, 2)
    weir("block", "203.0.113.0/24", "--for", "1h", "-s", store)
    for host in (one, two):
        wait_for(lambda host=host: login(host, "203.0.113.99") == 429)
    assert login(one, "192.0.2.1") == 200
    rule = weir_json("show", "203.0.113.5", "-s", store)["rule"]
    assert (rule["client"], rule["kind"]) == ("203.0.113.0/24", "block")
    weir("unlist", "203.0.113.0/24", "-s", store)
    for host in (one, two):
        wait_for(lambda host=host: login(host, "203.0.113.98") == 200)
    weir("unlist", "203.0.113.0/24", "-s", store, code=1)

    lines = "".join(f"block 198.51.{i // 256}.{i % 256}\n" for i in range(2500)) + "allow ann 1h\n"
    assert weir_json("rules", "--load", "-", "-s", store, input=lines) == {"loaded": 2501}
    assert len(weir_json("rules", "-s", store)["rules"]) == 2501
    wait_for(lambda: login(two, "198.51.1.7") == 429)
    weir("rules", "--load", "-", "-s", store, input="block 10.0.0.1\nblock 10.0.0.1/8\n", code=2)
    assert len(weir_json("rules", "-s", store)["rules"]) == 2501


def test_redis_that_is_away(redis: RedisServer, hosts: Callable[..., list[Any]]) -> None:
    store = f"{redis.uri}/0"
    (host,) = hosts(store, 1)
    assert login(host, "203.0.113.7") == 200
    redis.stop()
    for _ in range(115):
        login(host, "203.0.113.7")
    # ``weir top`` still shows the statistics of this host, and that the host decides alone.
    answer = weir_json("top", "-s", store)
    assert answer["health"]["remote"]["latency"] is None
    assert answer["health"]["remote"]["fallback"] is True
    assert answer["clients"][0]["client"] == "203.0.113.7"
    shown = weir("top", "--once", "-s", store).stdout
    assert "does not answer" in shown
    assert "decides without the store" in shown
    refused = weir("block", "203.0.113.7", "--for", "1h", "-s", store, code=3)
    assert refused.stderr.startswith("weir: ")


def test_redis_that_does_not_run() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        store = f"redis://user:secret@127.0.0.1:{taken.getsockname()[1]}/0"
        for command in (["top", "--once"], ["show", "me"], ["rules"]):
            done = weir(*command, "-s", store, code=3)
            assert done.stdout == ""
            assert "secret" not in done.stderr


def test_memcached(memcached: Memcached, hosts: Callable[..., list[Any]]) -> None:
    store = f"{memcached.uri}?{PATIENT}"
    assert "no running server of this host" in weir("rules", "-s", store, code=4).stderr
    (host,) = hosts(store, 1)
    statuses = [login(host, "203.0.113.7") for _ in range(115)]
    assert statuses.count(200) == 100
    answer = weir_json("top", "-s", store)
    assert (answer["clients"][0]["client"], answer["clients"][0]["denied"]) == ("203.0.113.7", 15)
    answer = weir_json("show", "203.0.113.7", "-s", store)
    assert [limit["used"] for limit in answer["limits"]] == [100]
    weir("reset", "203.0.113.7", "-s", store)
    wait_for(lambda: {login(host, "203.0.113.7") for _ in range(4)} == {200}, 45)
    weir("block", "203.0.113.7", "--for", "1h", "-s", store)
    assert {login(host, "203.0.113.7") for _ in range(10)} == {429}
    assert weir_json("show", "203.0.113.7", "-s", store)["rule"]["kind"] == "block"
    weir("unlist", "203.0.113.7", "-s", store)
    assert login(host, "203.0.113.7") == 200


EXAMPLES = Path(__file__).parents[2] / "examples/stores"


@pytest.mark.parametrize("kind", ["redis", "memcached", "sqlite", "shm"])
def test_commands_find_a_limit_in_a_named_zone(
    request: pytest.FixtureRequest,
    hosts: Callable[..., list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Also in a custom store, whose module WEIR_STORES names for server and commands."""
    monkeypatch.setenv("WEIR_STORES", "sqlite")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    store = {
        "redis": lambda: f"{request.getfixturevalue('redis').uri}/0?{PATIENT}",
        "memcached": lambda: f"{request.getfixturevalue('memcached').uri}?{PATIENT}",
        "sqlite": lambda: f"sqlite://{tmp_path}/limits.db",
        "shm": lambda: f"shm://zones-{tmp_path.name}-{os.getpid()}",
    }[kind]()
    (server,) = hosts(store, 1)
    client = "203.0.113.7"

    def report() -> int:
        status: int = server.send("/report", X_Client=client)[0]
        return status

    assert [report() for _ in range(5)] == [200, 200, 200, 429, 429]

    def shown() -> Any:
        login(server, "192.0.2.1")  # a server publishes its counts when it answers
        limits = weir_json("show", client, "-s", store)["limits"]
        return [limit for limit in limits if limit["limit"] == "3 per 1 day"]

    (limit,) = wait_for(shown)
    assert (limit["used"], limit["remaining"]) == (3, 0)
    reset = datetime.fromisoformat(limit["reset_at"]).timestamp()
    assert 0 < reset - time.time() < 25 * 3600 + 60
    cleared = weir("reset", client, "-s", store).stdout
    assert cleared.startswith(f"{client}: ")
    wait_for(lambda: report() == 200)

    weir("block", client, "--for", "1h", "-s", store)
    wait_for(lambda: report() == 429)
    assert weir_json("rules", "-s", store)["rules"][0]["client"] == client
    weir("unlist", client, "-s", store)
    wait_for(lambda: report() == 200)
    rows = {row["limit"]: row for row in weir_json("top", "-s", store)["limits"]}
    assert rows["3 per 1 day"]["denied"] >= 2
    if kind == "shm":
        (SHM / f"weir.{store.removeprefix('shm://')}").unlink()


def test_the_live_view_shows_clients_of_a_custom_store(
    hosts: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``weir top`` on a terminal; the store is opened by its scheme."""
    monkeypatch.setenv("WEIR_STORES", "sqlite")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    store = f"sqlite://{tmp_path}/limits.db"
    (server,) = hosts(store, 1)
    assert login(server, "192.0.2.9") == 200
    screen = Screen("top", "-s", store)
    try:
        assert screen.until("Ctrl-C ends this view", 60), screen.seen

        def shown() -> bool:
            login(server, "203.0.113.77")
            return "203.0.113.77" in screen.read(0.05)

        wait_for(shown)
    finally:
        code = screen.end()
    assert code == 0
    assert "100 per 1 hour" in screen.seen
