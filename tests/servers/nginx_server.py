"""A real nginx with the module, for tests."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from servers import process
from servers.ports import free_port, listens, wait_for
from servers.process import PATIENCE, launch, wait_until

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "build" / "nginx" / "ngx_http_weir_module.so"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

needs_nginx = pytest.mark.skipif(
    not NGINX or not Path("/usr/share/nginx/src/configure").exists(),
    reason="needs nginx-light and nginx-dev",
)

#: `return` is of an earlier phase than limits: pages come from a file.
PAGE = "root /usr/share/nginx/html; try_files /index.html =404;"


class Answer:
    """A response: status, headers by lower-case name, body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read().decode()


class Nginx:
    """One nginx, its folder, and a client of it. ``{port}`` and ``{table}`` are filled in."""

    def __init__(self, folder: Path, user: str | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.table = f"shm://test-nginx-{uuid.uuid4().hex[:12]}"
        self.conf = folder / "nginx.conf"
        self.pid_file = folder / "nginx.pid"
        self.log = folder / "error.log"
        self.user = user or ("root" if os.geteuid() == 0 else None)
        self.process: subprocess.Popen[bytes] | None = None
        self.worker_processes = 1

    def write(
        self,
        http_text: str,
        *,
        workers: int = 1,
        main: str = "",
        table: str = "keys=8192",
    ) -> None:
        """Write the configuration: ``http_text`` stands in ``http {}``."""
        self.worker_processes = workers
        paths = "\n".join(
            f"{name}_temp_path {self.folder}/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = f"""
load_module {MODULE};
{f"user {self.user};" if self.user and os.geteuid() == 0 else ""}
daemon off;
worker_processes {workers};
pid {self.pid_file};
error_log {self.log} info;
{main}
events {{ worker_connections 256; }}
http {{
access_log off;
{paths}
{f"weir_table {self.table} {table};" if table else ""}
{http_text}
}}
"""
        self.conf.write_text(text.replace("{port}", str(self.port)).replace("{table}", self.table))

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert NGINX
        return subprocess.run(
            [NGINX, "-p", str(self.folder), "-e", str(self.log), "-c", str(self.conf), *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def start(self, wrap: tuple[str, ...] = (), patience: float = PATIENCE) -> None:
        assert NGINX
        output = self.folder / "nginx.out"
        self.process = launch(
            [*wrap, NGINX, "-p", str(self.folder), "-e", str(self.log), "-c", str(self.conf)],
            output,
        )
        # nginx listens before it writes its process id, and writes that before it starts workers.
        wait_until(
            lambda: (
                listens(("127.0.0.1", self.port))
                and self.has_pid()
                and len(self.workers()) >= self.worker_processes
            ),
            self.process,
            output,
            patience,
        )

    def has_pid(self) -> bool:
        return self.pid_file.exists() and self.pid_file.read_text().strip() != ""

    def what_it_said(self) -> str:
        log = self.log.read_text(errors="replace") if self.log.exists() else ""
        output = self.folder / "nginx.out"
        return log + (output.read_text(errors="replace") if output.exists() else "")

    def get(self, path: str = "/", host: str = "127.0.0.1", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(host, self.port, timeout=PATIENCE)
        try:
            connection.request(
                "GET", path, headers={name.replace("_", "-"): v for name, v in headers.items()}
            )
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def statuses(self, path: str, times: int) -> list[int]:
        return [self.get(path).status for _ in range(times)]

    def master(self) -> int:
        return int(self.pid_file.read_text())

    def workers(self, master: int | None = None) -> list[int]:
        master = master or self.master()
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                text = stat.read_text()
                _name, rest = text[text.index("(") + 1 :].rsplit(")", 1)
                if int(rest.split()[1]) == master and rest.split()[0] != "Z":
                    found.append(int(text.split()[0]))
        return found

    def reload(self) -> None:
        """Reload, and wait until only new workers are there, all of them."""
        old = set(self.workers())
        os.kill(self.master(), signal.SIGHUP)

        def only_new() -> bool:
            found = set(self.workers())
            return len(found) >= self.worker_processes and not old & found

        wait_for(only_new)

    def stop(self, how: int = signal.SIGQUIT) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, ValueError, FileNotFoundError):
            os.kill(self.master(), how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        process.end(self.process, signal.SIGKILL)
        self.process = None

    def end(self) -> None:
        self.stop()
        Path("/dev/shm", f"weir.{self.table.removeprefix('shm://')}").unlink(missing_ok=True)
