"""Requests per second of a Flask app under ``gunicorn -w 2``: bare, with Weir, with Flask-Limiter.

Workload: hello world behind three limits with headers on, scaled up so that nothing is denied; wrk
on the same machine, one thread, eight connections, in turn on each server in every round. Caveat:
load generator and server share the cores, so only the ratios say something. Medians over the
rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

APP = """
from flask import Flask

kind, storage = {kind!r}, {storage!r}
app = Flask(__name__)
if kind != "bare":
    if kind == "weir":
        from weir.flask import Limiter
        from weir.flask.util import get_remote_address
    else:
        from flask_limiter import Limiter
        from flask_limiter.util import get_remote_address
    limiter = Limiter(
        get_remote_address,
        app=app,
        default_limits=["2000000000 per day", "500000000 per hour"],
        headers_enabled=True,
        **({{"storage_uri": storage}} if storage else {{}}),
    )

@app.get("/")
def hello():
    return "Hello, world"

if kind != "bare":
    hello = limiter.limit("100000000 per minute", override_defaults=False)(hello)
    app.view_functions["hello"] = hello
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve(folder: Path, name: str, kind: str, storage: str) -> Iterator[str]:
    """An app under gunicorn, answering; stopped by its process id."""
    (folder / f"{name}.py").write_text(APP.format(kind=kind, storage=storage))
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}"]
    command += ["--log-level", "error", "--no-control-socket", f"{name}:app"]
    server = subprocess.Popen(command, cwd=folder)
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(200):
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    headers = dict(answer.headers)
                break
            except OSError:
                if server.poll() is not None:
                    raise SystemExit(f"gunicorn did not start for {name}") from None
                time.sleep(0.05)
        else:
            raise SystemExit(f"{name} does not answer")
        if kind != "bare" and "X-RateLimit-Remaining" not in headers:
            raise SystemExit(f"{name} sends no rate limit headers")
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


def wrk(url: str, seconds: int) -> float:
    out = subprocess.run(
        ["wrk", "-t1", "-c8", f"-d{seconds}s", url], capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in out:
        raise SystemExit(f"some requests failed:\n{out}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    if not found:
        raise SystemExit(f"wrk said:\n{out}")
    return float(found.group(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of load for each server and round")
    parser.add_argument("--redis", metavar="URI", help="measure both on this Redis, too")
    arguments = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed: apt-get install wrk")
    cases = [
        ("bare", "bare", ""),
        ("weir", "weir", ""),
        ("flask_limiter", "flask_limiter", "memory://"),
    ]
    if arguments.redis:
        cases += [("weir_redis", "weir", arguments.redis)]
        cases += [("flask_limiter_redis", "flask_limiter", arguments.redis)]
    rates: dict[str, list[float]] = {name: [] for name, _, _ in cases}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(arguments.rounds):
            for name, kind, storage in cases:
                with serve(Path(folder), f"app_{name}", kind, storage) as url:
                    wrk(url, 1)
                    rates[name].append(wrk(url, arguments.seconds))
            if os.isatty(2):
                print(f"round {round_ + 1} of {arguments.rounds}", file=sys.stderr)
    print(f"  {'':22} {'requests/s':>10}   {'lowest to highest':>20}   of the bare app")
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates["bare"], strict=True))
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(f"  {name:22} {statistics.median(values):10.0f}   {spread:>20}   x {ratio:.2f}")


if __name__ == "__main__":
    main()
