"""An application under gunicorn, for the benchmarks that need a web server."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def serve(
    app: str, folder: Path, workers: int, environ: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The URL of ``app``, once it answers; the server is stopped by its process id.

    gunicorn inherits the listening socket, so no other process can take the port in between.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        port, fd = listener.getsockname()[1], listener.fileno()
        command = [sys.executable, "-m", "gunicorn", "-w", str(workers), "-b", f"fd://{fd}"]
        command += ["--log-level", "error", "--no-control-socket", app]
        server = subprocess.Popen(command, cwd=folder, env=environ, pass_fds=[fd])
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(url, server)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(120)


def wait_until_it_answers(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:  # a limit, or no such page
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("gunicorn did not start") from None
            time.sleep(0.05)
