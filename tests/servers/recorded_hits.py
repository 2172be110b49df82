"""Processes that record each hit that a store admits, while something happens to its servers.

Every 100 ms all processes switch to a new key, and sometimes use an earlier key again. If a server
loses counts, or a client uses the wrong server, a key is admitted more often than its limit.
WEIR_SECONDS: how long each run lasts at least. It lasts longer on a machine that is so busy that no
key is used up. The numbers of each run are printed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from servers.ports import wait_for

AMOUNT = 20
SECONDS = float(os.environ.get("WEIR_SECONDS", "6"))
SEED = int(os.environ.get("WEIR_SEED") or random.randrange(2**32))

WORKER = f"""
import os, random, select, sys, time
from weir import Limit, StorageError
from weir.storage import storage_from_string
from weir.stores.failover import FailoverStorage

uri, policy, fallback, path, seed = sys.argv[1:]
chance = random.Random(seed)
store = storage_from_string(uri, remember_denials=0, socket_timeout=0.5)
if policy != "raise":
    store = FailoverStorage(store, policy, fallback)
limits = [
    Limit({AMOUNT}, 1, "day", strategy="moving-window"),
    Limit({AMOUNT}, 2, "day", strategy="fixed-window"),
]
out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
errors = calls = 0
print("ready", flush=True)
sys.stdin.readline()
while not select.select([sys.stdin], [], [], 0)[0]:
    turn = int(time.time() * 10) - chance.choice([0, 0, 0, 0, 1, 2, 5, 10, 20])
    calls += 1
    try:
        if store.decide(limits, f"key{{turn}}").allowed:
            os.write(out, b"%d\\n" % turn)
        else:
            time.sleep(0.001)  # nothing to record: the servers and other tests may go on
    except StorageError:
        errors += 1
        time.sleep(0.01)
print(calls, errors, flush=True)
os._exit(0)
"""


class Run:
    """What processes recorded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.workers: list[subprocess.Popen[str]] = []
        self.admitted: Counter[int] = Counter()
        self.calls = self.errors = 0
        self.end = 0.0

    def add(self, uri: str, policy: str = "raise", fallback: str = "memory://") -> None:
        seed = f"{SEED} {len(self.workers)}"
        self.workers.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, uri, policy, fallback, str(self.path), seed],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )

    def start(self) -> None:
        for worker in self.workers:
            assert worker.stdout
            assert worker.stdout.readline() == "ready\n"
        for worker in self.workers:
            assert worker.stdin
            worker.stdin.write("\n")
            worker.stdin.flush()
        self.end = time.monotonic() + SECONDS

    def read(self) -> Counter[int]:
        return Counter(map(int, self.path.read_text().split()))

    def is_enough(self) -> bool:
        full = sum(count >= AMOUNT for count in self.read().values())
        return full >= 3 and time.monotonic() >= self.end

    def finish(self) -> None:
        wait_for(self.is_enough)
        for worker in self.workers:
            output, _ = worker.communicate(timeout=120)  # closes its input, which ends it
            assert worker.returncode == 0
            calls, errors = map(int, output.split())
            self.calls += calls
            self.errors += errors
        self.admitted = self.read()

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe:
                    pipe.close()

    def report(self, name: str) -> None:
        over = {key: count for key, count in self.admitted.items() if count > AMOUNT}
        print(
            f"{name}: seed {SEED}, {self.calls} calls, {self.errors} errors, "
            f"{sum(self.admitted.values())} admitted of {len(self.admitted)} keys, most of one key "
            f"{max(self.admitted.values())} of {AMOUNT}, {len(over)} keys beyond it"
        )

    def check(self, times: int = 1) -> None:
        """No key was admitted more often than ``times`` its limit."""
        assert max(self.admitted.values()) <= AMOUNT * times, self.admitted
        last = max(self.admitted)
        assert last >= int(time.time() * 10) - 100 * SECONDS, "nothing was admitted at the end"


def third() -> None:
    """Sleep for a third of the run. The processes continue; there is no event to wait for."""
    time.sleep(SECONDS / 3)


def four_workers(run: Run, uri: str, **options: str) -> None:
    for _ in range(4):
        run.add(uri, **options)
    run.start()
