"""What the tests of running servers share."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nginx_server import MODULE, ROOT, Nginx, free_port


class Served:
    """An application under gunicorn, and a client of it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.url = f"http://127.0.0.1:{port}"

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[int, str]:
        """Status and body, by a connection of its own, so that any worker may answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(
                method, path, body, {name.replace("_", "-"): v for name, v in headers.items()}
            )
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def stop(self) -> None:
        """End it and all of its workers."""
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves a program text that defines ``app`` by ``gunicorn -w workers``."""
    running: list[Served] = []

    def serve(program: str, *options: str, workers: int = 4, **env: str) -> Served:
        number = len(running)
        (tmp_path / f"served_{number}.py").write_text(program)
        port, log = free_port(), tmp_path / f"gunicorn-{number}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "-w", str(workers), "--no-control-socket"),
                    *("--bind", f"127.0.0.1:{port}", "--chdir", str(tmp_path), *options),
                    f"served_{number}:app",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,
            )
        server = Served(process, port, log)
        running.append(server)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                server.ask("/")
                return server
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    yield serve
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def module() -> Path:
    """The module, built."""
    built = subprocess.run([ROOT / "script" / "nginx"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return MODULE


@pytest.fixture
def nginx(module: Path, tmp_path: Path) -> Iterator[Nginx]:
    server = Nginx(tmp_path)
    yield server
    server.end()


@pytest.fixture
def serving(nginx: Nginx) -> Callable[..., Nginx]:
    """Start nginx with zones and the inside of ``server {}``."""

    def serving(zones: str, server: str, **options: object) -> Nginx:
        nginx.write(
            zones + f"\nserver {{ listen 127.0.0.1:{nginx.port}; {server} }}\n",
            **options,  # type: ignore[arg-type]
        )
        nginx.start()
        return nginx

    return serving
