"""Real servers: all workers together admit exactly the limit.

The application says nothing about a storage (``auto://``), or names one (``shm://``). Each round
uses a key nobody has used before: 400 requests of 8 clients at once, of which exactly 100 may pass.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

LIMIT = 100
CLIENTS = 8
REQUESTS = 400
ROUNDS = 20
SHM = Path("/dev/shm")

#: Answers 200 or 429; the body tells who answered and from which store.
WSGI = """
import os, threading
import weir

LIMIT = weir.parse("100/day")
STORE = os.environ["STORE"]
lock = threading.Lock()
limiter = None

def make():
    global limiter
    with lock:
        if limiter is None:
            store = weir.storage.storage_from_string(STORE)
            limiter = weir.strategies.FixedWindowRateLimiter(store)

if "LAZY" in os.environ:  # in a thread of the application's own, at the first request
    def prepare():
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
else:
    make()
    def prepare():
        pass

def app(environ, start_response):
    prepare()
    allowed = limiter.hit(LIMIT, environ["PATH_INFO"])
    body = f"{os.getpid()} {limiter.storage.uri} {limiter.storage.namespace}".encode()
    start_response("200 OK" if allowed else "429 Too Many Requests",
                   [("Content-Length", str(len(body)))])
    return [body]
"""

ASGI = (
    WSGI.replace("def app(environ, start_response):", "def answer(path):")
    .replace('environ["PATH_INFO"]', "path")
    .partition("    start_response(")[0]
    + """
    return (200 if allowed else 429), body

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    status, body = answer(scope["path"])
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
)

FLASK = """
import os
from flask import Flask
from weir.flask import Limiter

app = Flask(__name__)
options = {"storage_uri": os.environ["STORE"]} if os.environ["STORE"] != "auto://" else {}
limiter = Limiter(lambda: "everybody", app=app, default_limits=["1000000/day"], **options)

@app.route("/<path:key>")
@limiter.limit("100/day", key_func=lambda: __import__("flask").request.path)
def answer(key):
    return f"{os.getpid()} {limiter.storage.uri} {limiter.storage.namespace}"

@app.errorhandler(429)
def refuse(error):
    return f"{os.getpid()} {limiter.storage.uri} {limiter.storage.namespace}", 429
"""


class Server:
    """A running server and a client of it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def hammer(self, path: str, requests: int = REQUESTS) -> collections.Counter[int | str]:
        """How often which status; ``"lost"``: the connection broke."""
        counts: collections.Counter[int | str] = collections.Counter()
        left = iter(range(requests))
        lock = threading.Lock()

        def client() -> None:
            while True:
                with lock:
                    if next(left, None) is None:
                        return
                try:
                    status: int | str = self.get(path)[0]
                except (OSError, http.client.HTTPException):
                    status = "lost"
                with lock:
                    counts[status] += 1

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return counts

    def workers(self, at_least: int = 2) -> list[int]:
        """The processes that answer, once there are as many."""
        pids: set[int] = set()
        deadline = time.monotonic() + 60
        while len(pids) < at_least and time.monotonic() < deadline:
            pids.add(int(self.get(fresh())[1].split()[0]))
        assert len(pids) >= at_least, self.log.read_text()
        return sorted(pids)

    def store(self) -> str:
        return self.get(fresh())[1].split()[1]

    def stop(self, how: int = signal.SIGTERM) -> None:
        with contextlib.suppress(ProcessLookupError):
            if how == signal.SIGKILL:
                os.killpg(self.process.pid, how)
            else:
                self.process.send_signal(how)
        self.process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def fresh() -> str:
    return f"/{uuid.uuid4()}"


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``gunicorn -w 4 …``; what was started is stopped and its tables are removed."""
    servers: list[Server] = []
    name = f"test-{uuid.uuid4()}"

    def start(
        *options: str,
        app: str = WSGI,
        store: str = "auto://",
        command: list[str] | None = None,
        env: dict[str, str] | None = None,
    ) -> Server:
        (tmp_path / "served.py").write_text(app)
        log = tmp_path / f"log-{len(servers)}"
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            if command is None:
                listener.listen(256)
                bind = f"fd://{listener.fileno()}"
                arguments = [sys.executable, "-m", "gunicorn", "-w", "4", "-b", bind, *options]
                arguments += ["--no-control-socket", "--graceful-timeout", "3", "served:app"]
                passed: tuple[int, ...] = (listener.fileno(),)
            else:
                listener.close()
                arguments = [word.format(port=port) for word in command] + list(options)
                passed = ()
            with log.open("wb") as output:
                process = subprocess.Popen(
                    arguments,
                    cwd=tmp_path,
                    env={**os.environ, "STORE": store.format(name=name), **(env or {})},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=passed,
                    start_new_session=True,
                )
        server = Server(process, port, log)
        servers.append(server)
        deadline = time.monotonic() + 120
        while True:
            try:
                assert server.get(fresh())[0] == 200, log.read_text()
                return server
            except (OSError, http.client.HTTPException):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)

    yield start
    for server in servers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.stop(signal.SIGTERM)
        server.stop(signal.SIGKILL)
        for path in SHM.glob(f"weir.auto-*/*-{server.process.pid}-*"):
            path.unlink()
    (SHM / f"weir.{name}").unlink(missing_ok=True)


def check_rounds(server: Server, rounds: int = ROUNDS) -> None:
    assert "Warning" not in server.log.read_text()
    for number in range(rounds):
        counts = server.hammer(fresh())
        assert counts == {200: LIMIT, 429: REQUESTS - LIMIT}, f"round {number}"


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
        replaced = {victims[0]}
        while replaced & set(server.workers(2)):
            time.sleep(0.05)
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
        # Whoever died in the middle of a decision, the table goes on.
        assert server.hammer(path, 100)[200] == max(0, LIMIT - counts[200] - counts["lost"])


def test_a_reload_keeps_the_counters(start: Start) -> None:
    server = start()
    path = fresh()
    assert server.hammer(path, 60) == {200: 60}
    old = set(server.workers(2))
    store = server.store()
    server.process.send_signal(signal.SIGHUP)
    while old & set(server.workers(2)):
        time.sleep(0.05)
    assert server.store() == store
    assert server.hammer(path) == {200: LIMIT - 60, 429: REQUESTS - LIMIT + 60}


@PRELOAD
def test_a_storage_made_in_a_thread_at_the_first_request(start: Start, preload: list[str]) -> None:
    server = start(*preload, env={"LAZY": "1"})
    check_rounds(server, 3)
    assert f"-{server.process.pid}-" in server.store()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@PRELOAD
def test_the_next_server_removes_what_the_last_has_left(
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
    assert first.get(path)[0] == 429, "starting the second has not removed the table of the first"


def test_a_daemon(start: Start, tmp_path: Path) -> None:
    """Its arbiter is a child of init."""
    pidfile = tmp_path / "pid"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    (tmp_path / "served.py").write_text(WSGI)
    command = [sys.executable, "-m", "gunicorn", "-w", "4", "-b", f"127.0.0.1:{port}", "-D"]
    command += ["-p", str(pidfile), "--no-control-socket", "--chdir", str(tmp_path), "served:app"]
    subprocess.run(command, env={**os.environ, "STORE": "auto://"}, check=True)
    server = Server(None, port, tmp_path / "none")  # type: ignore[arg-type]
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            server.get(fresh())
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    arbiter = int(pidfile.read_text())
    try:
        assert f"-{arbiter}-" in server.store()
        for _ in range(3):
            assert server.hammer(fresh()) == {200: LIMIT, 429: REQUESTS - LIMIT}
    finally:
        path = SHM / server.store().replace("shm://", "weir.")
        os.kill(arbiter, signal.SIGTERM)
        while Path(f"/proc/{arbiter}").exists():
            time.sleep(0.05)
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


# ---------------------------------------------------------------------------------- other servers


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not find_spec(module), reason=f"{module} is not installed")


UWSGI = Path(sys.executable).with_name("uwsgi")


@pytest.mark.skipif(not UWSGI.exists(), reason="uWSGI is not installed")
@pytest.mark.parametrize("master", [[], ["--master"]], ids=["", "master"])
@pytest.mark.parametrize("lazy", [[], ["--lazy-apps"]], ids=["", "lazy"])
@pytest.mark.parametrize("env", [{}, {"LAZY": "1"}], ids=["", "thread"])
def test_uwsgi(start: Start, master: list[str], lazy: list[str], env: dict[str, str]) -> None:
    command = [str(UWSGI), "--http-socket", "127.0.0.1:{port}", "--processes", "4"]
    command += ["--enable-threads", "--die-on-term", "--listen", "64", "--module", "served:app"]
    server = start(*master, *lazy, command=command, env=env)
    for _ in range(3):
        assert server.hammer(fresh()) == {200: LIMIT, 429: REQUESTS - LIMIT}
    server.workers(2)


@needs("uvicorn")
def test_uvicorn(start: Start) -> None:
    command = [sys.executable, "-m", "uvicorn", "--workers", "4", "--port", "{port}", "served:app"]
    check_rounds(start(command=command, app=ASGI), 3)


@needs("hypercorn")
def test_hypercorn(start: Start) -> None:
    command = [sys.executable, "-m", "hypercorn", "-w", "4", "-b", "127.0.0.1:{port}", "served:app"]
    check_rounds(start(command=command, app=ASGI), 3)


@needs("granian")
def test_granian(start: Start) -> None:
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--workers", "4"]
    command += ["--no-ws", "--port", "{port}", "served:app"]
    server = start(command=command, app=ASGI)
    for _ in range(3):
        assert server.hammer(fresh()) == {200: LIMIT, 429: REQUESTS - LIMIT}


RUN_SIMPLE = """
import served
from werkzeug.serving import run_simple
run_simple("127.0.0.1", {port}, served.app%s)
"""


@needs("werkzeug")
@pytest.mark.parametrize("app", [WSGI, FLASK], ids=["wsgi", "flask"])
def test_werkzeug_with_several_processes_shares(start: Start, app: str) -> None:
    server = start(command=[sys.executable, "-c", RUN_SIMPLE % ", processes=4"], app=app)
    check_rounds(server, 3)


@needs("uvicorn")
@pytest.mark.parametrize("module", ["uvicorn", "hypercorn"])
def test_a_limiter_made_at_the_first_request(start: Start, module: str) -> None:
    """In a thread of the application, which knows nothing of the server."""
    where = ["--port", "{port}"] if module == "uvicorn" else ["-b", "127.0.0.1:{port}"]
    workers = ["--workers", "4"]
    command = [sys.executable, "-m", module, *workers, *where, "served:app"]
    check_rounds(start(command=command, app=ASGI, env={"LAZY": "1"}), 3)


SUPERVISOR = """
import multiprocessing, sys, uvicorn

def serve(module, port):
    uvicorn.run(f"{module}:app", port=port, log_level="warning")

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ports = [int(port) for port in sys.argv[1:]]
    children = [context.Process(target=serve, args=pair) for pair in zip(("served", "bank"), ports)]
    for child in children:
        child.start()
    for child in children:
        child.join()
"""


@needs("uvicorn")
def test_two_applications_under_one_supervisor_share_nothing(start: Start, tmp_path: Path) -> None:
    (tmp_path / "bank.py").write_text(ASGI)
    (tmp_path / "supervisor.py").write_text(SUPERVISOR)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "supervisor.py", "{port}", str(port)]
    shop = start(command=command, app=ASGI)
    bank = Server(shop.process, port, shop.log)
    path = fresh()
    assert shop.hammer(path)[200] == LIMIT
    assert bank.hammer(path)[200] == LIMIT


def parents(server: Server) -> set[str]:
    """The arbiters of the workers that answer, as a file of a pid has them."""
    return {
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] + "\n"
        for pid in server.workers(2)
    }


def test_old_and_new_arbiter_share_after_usr2(start: Start, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    command = [sys.executable, "-m", "gunicorn", "-w", "4", "-b", "127.0.0.1:{port}"]
    command += ["--no-control-socket", "--pid", str(pidfile), "served:app"]
    server = start(command=command)  # a socket of its own, which it can hand on
    path = fresh()
    assert server.hammer(path, 60) == {200: 60}
    os.kill(server.process.pid, signal.SIGUSR2)
    deadline = time.monotonic() + 60
    successor = pidfile.with_name("pid.2")
    while not successor.exists() or successor.read_text() not in parents(server):
        assert time.monotonic() < deadline, server.log.read_text()
    second = int(successor.read_text())
    assert server.hammer(path)[200] == LIMIT - 60
    try:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        assert server.hammer(path, 50) == {429: 50}, "the new arbiter keeps the table"
    finally:
        os.kill(second, signal.SIGTERM)
        while Path(f"/proc/{second}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        for left in SHM.glob(f"weir.auto-*/*-{second}-*"):
            left.unlink()


@needs("werkzeug")
@pytest.mark.parametrize("options", ["", ", threaded=True", ", use_reloader=True"])
def test_werkzeug_in_development_is_not_bothered(start: Start, options: str) -> None:
    server = start(command=[sys.executable, "-c", RUN_SIMPLE % options])
    assert server.store() == "memory://"
    assert server.hammer(fresh())[200] == LIMIT
    assert "WeirWarning" not in server.log.read_text()
