"""A check on PostgreSQL: Weir compared with a SELECT 1 of the same client.

Caveats:

- A separate server on a loopback port, with its defaults except fsync, which is off: commits
  of Weir do not wait for the disk (synchronous_commit=off), and the disk of a shared machine would
  distort the results. The machine is shared with the server.
- SELECT 1 is psycopg's Connection.execute() on a connection of its pool that commits by itself, as
  an application uses it; the ratios refer to that. Below it is the same on an open connection.
- Each short series of checks is followed by one of SELECT 1. The ratio is the median over all
  such pairs, with the quartiles in brackets. The goal: a check takes at most 2.5 times as long.
- Client and server first share a CPU, then have one each. If the kernel chooses, SELECT 1 stays on
  one CPU, while the commit of a check wakes PostgreSQL's WAL writer, and client and server move
  apart. On virtual machines waking another CPU takes longer than the check.
- Per second: 16 threads of one process, each with a connection, for 10,000 clients at random, and
  for one client that all threads share. Python runs on one core.

Usage: python bench/postgresql_check.py [--rounds N] [--calls N]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool

import weir
from weir.stores.postgresql import PostgreSQLStorage

BIN = Path("/usr/lib/postgresql/15/bin")
TEXTS = ["1000000000 per minute", "1000000000 per hour", "1000000000 per day"]


@contextlib.contextmanager
def server() -> Iterator[tuple[str, int]]:
    """A separate server, as an unprivileged user: its address and process id."""
    directory = Path(tempfile.mkdtemp(prefix="weir-bench-"))
    data, user = directory / "data", "postgres" if os.getuid() == 0 else None
    if user:
        shutil.chown(directory, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    initdb = [str(BIN / "initdb"), "-D", str(data), "-U", "weir", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, user=user, cwd="/")
    settings = ["fsync=off", "listen_addresses=127.0.0.1", f"port={port}"]
    command = [str(BIN / "postgres"), "-D", str(data), "-c", "unix_socket_directories="]
    process = subprocess.Popen(
        [*command, *(word for setting in settings for word in ("-c", setting))],
        user=user,
        cwd="/",
        stderr=subprocess.DEVNULL,
    )
    uri = f"postgresql://weir@127.0.0.1:{port}/postgres"
    try:
        for _ in range(200):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(uri).close()
                break
            time.sleep(0.05)
        yield uri, process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


def place(server: int, ours: set[int], theirs: set[int]) -> None:
    """Bind all threads of this process, and all processes of the server, to CPUs."""
    for task in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(task.name), ours)
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    for pid in (server, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(pid, theirs)


def microseconds(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e6


def per_second(store: PostgreSQLStorage, key: Callable[[], str], seconds: float = 3.0) -> float:
    """Decisions of 16 threads, each with its own connection."""
    limits, done = [weir.parse(TEXTS[0])], [0] * 16
    until = time.perf_counter() + seconds

    def run(number: int) -> None:
        while time.perf_counter() < until:
            store.decide(limits, key())
            done[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


def compare(calls: dict[str, Callable[[], object]], rounds: int, number: int) -> None:
    """Print what each takes, and beside the first of them."""
    select = next(iter(calls.values()))
    took: dict[str, list[float]] = {name: [] for name in calls}
    ratio: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            took[name].append(microseconds(call, number))
            ratio[name].append(took[name][-1] / microseconds(select, number))
    print(f"{'':32} quickest    median µs    beside SELECT 1")
    for name, times in took.items():
        low, median, high = statistics.quantiles(ratio[name], n=4)
        print(
            f"{name:32} {min(times):8.1f} {statistics.median(times):8.1f}"
            f"{'':8} {median:5.2f} x [{low:.2f}, {high:.2f}]"
        )


def prepare(store: PostgreSQLStorage, uri: str, stack: contextlib.ExitStack) -> dict[str, Any]:
    """What is measured. The first is what the others are compared with."""
    connection = stack.enter_context(psycopg.connect(uri, autocommit=True))
    number = iter(range(10**9))
    pool = psycopg_pool.ConnectionPool(uri, min_size=1, kwargs={"autocommit": True}, open=False)
    stack.enter_context(pool)
    pool.wait()

    def pooled() -> object:
        with pool.connection() as taken:
            return taken.execute("SELECT 1").fetchone()

    calls: dict[str, Callable[[], object]] = {
        "SELECT 1": pooled,
        "SELECT 1, open connection": lambda: connection.execute("SELECT 1").fetchone(),
    }
    one, three = [weir.parse(TEXTS[0])], [weir.parse(text) for text in TEXTS]
    for strategy in weir.strategies.STRATEGIES:
        # All are admitted. A moving window's log has some 100 hits of the last second.
        limit = [weir.parse("1000000 per second").replace(strategy=strategy)]
        clients = itertools.cycle(f"hot-{n}" for n in range(16 if "moving" in strategy else 1))
        calls[f"1 x {strategy}"] = lambda limit=limit, clients=clients: store.decide(
            limit, next(clients)
        )
    none = [weir.parse("1 per day")]
    calls["1 limit, denied"] = lambda: store.decide(none, "hot")
    calls["3 limits"] = lambda: store.decide(three, "hot")
    buckets = [limit.replace(strategy="token-bucket") for limit in three]
    calls["3 token buckets"] = lambda: store.decide(buckets, "hot")
    calls["1 limit, each time a new client"] = lambda: store.decide(one, f"new-{next(number)}")
    for call in calls.values():
        call()
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=50)
    arguments = parser.parse_args()
    cpus = os.sched_getaffinity(0)
    first, last = {min(cpus)}, {max(cpus)}
    with server() as (uri, pid), contextlib.ExitStack() as stack:
        store = PostgreSQLStorage(uri, create=True, socket_timeout=10.0, remember_denials=0)
        stack.callback(store.close)
        calls = prepare(store, uri, stack)
        print(f"PostgreSQL {BIN.parent.name}, psycopg {version('psycopg')}")
        for name, theirs in ("share a CPU", first), ("have a CPU each", last):
            print(f"\nclient and server {name}")
            place(pid, first, theirs)
            compare(calls, arguments.rounds, arguments.calls)
        place(pid, cpus, cpus)
        dice = random.Random(1)
        many = per_second(store, lambda: f"client-{dice.randrange(10_000)}")
        print(f"\ndecisions per second, 16 connections: {many:,.0f} (10,000 clients)")
        print(
            f"decisions per second, 16 connections: {per_second(store, lambda: 'hot'):,.0f} (one)"
        )


if __name__ == "__main__":
    main()
