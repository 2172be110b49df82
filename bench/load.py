"""Drives the example app with kinds of clients, to size limits; see docs/sizing.md.

    load.py capacity               the capacity: wrk, an increasing number of connections, no limit
    load.py clients --limit TEXT   polite, bursting and hammering clients at once, by wrk
    load.py locust --limit TEXT    the same kinds by Locust (bench/locustfile.py)

The app is bench/load_app.py under gunicorn, started and stopped here; ``--url`` drives another
server instead. Caveat: load generator and server share the machine's cores, so a server on a
separate machine handles more than is measured here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gunicorn_server

HERE = Path(__file__).resolve().parent

#: Kinds of clients, and how many connections each keeps busy.
KINDS = {"polite": 4, "bursting": 4, "hammering": 16}

#: The head of the table of results.
HEAD = f"{'':10}  {'admitted':>8}  {'denied':>8}  {'admitted/s':>10}  {'p50 ms':>8}  {'p99 ms':>8}"


@contextlib.contextmanager
def serve(workers: int, limit: str) -> Iterator[str]:
    """The app under gunicorn, ready for requests."""
    environ = {**os.environ, "LOAD_LIMIT": limit}
    with gunicorn_server.serve("load_app:app", HERE, workers, environ) as url:
        yield url


def start_wrk(url: str, kind: str, connections: int, seconds: int) -> subprocess.Popen[str]:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(HERE / "load.lua"), url, "--", kind]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"wrk failed:\n{printed}")
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    if found["failed"] or found["broken"]:
        print(f"   ({found['failed']} other responses, {found['broken']} broken connections)")
    return found


def capacity(url: str, seconds: int) -> None:
    """An increasing number of connections, until requests only get slower."""
    print(f"{'connections':>11}  {'requests/s':>10}  {'p50 ms':>8}  {'p99 ms':>8}")
    for connections in (1, 2, 4, 8, 16, 32):
        found = result(start_wrk(f"{url}/unlimited", "anybody", connections, seconds))
        rate = found["admitted"] / found["seconds"]
        print(
            f"{connections:11}  {rate:10.0f}  {found['p50_ms']:8.1f}  {found['p99_ms']:8.1f}",
            flush=True,
        )


def clients(url: str, path: str, seconds: int, kinds: dict[str, int]) -> None:
    """All kinds of clients at once, each by a separate wrk."""
    running = {kind: start_wrk(url + path, kind, n, seconds) for kind, n in kinds.items()}
    print(HEAD)
    for kind, process in running.items():
        found = result(process)
        print(
            f"{kind:10}  {found['admitted']:8}  {found['denied']:8}  "
            f"{found['admitted'] / found['seconds']:10.1f}  "
            f"{found['p50_ms']:8.1f}  {found['p99_ms']:8.1f}",
            flush=True,
        )


def locust(url: str, seconds: int, users: int) -> int:
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless"]
    command += ["--only-summary", "--loglevel", "WARNING", "--host", url, "-u", str(users)]
    command += ["-r", str(users), "-t", f"{seconds}s", "--exit-code-on-error", "0"]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["capacity", "clients", "locust"])
    parser.add_argument("--limit", default="10 per second", help="of each client on /work")
    parser.add_argument("--path", default="/work", help="the path of the requests")
    parser.add_argument("--seconds", type=int, default=10, help="of load (each step)")
    parser.add_argument("--workers", type=int, default=2, help="of gunicorn")
    parser.add_argument("--users", type=int, default=30, help="of Locust")
    parser.add_argument("--only", choices=KINDS, action="append", help="these kinds of clients")
    parser.add_argument("--url", help="drive this server, which runs bench/load_app.py")
    arguments = parser.parse_args()
    if arguments.what != "locust" and not shutil.which("wrk"):
        raise SystemExit("wrk is not installed: apt-get install wrk")
    server = (
        contextlib.nullcontext(arguments.url)
        if arguments.url
        else serve(arguments.workers, arguments.limit)
    )
    with server as url:
        if arguments.what == "capacity":
            capacity(url, arguments.seconds)
        elif arguments.what == "clients":
            kinds = {k: n for k, n in KINDS.items() if not arguments.only or k in arguments.only}
            clients(url, arguments.path, arguments.seconds, kinds)
        else:
            return locust(url, arguments.seconds, arguments.users)
    return 0


if __name__ == "__main__":
    sys.exit(main())
