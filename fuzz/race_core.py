#!/usr/bin/env python3
"""Many threads use the same tables, so that ThreadSanitizer sees the races between them.

The extension releases the GIL where a call may wait, and Python's code is not instrumented: each
race that is found is in the extension or in libweir. Tables are small, so that keys are evicted,
and some are closed while others use them.

    LD_PRELOAD=$(gcc -print-file-name=libtsan.so) TSAN_OPTIONS=halt_on_error=1 python race_core.py

WEIR_SECONDS: how long (default 10). WEIR_SEED: repeats a run; it is printed first.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable

from weir import Limit, RateLimiter, Table, TableError, _core

SECONDS = float(os.environ.get("WEIR_SECONDS", "10"))
SEED = int(os.environ.get("WEIR_SEED", "0")) or random.SystemRandom().getrandbits(32)
THREADS = 6

LIMITS = [Limit(5, 1, "second", strategy=name) for name in sorted(_core.STRATEGIES)]
CODEC = _core.RedisCodec()


class Shared:
    """The tables that all threads use; any of them may replace one."""

    def __init__(self, folder: str) -> None:
        uris = ["memory://?keys=64", f"file://{folder}/table?keys=64&rules=64"]
        self.uris = [*uris, uris[1]]  # the file twice: two tables of one memory
        self.tables = [Table(uri) for uri in self.uris]

    def replace(self, number: int) -> None:
        """Close a table; others may be in the middle of a call."""
        before, self.tables[number] = self.tables[number], Table(self.uris[number])
        before.close()


def actions(table: Table, chance: random.Random) -> list[Callable[[], object]]:
    """The calls to choose from: some release the GIL, others can run at the same time."""
    limits = chance.sample(LIMITS, chance.randint(1, 3))
    client = chance.choice(["a", "b", f"c{chance.randrange(200)}", "10.0.0.1", "2001:db8::1"])
    now = time.time()
    until = now + 1  # ends during the run
    return [
        lambda: table.decide(limits, client),
        lambda: table.decide(limits, client, None, _core.EACH),
        lambda: RateLimiter(table, "moving-window").hit(limits[0], client),
        lambda: table.clear(limits, client),
        lambda: table.peek(limits, client),
        lambda: table.top_clients(),
        lambda: table.counts(),
        lambda: table.register(limits[0], "", ""),
        lambda: table.registry(),
        lambda: table.meter("m", 1),
        lambda: table.raise_meter("n", chance.randrange(99)),
        lambda: table.block(client, until, now),
        lambda: table.allow("10.0.0.0/8", until, now),
        lambda: table.unlist(client),
        lambda: table.rules(),
        lambda: table.rule_of(client),
        lambda: table.load_rules([(client, "block", until)], replace=True),
        lambda: table.ruled(limits, client),
        lambda: table.info(),
        lambda: table.check(),
        lambda: table.verify(),
        lambda: CODEC.decide(limits, client),
        lambda: CODEC.set_clock(time.time()),
    ]


def work(shared: Shared, seed: int, until: float, counts: collections.Counter[str]) -> None:
    """The calls of one thread."""
    chance = random.Random(seed)
    while time.monotonic() < until:
        if chance.random() < 0.002:
            shared.replace(chance.randrange(len(shared.tables)))
        table = chance.choice(shared.tables)
        if chance.random() < 0.002:
            table.reset()
        call = chance.choice(actions(table, chance))
        try:
            call()
        except ValueError as error:  # a closed table
            if not table.closed:
                raise
            counts[str(error)] += 1
        except TableError as error:
            counts[error.code] += 1
        counts["calls"] += 1


def main() -> None:
    """Run the threads; a race ends the process with another exit code."""
    print(f"seed {SEED}", flush=True)
    sys.setswitchinterval(1e-5)
    failed: list[BaseException] = []
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        shared, until = Shared(folder), time.monotonic() + SECONDS

        def run(number: int) -> None:
            try:
                work(shared, SEED + number, until, counts)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for table in shared.tables:
            with contextlib.suppress(ValueError):
                table.close()
    if failed:
        raise failed[0]
    print(f"{THREADS} threads: {dict(counts)}")


if __name__ == "__main__":
    main()
