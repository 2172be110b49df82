"""What the tests of running servers share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers import web
from servers.nginx_server import MODULE, ROOT, Nginx
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
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, also at the Unix socket ``directory / "socket"``."""
    directory = tmp_path / "redis"
    server = RedisServer(directory, ["--unixsocket", f"{directory}/socket"]).start()
    yield server
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
