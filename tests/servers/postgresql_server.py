"""PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.ports import wait_for
from servers.process import Server


class PostgreSQL(Server):
    """Debian's PostgreSQL, as an unprivileged user, on its own port."""

    program = "/usr/lib/postgresql/15/bin/postgres"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.data = self.directory / "data"
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            for path in (self.directory, self.directory.parent):
                path.chmod(0o755)
            shutil.chown(self.directory, self.user)
        if not self.data.exists():
            initdb = [str(Path(self.program).with_name("initdb")), "-D", str(self.data)]
            options = ["-U", "weir", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
            subprocess.run(
                [*initdb, *options], check=True, capture_output=True, user=self.user, cwd="/"
            )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "100",
        }
        return [
            self.program,
            *("-D", str(self.data)),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        ]

    @property
    def uri(self) -> str:
        return f"postgresql://weir@127.0.0.1:{self.port}/postgres"

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The server, and the processes that serve its connections, are stopped."""
        with super().frozen():  # first: it starts no others
            children = self._children()
            self._signal(children, signal.SIGSTOP)
            try:
                yield
            finally:
                self._signal(children, signal.SIGCONT)

    def answers(self) -> bool:
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(self.uri) as connection:
            return bool(connection.execute("SELECT true").fetchone())

    def stop(self, how: int = signal.SIGINT) -> None:  # without waiting for clients
        super().stop(how)

    def kill(self) -> None:
        """Kill the server. The processes of its connections end as they notice it."""
        children = self._children()
        super().kill()
        wait_for(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in children))
        (self.data / "postmaster.pid").unlink()

    def kill_all(self) -> None:
        """Kill the server and the processes of its connections, at once."""
        assert self.process
        children = self._children()
        self.process.send_signal(signal.SIGSTOP)  # it starts no others
        self._signal(children, signal.SIGKILL)
        self.kill()

    @staticmethod
    def _signal(pids: list[int], number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _children(self) -> list[int]:
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in text.split()]
