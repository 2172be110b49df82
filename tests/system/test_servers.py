"""Other servers than gunicorn: all workers together admit exactly the limit."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from servers.limited import ASGI, FLASK, LIMIT, REQUESTS, WSGI, Server, Start, check_rounds, fresh
from servers.ports import free_port, wait_for


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


#: It kills a worker that does not answer its health check in time, by default 5 s.
UVICORN = [sys.executable, "-m", "uvicorn", "--timeout-worker-healthcheck", "120"]


@needs("uvicorn")
def test_uvicorn(start: Start) -> None:
    command = [*UVICORN, "--workers", "4", "--port", "{port}", "served:app"]
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
    """In a thread of the application, independent of the server."""
    program = {
        "uvicorn": [*UVICORN, "--port", "{port}"],
        "hypercorn": [sys.executable, "-m", "hypercorn", "-b", "127.0.0.1:{port}"],
    }
    command = [*program[module], "--workers", "4", "served:app"]
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
    port = free_port()
    command = [sys.executable, "supervisor.py", "{port}", str(port)]
    shop = start(command=command, app=ASGI)
    bank = Server(shop.process, port, shop.log)
    wait_for(lambda: bank.get(fresh()))
    path = fresh()
    assert shop.hammer(path)[200] == LIMIT
    assert bank.hammer(path)[200] == LIMIT


@needs("werkzeug")
@pytest.mark.parametrize("options", ["", ", threaded=True", ", use_reloader=True"])
def test_werkzeug_in_development_gets_no_warning(start: Start, options: str) -> None:
    server = start(command=[sys.executable, "-c", RUN_SIMPLE % options])
    assert server.store() == "memory://"
    assert server.hammer(fresh())[200] == LIMIT
    assert "WeirWarning" not in server.log.read_text()
