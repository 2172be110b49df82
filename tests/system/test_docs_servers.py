"""The manual's examples for shells and servers work: consoles, uWSGI, nginx."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pages
from clocks import stop_clock_of_programs
from pages import PAGES, ROOT
from servers import process
from servers.ports import free_port, listens

BIN = Path(sys.executable).parent


Start = Callable[..., None]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server and waits until its address answers; stops it at the end."""
    with contextlib.ExitStack() as stack:

        def start(command: list[str], address: tuple[str, int] | str, env: dict[str, str]) -> None:
            log = tmp_path / f"server-{len(list(tmp_path.glob('server-*.log')))}.log"
            stack.enter_context(
                process.running(command, lambda: listens(address), log, env=env, cwd=tmp_path)
            )

        yield start


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "COLUMNS": "80",
        "LC_ALL": "C.UTF-8",
    }


def with_consoles() -> list[pytest.param]:
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)))
        for page in PAGES
        if any(b.language == "console" and b.mark != "skip" for b in pages.blocks(page))
    ]


@pytest.mark.parametrize("page", with_consoles())
def test_the_consoles_of_a_page_show_what_happens(
    page: Path, tmp_path: Path, start: Start, request: pytest.FixtureRequest
) -> None:
    port = free_port()
    table = f"shm://test-docs-{os.getpid()}-{port}"

    def here(text: str) -> str:
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("shm://shop", table)

    request.addfinalizer(
        lambda: Path("/dev/shm", table.replace("shm://", "weir.")).unlink(missing_ok=True)
    )
    # No window ends between two commands.
    clock = stop_clock_of_programs(tmp_path / "clock", time.time())
    env = {**environment(tmp_path), **clock}
    for name, text in pages.files(page).items():
        (tmp_path / name).write_text(here(text))
    for block in pages.blocks(page):
        if block.language != "console" or block.mark == "skip":
            continue
        for command in pages.commands(block):
            if block.mark == "server":
                start(["bash", "-c", f"exec {here(command.line)}"], ("127.0.0.1", port), env)
                continue
            if command.line.startswith("export "):
                name, _, value = here(command.line).removeprefix("export ").partition("=")
                env[name] = value
                continue
            done = subprocess.run(
                ["bash", "-c", here(command.line)],
                cwd=tmp_path,
                env=env,
                capture_output=True,
                text=True,
                timeout=120,
            )
            context = f"{block.name}: {command.line}\n{done.stdout}{done.stderr}"
            if command.output is None:
                assert done.returncode == 0, context
            else:
                assert pages.matches(here(command.output), done.stdout), context


# --------------------------------------------------------------------------- Deploying: the servers

DEPLOYING = ROOT / "docs/deploying.md"


def remaining(port: int, source: str, forwarded: str | None = None, **headers: str) -> int:
    """The remaining requests that the response reports to a client at the address ``source``."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=300, source_address=(source, 0)
    )
    try:
        if forwarded:
            headers["X-Forwarded-For"] = forwarded
        connection.request("GET", "/", headers=headers)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return int(response.headers["X-RateLimit-Remaining"])
    finally:
        connection.close()


@pytest.mark.skipif(not shutil.which("nginx", path="/usr/sbin:/usr/bin"), reason="no nginx")
def test_behind_the_manuals_nginx_clients_are_counted_separately_and_cannot_forge_addresses(
    tmp_path: Path, start: Start
) -> None:
    port, sock = free_port(), str(tmp_path / "app.sock")
    site = pages.files(DEPLOYING)["nginx.conf"]
    assert "listen 80;" in site
    assert "/run/shop/gunicorn.sock" in site
    site = site.replace("listen 80;", f"listen 127.0.0.1:{port};")
    site = site.replace("/run/shop/gunicorn.sock", sock)
    paths = "\n".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root; " if os.getuid() == 0 else ""  # who may use gunicorn's socket
    (tmp_path / "nginx.conf").write_text(
        f"{user}daemon off; pid {tmp_path}/nginx.pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{site}\n}}\n"
    )
    # The page's application, and a route to test it.
    (snippet,) = [b for b in pages.blocks(DEPLOYING) if "trusted_proxies" in b.text]
    app = snippet.text.replace("app=app,", "app=app, headers_enabled=True,")
    (tmp_path / "app.py").write_text(app + '\n@app.get("/")\ndef index():\n    return "ok"\n')
    env = environment(tmp_path)
    gunicorn = [sys.executable, "-m", "gunicorn", "-w", "2", "--no-control-socket"]
    start([*gunicorn, "--bind", f"unix:{sock}", "app:app"], sock, env)
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert nginx is not None
    start(
        [nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")], ("127.0.0.1", port), env
    )

    # Another address of the loopback network is not nginx's own.
    assert [remaining(port, "127.0.0.2") for _ in range(3)] == [99, 98, 97]
    assert remaining(port, "127.0.0.3") == 99
    assert remaining(port, "127.0.0.2", "192.0.2.1") == 96
    assert remaining(port, "127.0.0.2", "127.0.0.1") == 95
    assert remaining(port, "127.0.0.2", "127.0.0.3, 127.0.0.1") == 94
    assert remaining(port, "127.0.0.2", Forwarded="for=127.0.0.3") == 93
    assert remaining(port, "127.0.0.3") == 98


UWSGI = BIN / "uwsgi"


@pytest.mark.skipif(not UWSGI.exists(), reason="uWSGI is not installed")
def test_the_manuals_uwsgi_counts_in_one_table(tmp_path: Path, start: Start) -> None:
    port = free_port()
    ini = pages.files(DEPLOYING)["uwsgi.ini"].replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    (tmp_path / "uwsgi.ini").write_text(ini)
    app = pages.files(ROOT / "docs/quickstart.md")["app.py"]
    (tmp_path / "app.py").write_text(app)
    start([str(UWSGI), "--ini", "uwsgi.ini"], ("127.0.0.1", port), dict(os.environ))
    assert sorted(remaining(port, "127.0.0.1") for _ in range(20)) == list(range(30, 50))


def test_the_sizes_in_the_manual_are_those_of_tables() -> None:
    import weir

    page = DEPLOYING.read_text()
    rows = re.findall(r"^\| `auto://(\S*)` \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) MiB \|", page, re.M)
    assert len(rows) >= 4
    for query, keys, _, size in rows:
        with weir.Table(f"memory://{query}") as table:
            info = table.info()
        assert info["keys_max"] == int(keys.replace(",", ""))
        assert info["bytes"] / 2**20 == pytest.approx(float(size), rel=0.1)
