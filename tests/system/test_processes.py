"""Processes that an application starts: together they admit the limit, or Weir warns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
def send(number):
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
waiting = [tasks.send.delay(number) for number in range(40)]
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


# ------------------------------------------------------------------- processes of a program

#: Starts processes in several ways. Each writes how many of its ten hits were admitted.
CHILDREN = """
import multiprocessing, os, pathlib, time
from concurrent.futures import ProcessPoolExecutor

COUNT = 4

def child(folder, number=0):
    pathlib.Path(folder, f"began-{os.getpid()}").touch()
    deadline = time.monotonic() + 120
    while len(list(pathlib.Path(folder).glob("began-*"))) < COUNT and time.monotonic() < deadline:
        time.sleep(0.01)  # so that each process of a pool has one of the tasks
    admitted = sum(hit() for _ in range(10))
    pathlib.Path(folder, f"admitted-{os.getpid()}").write_text(str(admitted))

def fork(body, *arguments):
    pid = os.fork()
    if pid == 0:
        try:
            body(*arguments)
        finally:
            os._exit(0)
    return pid

def forks(folder):
    for pid in [fork(child, folder) for _ in range(COUNT)]:
        os.waitpid(pid, 0)

def two(folder):
    for pid in [fork(child, folder) for _ in range(2)]:
        os.waitpid(pid, 0)

def forks_of_forks(folder):
    for pid in [fork(two, folder) for _ in range(2)]:
        os.waitpid(pid, 0)

def processes(folder, method):
    make = multiprocessing.get_context(method).Process
    started = [make(target=child, args=(folder,)) for _ in range(COUNT)]
    for each in started:
        each.start()
    for each in started:
        each.join()

def pool(folder, method):
    started = multiprocessing.get_context(method).Pool(COUNT)
    started.starmap(child, [(folder, n) for n in range(COUNT)], chunksize=1)
    started.close()  # not terminate(): forks of a worker of gunicorn ignore its signal
    started.join()

def executor(folder, method):
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(COUNT, mp_context=context) as started:
        list(started.map(child, [folder] * COUNT))

def run(folder, way):
    way, _, method = way.partition(" ")
    globals()[way](folder, *([method] if method else []))
"""

WAYS = [
    "forks",
    "forks_of_forks",
    *(
        f"{way} {method}"
        for way in ("processes", "pool", "executor")
        for method in ("fork", "forkserver", "spawn")
    ),
]

SCRIPT = """
import sys
import work

if __name__ == "__main__":
    work.run(sys.argv[1], sys.argv[2])
    if len(sys.argv) > 3:
        print(sum(work.hit() for _ in range(10)))
"""

APP = """
import work

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["QUERY_STRING"]:
        work.run(environ["PATH_INFO"], environ["QUERY_STRING"].replace("+", " "))
    if environ["PATH_INFO"] != "/hit":
        return [b"here"]
    return [str(sum(work.hit() for _ in range(10))).encode()]
"""


def admitted_in(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.glob("admitted-*")]


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("way", WAYS)
def test_processes_of_a_script_share_or_it_warns(
    run: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, way: str, made: str
) -> None:
    (tmp_path / "work.py").write_text(LIMITER.format(made=MADE[made]) + CHILDREN)
    (tmp_path / "script.py").write_text(SCRIPT)
    folder = tmp_path / "answers"
    folder.mkdir()
    script = run(sys.executable, "script.py", str(folder), way, "and itself")
    assert script.wait(300) == 0, (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    children = admitted_in(folder)
    assert len(children) == 4, log
    itself = int(log.splitlines()[-1])
    warned = "Each process counts limits separately" in log
    assert sum(children) == 10, (children, itself, log)
    assert itself == 0 or warned, (children, itself, log)


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("way", WAYS)
def test_processes_of_a_worker_share_with_the_server(
    serve: Callable[..., Any], tmp_path: Path, way: str, made: str
) -> None:
    (tmp_path / "work.py").write_text(LIMITER.format(made=MADE[made]) + CHILDREN)
    folder = tmp_path / "answers"
    folder.mkdir()
    server = serve(APP, "--timeout", "300", workers=2)
    assert server.send(f"{folder}?{way.replace(' ', '+')}")[0] == 200
    children = admitted_in(folder)
    assert len(children) == 4, server.log.read_text()
    counts = [int(server.send("/hit")[1]) for _ in range(4)]
    assert sum(children) == 10, (children, server.log.read_text())
    assert counts == [0, 0, 0, 0], (counts, server.log.read_text())
