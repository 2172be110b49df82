"""Processes that record each admitted hit, while something happens to the servers.

Every 100 ms all processes turn to a new key, and now and then back to earlier ones. A server that
forgets, or a client that asks the wrong one, shows as a key that was admitted more often than its
limit. WEIR_SECONDS: how long each run lasts. The numbers of each run are printed.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

AMOUNT = 20
SECONDS = float(os.environ.get("WEIR_SECONDS", "6"))
SEED = int(os.environ.get("WEIR_SEED") or random.randrange(2**32))

WORKER = f"""
import os, random, sys, time
from weir import Limit, StorageError
from weir.storage import storage_from_string
from weir.stores.failover import FailoverStorage

uri, policy, fallback, path, seconds, seed = sys.argv[1:]
chance = random.Random(seed)
store = storage_from_string(uri, remember_denials=0, socket_timeout=0.5)
if policy != "raise":
    store = FailoverStorage(store, policy, fallback)
limits = [
    Limit({AMOUNT}, 1, "day", strategy="moving-window"),
    Limit({AMOUNT}, 2, "day", strategy="fixed-window"),
]
out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
errors = asked = 0
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + float(seconds)
while time.monotonic() < end:
    turn = int(time.time() * 10) - chance.choice([0, 0, 0, 0, 1, 2, 5, 10, 20])
    asked += 1
    try:
        if store.decide(limits, f"key{{turn}}").allowed:
            os.write(out, b"%d\\n" % turn)
    except StorageError:
        errors += 1
        time.sleep(0.01)
print(asked, errors, flush=True)
os._exit(0)
"""


class Run:
    """What processes recorded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.workers: list[subprocess.Popen[str]] = []
        self.admitted: Counter[int] = Counter()
        self.asked = self.errors = 0

    def add(self, uri: str, policy: str = "raise", fallback: str = "memory://") -> None:
        seed = f"{SEED} {len(self.workers)}"
        self.workers.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, uri, policy, fallback, str(self.path),
                 str(SECONDS), seed],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )  # fmt: skip

    def start(self) -> None:
        for worker in self.workers:
            assert worker.stdout
            assert worker.stdout.readline() == "ready\n"
        for worker in self.workers:
            assert worker.stdin
            worker.stdin.write("\n")
            worker.stdin.flush()

    def finish(self) -> None:
        for worker in self.workers:
            said, _ = worker.communicate(timeout=60 + 4 * SECONDS)
            assert worker.returncode == 0
            asked, errors = map(int, said.split())
            self.asked += asked
            self.errors += errors
        self.admitted = Counter(map(int, self.path.read_text().split()))

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
            f"{name}: seed {SEED}, {self.asked} asked, {self.errors} errors, "
            f"{sum(self.admitted.values())} admitted of {len(self.admitted)} keys, most of one key "
            f"{max(self.admitted.values())} of {AMOUNT}, {len(over)} keys beyond it"
        )

    def check(self, times: int = 1) -> None:
        """No key was admitted more often than ``times`` its limit, and the keys were used up."""
        assert max(self.admitted.values()) <= AMOUNT * times, self.admitted
        full = sum(count >= AMOUNT for count in self.admitted.values())
        assert full >= 3, "the processes did not ask often enough to prove anything"
        last = max(self.admitted)
        assert last >= int(time.time() * 10) - 100 * SECONDS, "nothing was admitted at the end"


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    run = Run(tmp_path / "admitted")
    yield run
    run.stop()
    if run.admitted:
        run.report(request.node.name)


def third() -> None:
    """A third of the run. The processes ask meanwhile; nothing can be waited for."""
    time.sleep(SECONDS / 3)


@pytest.fixture
def server(tmp_path: Path, server_kind: Any) -> Iterator[Any]:
    """One that writes every hit down before it answers."""
    server = server_kind(
        tmp_path / "server", ["--appendonly", "yes", "--appendfsync", "always"]
    ).start()
    yield server
    server.stop()


def four_workers(run: Run, uri: str, **options: str) -> None:
    for _ in range(4):
        run.add(uri, **options)
    run.start()


# ------------------------------------------------------------------------------------- one server


def test_clients_are_cut_off_and_scripts_forgotten(run: Run, server: Any) -> None:
    four_workers(run, server.uri)
    end = time.monotonic() + SECONDS * 0.8
    with server.client() as client:
        while time.monotonic() < end:
            client.execute_command("CLIENT KILL TYPE normal SKIPME yes")
            client.script_flush()
            time.sleep(0.02)
    run.finish()
    run.check()


def test_a_server_is_frozen_and_woken(run: Run, server: Any) -> None:
    four_workers(run, server.uri)
    third()
    with server.frozen():
        third()
    run.finish()
    run.check()
    assert run.errors


@pytest.mark.parametrize("policy", ["raise", "closed", "local"])
def test_a_server_is_killed_and_started_again(
    run: Run, server: Any, policy: str, tmp_path: Path
) -> None:
    """Under ``local``, this host admits each key as often again by itself."""
    four_workers(run, server.uri, policy=policy, fallback=f"file://{tmp_path}/fallback")
    third()
    server.kill()
    time.sleep(SECONDS / 10)
    server.start()
    run.finish()
    run.check(2 if policy == "local" else 1)


# --------------------------------------------------------------------------------------- Sentinel


@pytest.fixture
def sentinels(make_sentinels: Callable[[], Any]) -> Iterator[Any]:
    sentinels = make_sentinels()
    yield sentinels
    sentinels.stop()


def test_a_master_is_killed(run: Run, sentinels: Any) -> None:
    """What was not replicated yet may be admitted once more by the new master."""
    four_workers(run, sentinels.uri)
    third()
    sentinels.master.kill()
    run.finish()
    run.check(2)


def test_a_master_is_frozen_and_woken(run: Run, sentinels: Any, wait_for: Any) -> None:
    """One process knows only the old master, which counts until it learns that it is none."""
    for _ in range(3):
        run.add(sentinels.uri)
    run.add(sentinels.master.uri)
    run.start()
    third()
    with contextlib.ExitStack() as stack:
        stack.enter_context(sentinels.master.frozen())
        wait_for(lambda: sentinels.master_port() == sentinels.replica.port)
    run.finish()
    run.check(2)


# ---------------------------------------------------------------------------------------- Cluster


@pytest.fixture
def cluster(make_cluster: Callable[[], Any]) -> Iterator[Any]:
    cluster = make_cluster()
    yield cluster
    cluster.stop()


def test_slots_move(run: Run, cluster: Any) -> None:
    four_workers(run, cluster.uri)
    time.sleep(SECONDS / 6)
    ids = []
    for node in cluster.nodes[:2]:
        with node.client() as client:
            ids.append(client.execute_command("CLUSTER MYID").decode())
    command = ["redis-cli", "--cluster", "reshard", f"127.0.0.1:{cluster.nodes[0].port}"]
    command += ["--cluster-from", ids[0], "--cluster-to", ids[1]]
    moved = subprocess.run(
        [*command, "--cluster-slots", "1500", "--cluster-yes"], capture_output=True, text=True
    )
    assert moved.returncode == 0, moved.stdout[-500:] + moved.stderr
    run.finish()
    run.check()


def test_a_node_is_frozen_and_woken(run: Run, cluster: Any) -> None:
    four_workers(run, cluster.uri)
    third()
    with cluster.nodes[1].frozen():
        third()
    run.finish()
    run.check()


@pytest.fixture
def replica(tmp_path: Path, server_kind: Any, cluster: Any, wait_for: Any) -> Iterator[Any]:
    """A replica of the first node."""
    replica = server_kind(tmp_path / "replica", cluster.nodes[0].arguments).start()
    with cluster.nodes[0].client() as master, replica.client() as client:
        mine = master.execute_command("CLUSTER MYID").decode()
        client.execute_command("CLUSTER MEET", "127.0.0.1", cluster.nodes[0].port)
        wait_for(lambda: client.execute_command("CLUSTER INFO")["cluster_known_nodes"] == "4")
        wait_for(lambda: client.execute_command("CLUSTER REPLICATE", mine))
        wait_for(lambda: client.info("replication").get("master_link_status") == "up")
    yield replica
    replica.stop()


def test_a_failover_by_hand(run: Run, cluster: Any, replica: Any, wait_for: Any) -> None:
    """The replica has every hit when it takes over."""
    four_workers(run, cluster.uri)
    third()
    with replica.client() as client:
        wait_for(lambda: client.execute_command("CLUSTER FAILOVER"))
        wait_for(lambda: client.info("replication")["role"] == "master")
    run.finish()
    run.check()


def test_a_node_is_killed(run: Run, cluster: Any, replica: Any) -> None:
    """What was not replicated yet may be admitted once more."""
    four_workers(run, cluster.uri)
    third()
    cluster.nodes[0].kill()
    run.finish()
    run.check(2)
