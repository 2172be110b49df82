"""A check on Redis: Weir compared with Flask-Limiter's library, and both with a PING from C.

Caveats:

- A separate redis-server on a loopback port, one caller at a time, no other load. Client and
  server run on the same machine: the caller waits while the server works, so a round trip includes
  the CPU time of both.
- The peers are measured alternately, in short rounds. The table shows the quickest round (with the
  least disturbance), and the median over all rounds with the quartiles in brackets.
- Flask-Limiter calls its library, limits, once to hit each limit and once for the headers of each
  limit. The numbers are those calls, without the Python code of the extension. Retries, timeouts
  and the connection pool are the defaults of redis-py.
- "C client" is bench/ping.c: hiredis, blocking. The goal: a check of three limits by Weir from
  Python takes at most twice as long as its PING.
- Trips are commands that clients sent, as the server's MONITOR saw them. CPU is the server's, user
  and system, per check.
- Per second: 50 connections of bench/ping.c, one request at a time on each, for 10,000 clients at
  random. With only two cores, the program and the server have one each.
- Memory: MEMORY USAGE of one key with 1,000 hits in its window.

Usage: python bench/redis_check.py [--rounds N] [--calls N] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import limits
import limits.storage
import limits.strategies
import redis

import weir
from weir.storage import storage_from_string

TEXTS = ["1000000000 per minute", "1000000000 per hour", "1000000000 per day"]
STRATEGIES = [
    "fixed-window",
    "moving-window",
    "sliding-window-counter",
    "token-bucket",
    "leaky-bucket",
]
#: Limits of usual size that deny no hit.
MODEST = ["1000000 per minute", "1000000 per hour", "100000 per day"]
#: For a leaky bucket, whose rate must be high enough for the benchmark.
QUICK = ["1000000 per second", "10000000 per minute", "1000000000 per hour"]


def start_server(directory: str) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = ["--port", str(port), "--bind", "127.0.0.1"]
    server = subprocess.Popen(
        ["redis-server", *address, "--save", "", "--dir", directory], stdout=subprocess.DEVNULL
    )
    with redis.Redis(port=port) as client:
        for _ in range(200):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.02)
    return server, port


class PingProgram:
    """Runs bench/ping.c."""

    def __init__(self, port: int) -> None:
        program = Path(os.environ.get("WEIR_BENCH_BUILD", "build/bench/bench")) / "ping"
        self.process = (
            subprocess.Popen(
                [str(program), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            if program.exists()
            else None
        )

    def run(self, what: str, calls: int, limits: int = 3) -> float:
        assert self.process
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{what} {calls} {limits}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        if self.process:
            self.process.communicate()


def timed(call: Callable[[], Any]) -> Callable[[int], float]:
    """Average microseconds of one call."""

    def measure(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls * 1e6

    return measure


def weir_check(store: Any, texts: list[str], strategy: str = "fixed-window") -> Callable[[], Any]:
    items = [weir.parse(text).replace(strategy=strategy) for text in texts]
    if strategy == "leaky-bucket":
        items = [item.replace(max_delay=0.5) for item in items]
    key = weir.join_key("10.1.2.3", f"bench.{strategy}")
    keys, costs, decide = [key] * len(items), [1] * len(items), store.decide
    return lambda: decide(items, keys, costs, weir.HIT)


def limits_check(uri: str, texts: list[str], strategy: str = "fixed-window") -> Callable[[], Any]:
    """The calls of limits that Flask-Limiter makes in a request: hits, then numbers for headers."""
    storage = limits.storage.storage_from_string(uri)
    limiter = limits.strategies.STRATEGIES[strategy](storage)
    items = [limits.parse(text) for text in texts]

    def check() -> None:
        for item in items:
            limiter.hit(item, "10.1.2.3", "bench")
        for item in items:
            limiter.get_window_stats(item, "10.1.2.3", "bench")

    return check


def trips(port: int, check: Callable[[], Any], calls: int = 100) -> float:
    """Commands that clients sent for a check, as the server saw them."""
    with redis.Redis(port=port) as client, client.monitor() as monitor:
        for _ in range(calls):
            check()
        client.echo("the end")
        seen = 0
        for command in monitor.listen():
            if command["command"].startswith("ECHO"):
                break
            seen += command["client_type"] != "lua"
    return seen / calls


def server_cpu(client: Any) -> float:
    usage = client.info("cpu")
    return float(usage["used_cpu_user"] + usage["used_cpu_sys"]) * 1e6


def memory(port: int, uri: str) -> dict[str, dict[str, int]]:
    """Bytes of a key, by strategy and library."""
    used: dict[str, dict[str, int]] = {}
    store: Any = storage_from_string(uri, remember_denials=0)
    with redis.Redis(port=port) as client:

        def take(name: str, library: str) -> None:
            keys = client.keys()
            used.setdefault(name, {})[library] = sum(client.memory_usage(key) for key in keys)
            client.flushall()

        client.flushall()
        for strategy in STRATEGIES:
            item = weir.parse("1000 per minute").replace(strategy=strategy)
            for i in range(1000):
                store.set_clock(1_700_000_000 + i * 0.05, True)
                store.decide([item], "10.1.2.3/view")
            take(strategy, "weir")
        for strategy in STRATEGIES[:3]:
            peer = limits.strategies.STRATEGIES[strategy](limits.storage.storage_from_string(uri))
            for _ in range(1000):
                peer.hit(limits.parse("1000 per minute"), "10.1.2.3", "view")
            take(strategy, "limits")
    store.close()
    return used


def measure(port: int, rounds: int, calls: int) -> dict[str, Any]:
    uri = f"redis://127.0.0.1:{port}"
    store: Any = storage_from_string(uri)
    program = PingProgram(port)
    client = redis.Redis(port=port)
    checks: dict[str, Callable[[], Any]] = {
        "Weir, 1 limit": weir_check(store, TEXTS[:1]),
        "Weir, 3 limits": weir_check(store, TEXTS),
        **{f"Weir, 3 x {s}": weir_check(store, MODEST, s) for s in STRATEGIES[1:4]},
        "Weir, 3 x leaky-bucket": weir_check(store, QUICK, "leaky-bucket"),
        "Flask-Limiter's, 1 limit": limits_check(uri, TEXTS[:1]),
        "Flask-Limiter's, 3 limits": limits_check(uri, TEXTS),
        "Flask-Limiter's, 3 x sliding": limits_check(uri, MODEST, "sliding-window-counter"),
        "redis-py's PING": client.ping,
    }
    peers = {name: timed(check) for name, check in checks.items()}
    if program.process:
        peers["C client, PING"] = lambda calls: program.run("ping", calls)
        peers["C client, 3 limits"] = lambda calls: program.run("check", calls)
    times: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(rounds + 1):
        for name, peer in peers.items():
            took = peer(calls)
            if number > 0:  # the first round warms up
                times[name].append(took)
    cpu = {}
    for name, check in checks.items():
        before = server_cpu(client)
        timed(check)(2000)
        cpu[name] = (server_cpu(client) - before) / 2000
    results = {
        "times": times,
        "cpu": cpu,
        "trips": {name: trips(port, check) for name, check in checks.items()},
        "per_second": {
            name: statistics.median(program.run("load", 50_000, count) for _ in range(5))
            for name, count in (("PING", 0), ("1 limit", 1), ("3 limits", 3))
            if program.process
        },
        "memory": memory(port, uri),
    }
    program.close()
    store.close()
    client.close()
    return results


def summary(times: list[float]) -> str:
    low, middle, high = statistics.quantiles(times, n=4)
    return f"{min(times):8.1f} {middle:8.1f} [{low:.1f}, {high:.1f}]"


def report(results: dict[str, Any]) -> None:
    times, trips, cpu = results["times"], results["trips"], results["cpu"]
    print(f"weir {weir.__version__}, limits {version('limits')}, redis-py {version('redis')}\n")
    print(f"{'':30} {'µs: best':>8} {'median':>8} {'':20} trips  server CPU µs")
    for name, values in times.items():
        more = f"{trips[name]:5.1f} {cpu[name]:10.1f}" if name in trips else ""
        print(f"{name:30} {summary(values):38} {more}")
    ours, ping = times["Weir, 3 limits"], times.get("C client, PING")
    if ping:
        best, middle = min(ours) / min(ping), statistics.median(ours) / statistics.median(ping)
        print(f"\nthree limits / PING from C: {best:.2f} best, {middle:.2f} median (goal: 2)")
    theirs = times["Flask-Limiter's, 3 limits"]
    ratio = statistics.median(theirs) / statistics.median(ours)
    print(f"Flask-Limiter's three limits / Weir's: {ratio:.1f}")
    print("\none server, 50 connections:")
    for name, count in results["per_second"].items():
        print(f"    {name:20} {count:10,.0f} per second")
    print("\nbytes of a key with 1,000 hits in its minute:")
    for strategy, used in results["memory"].items():
        theirs = f"{used['limits']:8,d} limits" if "limits" in used else ""
        print(f"    {strategy:24} {used['weir']:8,d} weir {theirs}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="print the raw numbers")
    arguments = parser.parse_args()
    if shutil.which("redis-server") is None:
        print("   (skipped: redis-server is not installed)")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        server, port = start_server(directory)
        try:
            results = measure(port, arguments.rounds, arguments.calls)
        finally:
            server.terminate()
            server.wait()
    if arguments.json:
        print(json.dumps(results))
    else:
        report(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
