"""Fixtures of the tests with running servers."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers import limited, web
from servers.isolation import SHM
from servers.nginx_server import MODULE, ROOT, Nginx
from servers.process import wait_until
from servers.redis_server import RedisServer


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., web.Served]]:
    """Serves a program text that defines ``app`` by ``gunicorn -w workers``."""
    running: list[web.Served] = []

    def serve(program: str, *options: str, workers: int = 4, **env: str) -> web.Served:
        name = f"served_{len(running)}"
        (tmp_path / f"{name}.py").write_text(program)
        server = web.gunicorn(tmp_path, f"{name}:app", *options, workers=workers, env=env)
        running.append(server)
        return server

    yield serve
    for server in running:
        server.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[limited.Start]:
    """Starts a server of four workers; stops it at the end, and removes its tables."""
    servers: list[limited.Server] = []
    name = f"test-{uuid.uuid4()}"

    def start(
        *options: str,
        app: str = limited.WSGI,
        store: str = "auto://",
        command: list[str] | None = None,
        env: dict[str, str] | None = None,
    ) -> limited.Server:
        (tmp_path / "served.py").write_text(app)
        log = tmp_path / f"log-{len(servers)}"
        env = {"STORE": store.format(name=name), **(env or {})}
        server = limited.start_server(tmp_path, options, command, log, env)
        servers.append(server)
        ready = lambda: server.get(limited.fresh())[0] == 200  # noqa: E731
        wait_until(ready, server.process, log)
        return server

    yield start
    for server in servers:
        server.stop()
        for path in SHM.glob(f"weir.auto-*/*-{server.process.pid}-*"):
            path.unlink()
    (SHM / f"weir.{name}").unlink(missing_ok=True)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server for one test, also at the Unix socket ``directory / "socket"``."""
    directory = tmp_path / "redis"
    server = RedisServer(directory, ["--unixsocket", f"{directory}/socket"]).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def module() -> Path:
    """The nginx module, which is built first."""
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
