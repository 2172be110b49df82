"""A check from Python: weir.RateLimiter compared with limits, each strategy, in one process.

Caveats:

- Both count in the memory of the process; no hit is denied; every key was used before.
- The numbers are CPU time of the process, all threads, because wall-clock time on a shared machine
  includes other programs. A hit of limits starts a thread that looks for expired keys. Its work
  during the measurement is part of the cost of hits, and grows with the number of keys. The
  program waits for this thread before it measures anything else.
- All numbers include the loop around the calls, for weir and for limits; its cost is printed.
- The two are measured alternately in short rounds, with one key on a new counter each: a moving
  window of limits is a list that gets slower as it fills, so its cost depends on the length of the
  run.
- Medians over the rounds, with the quartiles in brackets.
- Bytes per key: for limits, the growth of the process; for weir, the mapping, with room for a
  fifth more keys (half as many more in a small table) so that hardly any is evicted, without the
  unused part of the room for moving-window hits. Each in a separate process. The hits of the
  moving windows are at random times; the bytes that weir needs for one depend on the time between
  hits.

Usage: python bench/python_hit.py [--rounds N] [--calls N] [--keys N] [--no-memory] [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from typing import Any

import limits
import limits.storage
import limits.strategies

import weir

CALLS = ["hit", "test", "get_window_stats"]
LIMIT = "1000000000 per day"


def cpu_ns(call: Callable[..., Any], item: Any, keys: list[str]) -> float:
    """CPU time of one call, on average over the keys."""
    start = time.process_time_ns()
    for key in keys:
        call(item, key)
    return (time.process_time_ns() - start) / len(keys)


def nothing(item: Any, key: str) -> None:
    """The cost of the loop, and of a call that does nothing."""


class Peer:
    """One of the two, with one strategy."""

    def __init__(self, package: Any, strategy: str, storage: Any) -> None:
        self.storage = storage
        self.limiter = package.strategies.STRATEGIES[strategy](storage)
        self.item = package.parse(LIMIT)

    def fresh(self, keys: list[str]) -> None:
        self.storage.reset()
        for key in keys:
            self.limiter.hit(self.item, key)
        self.rest()

    def rest(self) -> None:
        """Wait for limits' thread, so that it is not part of the next measurement."""
        if isinstance(self.storage, limits.storage.MemoryStorage):
            self.storage.timer.join()


def measure(peers: dict[str, Peer], keys: list[str], rounds: int, calls: int) -> dict[str, Any]:
    """CPU times by call and peer."""
    times: dict[str, dict[str, list[float]]] = {call: {p: [] for p in peers} for call in CALLS}
    gc.disable()
    for number in range(rounds):
        if len(keys) == 1:
            used = keys * calls
        else:
            used = random.Random(number).sample(keys, min(calls, len(keys)))
        for call in CALLS:
            for name, peer in peers.items():
                if len(keys) == 1 or number == 0:
                    peer.fresh(keys)
                times[call][name].append(cpu_ns(getattr(peer.limiter, call), peer.item, used))
                peer.rest()
        gc.collect()
    gc.enable()
    return times


def middle(values: list[float]) -> tuple[float, float, float]:
    low, median, high = statistics.quantiles(values, n=4)
    return low, median, high


def show(values: list[float]) -> str:
    low, median, high = middle(values)
    return f"{median:7.0f} ns [{low:5.0f} to {high:5.0f}]"


def speed(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    loop = middle([cpu_ns(nothing, None, ["x"] * arguments.calls) for _ in range(21)])[1]
    print(f"The loop and a call of an empty Python function: {loop:.0f} ns\n")
    print(f"{'strategy':23} {'call':17} {'keys':>7}  {'weir':>26}  {'limits':>26}   ratio")
    results = []
    for strategy in weir.strategies.STRATEGIES:
        for count in (1, arguments.keys):
            keys = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count)]
            peers = {"weir": Peer(weir, strategy, weir.Table("memory://"))}
            if strategy in limits.strategies.STRATEGIES:
                peers["limits"] = Peer(limits, strategy, limits.storage.MemoryStorage())
            times = measure(peers, keys, arguments.rounds, arguments.calls)
            for call, by_peer in times.items():
                ours, theirs = by_peer["weir"], by_peer.get("limits")
                ratio = middle(theirs)[1] / middle(ours)[1] if theirs else None
                print(
                    f"{strategy:23} {call:17} {count:7}  {show(ours)}  "
                    + (f"{show(theirs)}  {ratio:5.1f}x" if theirs else f"{'-':>26}"),
                    flush=True,
                )
                results.append(
                    {
                        "strategy": strategy,
                        "call": call,
                        "keys": count,
                        "weir_ns": middle(ours),
                        "limits_ns": middle(theirs) if theirs else None,
                        "ratio": ratio,
                    }
                )
            peers.clear()
    return results


# ---------------------------------------------------------------------------------------- memory

#: name: strategy, keys, hits of each, seconds in which they come
WORKLOADS = {
    "fixed window, 1,000,000 keys": ("fixed-window", 1_000_000, 1, 0),
    "moving window, 100 hits a minute": ("moving-window", 20_000, 100, 60),
    "moving window, 100 hits an hour": ("moving-window", 20_000, 100, 3600),
}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bytes_per_key(package: str, strategy: str, count: int, hits: int, seconds: int) -> float:
    """Fills a storage; runs in a separate process."""
    now = 1_700_000_000.0
    time.time = lambda: now
    chance = random.Random(1)
    mean = seconds / hits / count
    peer: Peer
    if package == "limits":
        gc.collect()
        before = resident()
        peer = Peer(limits, strategy, limits.storage.MemoryStorage())
    else:
        keys = count * 6 // 5 if count > 100_000 else count * 3 // 2
        uri = f"memory://?keys={keys}&hits={count * hits * 2}"
        peer = Peer(weir, strategy, weir.Table(uri))
    for _ in repeat(None, hits):
        for n in range(count):
            now += chance.expovariate(1 / mean) if mean else 0
            peer.limiter.hit(peer.item, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    if package == "limits":
        gc.collect()
        return (resident() - before) / count
    info = peer.storage.info()
    if info["evictions"] > count // 10_000:
        raise SystemExit(f"the table was too small: {info}")
    return float(info["bytes"] - 64 * (info["lines_max"] - info["lines_used"])) / count


def memory() -> list[dict[str, Any]]:
    print(f"\n{'bytes per key':33} {'weir':>8} {'limits':>8}   share")
    results = []
    for name, workload in WORKLOADS.items():
        sizes = {}
        for package in ("weir", "limits"):
            command = [sys.executable, __file__, "--fill", package, *map(str, workload)]
            sizes[package] = float(subprocess.check_output(command))
        share = sizes["limits"] / sizes["weir"]
        print(f"{name:33} {sizes['weir']:8.0f} {sizes['limits']:8.0f}   1/{share:.1f}", flush=True)
        results.append({"workload": name, **sizes})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=5000, help="calls of each round")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", action="store_true", help="a line of JSON at the end")
    parser.add_argument("--fill", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        package, strategy, *numbers = arguments.fill
        print(bytes_per_key(package, strategy, *map(int, numbers)), flush=True)
        os._exit(0)  # not to wait for limits' thread
    print(__doc__.partition("Usage:")[0])
    print(f"weir {weir.__version__}, limits {version('limits')}; the limit: {LIMIT}")
    results = {"speed": speed(arguments), "memory": [] if arguments.no_memory else memory()}
    if arguments.json:
        print(json.dumps(results))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
