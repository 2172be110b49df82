"""Sends 15 requests to the example app, which allows 10 a minute (see script/demo)."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 4
REQUESTS = 15
LIMIT = 10
ROUTE = "/limited"
DEADLINE = 120.0  # seconds that the server may take to start, on the slowest machine
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def server() -> Iterator[int]:
    """Gunicorn with the example app; yields its port, and leaves no process behind."""
    command = [sys.executable, "-m", "gunicorn", "-w", str(WORKERS), "--bind", "127.0.0.1:0"]
    command += ["--no-control-socket"]  # nothing in the home folder
    command += ["--timeout", "300"]  # do not replace workers on a slow machine
    command += ["--chdir", str(ROOT / "examples" / "tutorial"), "app:app"]
    with tempfile.TemporaryFile("w+") as log:
        # A new session, so that all its processes can be ended as one group.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield wait_until_it_answers(process, Path(f"/proc/self/fd/{log.fileno()}"))
        except Exception:
            log.seek(0)
            sys.stderr.write(log.read())
            raise
        finally:
            stop(process)


def wait_until_it_answers(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port that gunicorn was given, once the app's health route answers there."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"gunicorn ended with status {process.returncode}")
        listening = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", log.read_text())
        if listening and answers(int(listening[1])):
            wait_for_all_workers(int(listening[1]), deadline)
            return int(listening[1])
        time.sleep(0.05)
    raise TimeoutError(f"no answer within {DEADLINE:.0f} seconds")


def wait_for_all_workers(port: int, deadline: float) -> None:
    """Waits until each worker has accepted a connection, and so has started.

    A worker that waits for the request of one connection accepts no other.
    """
    with ExitStack() as connections:
        for _ in range(WORKERS):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connections.callback(connection.close)
            connection.connect()
        wait_until_accepted(port, deadline)


def wait_until_accepted(port: int, deadline: float) -> None:
    """Waits until no connection to the port waits for a worker to accept it."""
    listening = re.compile(rf"^ *\d+: 0100007F:{port:04X} \S+ 0A \S+:([0-9A-F]+) ", re.MULTILINE)
    while time.monotonic() < deadline:
        found = listening.search(Path("/proc/net/tcp").read_text())
        if found and int(found[1], 16) == 0:
            return
        time.sleep(0.001)
    raise TimeoutError(f"the workers did not accept all connections within {DEADLINE:.0f} seconds")


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends gunicorn politely, then whatever of its workers is still there."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):  # nothing is left, as a rule
        os.killpg(process.pid, signal.SIGKILL)


def visit(port: int) -> Iterator[http.client.HTTPResponse]:
    """Sends the requests, each over its own connection.

    Each connection is opened before the previous request is sent, as on a busy site: a worker that
    waits for a request cannot serve another connection, so another worker serves the next one.
    """
    deadline = time.monotonic() + DEADLINE
    with ExitStack() as connections:

        def connect() -> http.client.HTTPConnection:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connections.callback(connection.close)
            connection.connect()
            wait_until_accepted(port, deadline)
            return connection

        following = connect()
        for number in range(1, REQUESTS + 1):
            connection = following
            if number < REQUESTS:
                following = connect()
            connection.request("GET", ROUTE, headers={"Connection": "close"})
            response = connection.getresponse()
            response.read()
            yield response


def main() -> int:
    statuses: list[int] = []
    workers: set[str] = set()
    with server() as port:
        url = f"http://127.0.0.1:{port}{ROUTE}"
        print(f"{REQUESTS} requests to {url}, limited to {LIMIT} per minute")
        print(f"{'':>4}  status  remaining  retry-after  worker")
        for number, response in enumerate(visit(port), 1):
            remaining = response.getheader("X-RateLimit-Remaining", "-")
            retry_after = response.getheader("Retry-After", "-") if response.status == 429 else ""
            worker = response.getheader("X-Worker", "-")
            print(f"{number:>4}  {response.status:>6}  {remaining:>9}  {retry_after:>11}  {worker}")
            statuses.append(response.status)
            workers.add(worker)

    passed, refused = statuses.count(200), statuses.count(429)
    print(f"{passed} x 200, {refused} x 429, from {len(workers)} workers")
    right = passed == LIMIT and refused == REQUESTS - LIMIT and len(workers) > 1
    if not right:
        print(f"expected {LIMIT} x 200, {REQUESTS - LIMIT} x 429, from several workers")
    return 0 if right else 1


def on_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for ending in ENDINGS:
        signal.signal(ending, on_signal)
    sys.exit(main())
