"""Real servers: all workers together admit exactly the limit.

The application names no storage (``auto://``), or names one (``shm://``). Each round
uses a new key: 400 requests of 8 clients at once, of which exactly 100 may pass.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

from servers.isolation import SHM
from servers.limited import ASGI, FLASK, LIMIT, REQUESTS, WSGI, Server, Start, check_rounds, fresh
from servers.ports import free_port, wait_for
from servers.process import PATIENCE

PRELOAD = pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
STORES = pytest.mark.parametrize("store", ["auto://", "shm://{name}"], ids=["auto", "shm"])
WORKERS = pytest.mark.parametrize(
    "workers", [[], ["-k", "gthread", "--threads", "4"]], ids=["sync", "gthread"]
)


@pytest.mark.slow
@WORKERS
@STORES
@PRELOAD
def test_exactly_the_limit(
    start: Start, workers: list[str], store: str, preload: list[str]
) -> None:
    server = start(*workers, *preload, store=store)
    check_rounds(server)
    if store == "auto://":
        assert f"-{server.process.pid}-" in server.store(), "scoped to the arbiter"


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("weir.flask"), reason="weir.flask is not there")
@WORKERS
@PRELOAD
def test_exactly_the_limit_of_a_flask_application(
    start: Start, workers: list[str], preload: list[str]
) -> None:
    check_rounds(start(*workers, *preload, app=FLASK))


@STORES
@PRELOAD
def test_a_worker_killed_and_replaced(start: Start, store: str, preload: list[str]) -> None:
    server = start(*preload, store=store)
    for _ in range(3):
        path = fresh()
        first = server.hammer(path, 60)
        assert first == {200: 60}
        victims = server.workers(2)
        os.kill(victims[0], signal.SIGKILL)
        wait_for(lambda: victims[0] not in server.workers(2))  # noqa: B023
        second = server.hammer(path, REQUESTS - 60)
        assert second == {200: LIMIT - 60, 429: REQUESTS - LIMIT}


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@PRELOAD
def test_workers_killed_under_load_lose_only_their_own_requests(
    start: Start, preload: list[str]
) -> None:
    server = start(*preload)
    for _ in range(3):
        path = fresh()
        victims = server.workers(2)
        killer = threading.Timer(0.05, kill, victims)
        killer.start()
        counts = server.hammer(path)
        killer.join()
        assert counts[200] <= LIMIT
        assert counts[200] + counts["lost"] >= LIMIT
        # The table works after workers died in the middle of decisions.
        assert server.hammer(path, 100)[200] == max(0, LIMIT - counts[200] - counts["lost"])


def test_a_reload_keeps_the_counters(start: Start) -> None:
    server = start()
    path = fresh()
    assert server.hammer(path, 60) == {200: 60}
    old = set(server.workers(2))
    store = server.store()
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: not old & set(server.workers(2)))
    assert server.store() == store
    assert server.hammer(path) == {200: LIMIT - 60, 429: REQUESTS - LIMIT + 60}


@PRELOAD
def test_a_storage_made_in_a_thread_at_the_first_request(start: Start, preload: list[str]) -> None:
    server = start(*preload, env={"LAZY": "1"})
    check_rounds(server, 3)
    assert f"-{server.process.pid}-" in server.store()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@PRELOAD
def test_the_next_server_removes_the_table_of_the_last(
    start: Start, how: int, preload: list[str]
) -> None:
    first = start(*preload)
    path = SHM / first.store().replace("shm://", "weir.")
    assert path.exists()
    first.stop(how)
    second = start(*preload)
    assert not path.exists()
    assert (SHM / second.store().replace("shm://", "weir.")).exists()


def test_two_servers_at_once_share_nothing(start: Start) -> None:
    first, second = start(), start()
    assert first.store() != second.store()
    path = fresh()
    assert first.hammer(path)[200] == LIMIT
    assert second.hammer(path)[200] == LIMIT
    assert first.get(path)[0] == 429, "starting the second removed the table of the first"


def test_a_daemon(start: Start, tmp_path: Path) -> None:
    """Its arbiter is a child of init."""
    pidfile = tmp_path / "pid"
    port = free_port()
    (tmp_path / "served.py").write_text(WSGI)
    command = [sys.executable, "-m", "gunicorn", "-w", "4", "-b", f"127.0.0.1:{port}", "-D"]
    command += ["-p", str(pidfile), "--no-control-socket", "--chdir", str(tmp_path), "served:app"]
    subprocess.run(command, env={**os.environ, "STORE": "auto://"}, check=True)
    server = Server(None, port, tmp_path / "none")  # type: ignore[arg-type]
    wait_for(lambda: server.get(fresh()))
    arbiter = int(pidfile.read_text())
    try:
        assert f"-{arbiter}-" in server.store()
        for _ in range(3):
            assert server.hammer(fresh()) == {200: LIMIT, 429: REQUESTS - LIMIT}
    finally:
        path = SHM / server.store().replace("shm://", "weir.")
        os.kill(arbiter, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{arbiter}").exists())
        path.unlink()


def test_an_asgi_application(start: Start) -> None:
    check_rounds(start("-k", "asgi", app=ASGI), 3)


@pytest.mark.skipif(not find_spec("gevent"), reason="gevent is not installed")
@PRELOAD
def test_gevent_workers(start: Start, preload: list[str]) -> None:
    check_rounds(start("-k", "gevent", *preload), 3)


@pytest.mark.skipif(not find_spec("uvicorn_worker"), reason="uvicorn-worker is not installed")
@PRELOAD
def test_uvicorn_workers(start: Start, preload: list[str]) -> None:
    check_rounds(start("-k", "uvicorn_worker.UvicornWorker", *preload, app=ASGI), 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("lazy", [False, True], ids=["", "lazy"])
def test_workers_of_another_user_than_the_arbiter(start: Start, lazy: bool) -> None:
    """The table is made by root before the fork, or by the workers' user."""
    if any(not folder.stat().st_mode & 0o001 for folder in Path(sys.prefix).resolve().parents):
        pytest.skip(f"another user cannot read {sys.prefix}")
    user = ["--user", "65534", "--group", str(os.getegid())]
    server = start("--preload", *user, env={"LAZY": "1"} if lazy else {})
    check_rounds(server, 3)
    owner = (SHM / server.store().replace("shm://", "weir.")).stat().st_uid
    assert owner == (65534 if lazy else 0)


def parents(server: Server) -> set[str]:
    """The arbiters of the workers that answer, in the format of a pid file."""
    return {
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] + "\n"
        for pid in server.workers(2)
    }


def test_old_and_new_arbiter_share_after_usr2(start: Start, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    command = [sys.executable, "-m", "gunicorn", "-w", "4", "-b", "127.0.0.1:{port}"]
    command += ["--no-control-socket", "--pid", str(pidfile), "served:app"]
    server = start(command=command)  # gunicorn opens the socket, so that it can pass it on
    path = fresh()
    assert server.hammer(path, 60) == {200: 60}
    os.kill(server.process.pid, signal.SIGUSR2)
    successor = pidfile.with_name("pid.2")
    wait_for(lambda: successor.exists() and successor.read_text() in parents(server))
    second = int(successor.read_text())
    assert server.hammer(path)[200] == LIMIT - 60
    try:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(PATIENCE)
        assert server.hammer(path, 50) == {429: 50}, "the new arbiter does not use the same table"
    finally:
        os.kill(second, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{second}").exists())
        for left in SHM.glob(f"weir.auto-*/*-{second}-*"):
            left.unlink()
