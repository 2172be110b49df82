"""Processes that an application starts: together they admit the limit, or Weir warns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from servers import process
from servers.isolation import SHM

MADE = {
    "at import": "limiter = make()\ndef get(): return limiter",
    "lazily": "def get():\n    global limiter\n    limiter = limiter or make()\n    return limiter",
}

LIMITER = """
import os, pathlib, time
import weir

def make():
    store = weir.storage.storage_from_string(os.environ.get("STORE", "auto://?keys=64"))
    return weir.RateLimiter(store, "fixed-window")

limiter = None
{made}

def hit(key="a"):
    return get().hit(weir.parse("10/day"), key)
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a command in the test's folder; ends it, and removes its tables."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*command: str, **env: str) -> subprocess.Popen[bytes]:
        started.append(process.launch(command, tmp_path / "log", env, cwd=tmp_path))
        return started[-1]

    yield run
    for each in started:
        process.end(each)
        for table in SHM.glob(f"weir.auto-*/*-{each.pid}-*"):
            table.unlink()


# -------------------------------------------------------------------------------------- Celery

CELERY = (
    LIMITER
    + """
import celery

app = celery.Celery("tasks", broker="filesystem://", backend="file://" + os.getcwd() + "/results")
app.conf.broker_transport_options = dict.fromkeys(
    ("data_folder_in", "data_folder_out"), os.getcwd() + "/queue"
) | {{"control_folder": os.getcwd() + "/control"}}
app.conf.worker_hijack_root_logger = False

@app.task
def ask(number):
    # Each child answers at least once: none goes on before all four have begun.
    pathlib.Path("pids", str(os.getpid())).touch()
    deadline = time.monotonic() + 120
    while len(os.listdir("pids")) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.getpid(), hit(), get().storage.uri
"""
)

CLIENT = """
import json, tasks
waiting = [tasks.ask.delay(number) for number in range(40)]
print(json.dumps([each.get(timeout=240) for each in waiting]))
"""


@pytest.mark.skipif(not find_spec("celery"), reason="celery is not installed")
@pytest.mark.parametrize("made", MADE)
def test_children_of_celery_admit_the_limit(
    run: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, made: str
) -> None:
    for folder in ("queue", "control", "results", "pids"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tasks.py").write_text(CELERY.format(made=MADE[made]))
    worker = run(
        *(sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool", "prefork"),
        *("--concurrency", "4", "-O", "fair", "--loglevel", "INFO", "--without-gossip"),
        *("--without-mingle", "--without-heartbeat"),
    )
    log = tmp_path / "log"
    process.wait_until(lambda: " ready." in log.read_text(), worker, log)
    client = subprocess.run(
        [sys.executable, "-c", CLIENT], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert client.returncode == 0, client.stderr + log.read_text()
    answers = json.loads(client.stdout)
    assert len({pid for pid, _, _ in answers}) == 4, log.read_text()
    assert worker.pid not in {pid for pid, _, _ in answers}
    assert sum(admitted for _, admitted, _ in answers) == 10, answers
    assert len({uri for _, _, uri in answers}) == 1
