"""Workers whose master is killed while they import the application."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from servers import process
from servers.isolation import SHM
from servers.limited import Start
from servers.ports import free_port, wait_for

#: Opens its store when the file "go" exists, and reports it.
APP = """
import os, pathlib, threading, time

def wait_for_file(name):
    deadline = time.monotonic() + 240
    while not os.path.exists(name) and time.monotonic() < deadline:
        time.sleep(0.01)

def note(folder, text):
    path = pathlib.Path(folder, f"{os.getpid()}.new")
    path.write_text(text)
    path.rename(path.with_suffix(""))

note("importing", str(os.getppid()))
wait_for_file("go")

def make():
    import weir
    global store
    store = weir.storage.storage_from_string("auto://?keys=64")
    note("stores", f"{os.getppid()} {store.uri}")

if "LAZY" in os.environ:
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
else:
    make()
wait_for_file("end")

def app(environ, start_response):
    start_response("204 No Content", [])
    return []
"""

#: Adopts the orphans. It is also the parent of the server, which is a fork of it.
REAPER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
if os.fork() == 0:
    from gunicorn.app.wsgiapp import run
    sys.argv = ["gunicorn", *sys.argv[1:]]
    run()
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""

GUNICORN = ["-w", "2", "-b", "127.0.0.1:{port}", "--no-control-socket", "served:app"]
UWSGI = [str(Path(sys.executable).with_name("uwsgi")), "--http-socket", "127.0.0.1:{port}"]
UWSGI += ["--processes", "3", "--lazy-apps", "--enable-threads", "--module", "served:app"]

SERVERS = {
    "gunicorn": [sys.executable, "-m", "gunicorn", *GUNICORN],
    "gunicorn under a forking reaper": [sys.executable, "reaper.py", *GUNICORN],
    "uvicorn": [*(sys.executable, "-m", "uvicorn", "--workers", "2"),
                *("--timeout-worker-healthcheck", "120"),
                *("--interface", "wsgi", "--port", "{port}", "served:app")],
    "hypercorn": [*(sys.executable, "-m", "hypercorn", "-w", "2"),
                  *("-b", "127.0.0.1:{port}", "wsgi:served:app")],
    "granian": [*(sys.executable, "-m", "granian", "--interface", "wsgi", "--workers", "2"),
                *("--host", "127.0.0.1", "--port", "{port}", "served:app")],
    "uwsgi": [*UWSGI, "--master"],
    "uwsgi without a master": UWSGI,
}  # fmt: skip
MODULES = {"uwsgi": "pyuwsgi"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name in ("importing", "stores"):
        (tmp_path / name).mkdir()
    (tmp_path / "served.py").write_text(APP)
    (tmp_path / "reaper.py").write_text(REAPER)
    yield tmp_path
    for pid in (int(path.name) for path in (tmp_path / "importing").iterdir()):
        for table in SHM.glob(f"weir.auto-*/*-{pid}-*"):
            table.unlink()


def notes(folder: Path) -> dict[int, str]:
    return {int(p.name): p.read_text() for p in folder.iterdir() if not p.suffix}


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("lazy", [{}, {"LAZY": "1"}], ids=["", "thread"])
@pytest.mark.parametrize("name", SERVERS)
def test_an_orphan_takes_no_other_process_for_its_server(
    start: Start, folder: Path, name: str, lazy: dict[str, str]
) -> None:
    module = name.partition(" ")[0]
    if not find_spec(MODULES.get(module, module)):
        pytest.skip(f"{module} is not installed")
    log = folder / "log"
    command = [word.format(port=free_port()) for word in SERVERS[name]]
    server = process.launch(command, log, lazy, cwd=folder)
    try:
        count = 3 if module == "uwsgi" else 2
        process.wait_until(lambda: len(notes(folder / "importing")) >= count, server, log)
        parents = {int(text) for text in notes(folder / "importing").values()}
        workers = set(notes(folder / "importing"))
        # Without a master, the first of uWSGI's workers is the parent of the others.
        master = server.pid if server.pid in workers else min(parents)
        orphans = workers - {master}
        os.kill(master, signal.SIGKILL)
        if master == server.pid:
            server.wait(process.PATIENCE)
        wait_for(lambda: not runs(master))
        (folder / "go").touch()
        wait_for(
            lambda: orphans <= set(notes(folder / "stores")) | {p for p in orphans if not runs(p)}
        )
        stores = {pid: text for pid, text in notes(folder / "stores").items() if pid in orphans}
        assert stores, log.read_text()
        for text in stores.values():
            uri = text.split()[1]
            assert uri == "memory://?keys=64" or f"-{master}-" in uri, (master, stores)
    finally:
        (folder / "end").touch()
        process.end(server)
    wait_for(lambda: not any(map(runs, workers)))
    start()  # the next server removes their tables
    assert not list(SHM.glob(f"weir.auto-*/*-{master}-*"))
