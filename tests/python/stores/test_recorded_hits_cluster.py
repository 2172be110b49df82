"""Processes record each admitted hit while a Cluster changes: see servers/recorded_hits.py."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.recorded_hits import SECONDS, Run, four_workers, third

pytestmark = pytest.mark.slow


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
