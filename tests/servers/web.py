"""Web servers of an application, and clients of them."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from servers import process
from servers.ports import free_port


class Reply(NamedTuple):
    status: int
    text: str
    headers: http.client.HTTPMessage


def fetch(
    port: int,
    path: str,
    method: str = "GET",
    body: str | bytes | None = None,
    source: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """The reply to one request, over a new connection, so that any worker may answer.

    source: the client's address. A socket that is bound to an address needs a port that no
    connection of the last minute used, so do not set it for thousands of quick requests.
    """
    address = None if source is None else (source, 0)
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=process.PATIENCE, source_address=address
    )
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Reply(response.status, response.read().decode(), response.headers)
    finally:
        connection.close()


def status_of(port: int, path: str, headers: Mapping[str, str]) -> int:
    """The status of the reply to one GET: a small part of the CPU time that ``fetch()`` takes.

    ``ConnectionError`` if there is no whole reply.
    """
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", port), process.PATIENCE) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    version, _, rest = received.partition(b" ")
    if not version.startswith(b"HTTP/1.") or b"\r\n\r\n" not in rest:
        raise ConnectionError(f"no whole reply: {received!r}")
    return int(rest[:3])


def hammer(
    ports: Sequence[int],
    path: str,
    requests: int,
    clients: int = 8,
    headers: Mapping[str, str] | None = None,
) -> Counter[int | str]:
    """The number of responses by status. Clients send requests concurrently to the ports in turn.

    ``"lost"``: the connection broke.
    """
    counts: Counter[int | str] = Counter()
    lock = threading.Lock()
    left = iter(range(requests))

    def client(port: int) -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            try:
                status: int | str = status_of(port, path, headers or {})
            except OSError:
                status = "lost"
            with lock:
                counts[status] += 1

    threads = [
        threading.Thread(target=client, args=(port,))
        for port in itertools.islice(itertools.cycle(ports), clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def serves(port: int, path: str = "/") -> bool:
    """Whether a request gets a reply, whatever its status."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        fetch(port, path)
        return True
    return False


class Served:
    """An application under a server, and a client of it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.url = f"http://127.0.0.1:{port}"

    def send(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[int, str]:
        """Status and body. An underscore in a header's name stands for a hyphen."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return fetch(self.port, path, method, body, headers=sent)[:2]

    def stop(self) -> None:
        """End it and all of its workers."""
        process.end(self.process)


def gunicorn(
    directory: Path, app: str, *options: str, workers: int = 4, env: Mapping[str, str] | None = None
) -> Served:
    """Start gunicorn in a directory that has the application's module; wait until it answers."""
    port, log = free_port(), directory / f"gunicorn-{app.partition(':')[0]}.log"
    command = [
        *(sys.executable, "-m", "gunicorn", "-w", str(workers), "--no-control-socket"),
        *("--bind", f"127.0.0.1:{port}", *options, app),
    ]
    started = process.launch(command, log, env, cwd=directory)
    try:
        process.wait_until(lambda: serves(port), started, log)
    except BaseException:
        process.end(started)
        raise
    return Served(started, port, log)
