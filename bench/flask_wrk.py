"""Requests per second of a Flask app under ``gunicorn -w 2``: bare, with Weir, with Flask-Limiter.

Workload: hello world behind three limits with headers on, scaled up so that nothing is denied; wrk
on the same machine, one thread, eight connections, in short turns on each server; all servers run
all the time. Caveat: load generator, server and Redis share the cores, so only the ratios are
meaningful. Medians over the rounds; for the ratios within each round, the quartiles as well.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import gunicorn_server
import redis

Rates: TypeAlias = dict[str, list[float]]

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


def start_redis(folder: str) -> tuple[subprocess.Popen[bytes], str]:
    """A redis-server and its URI. It takes another port if its own is in use."""
    for _ in range(20):
        port = random.randrange(11_000, 32_000)
        server = subprocess.Popen(
            [
                "redis-server",
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
                folder,
            ],
            stdout=subprocess.DEVNULL,
        )
        while server.poll() is None:
            with contextlib.suppress(OSError), redis.Redis(port=port) as client:
                if client.info("server")["process_id"] == server.pid:
                    return server, f"redis://127.0.0.1:{port}"
            time.sleep(0.02)
    raise SystemExit("redis-server did not start")


@contextlib.contextmanager
def own_redis() -> Iterator[str]:
    """The URI of a redis-server, or "" if it is not installed."""
    if not shutil.which("redis-server"):
        yield ""
        return
    with tempfile.TemporaryDirectory() as folder:
        server, uri = start_redis(folder)
        try:
            yield uri
        finally:
            server.terminate()
            server.wait(20)


@contextlib.contextmanager
def serve(folder: Path, name: str, kind: str, storage: str) -> Iterator[str]:
    """An app under gunicorn that answers requests."""
    (folder / f"{name}.py").write_text(APP.format(kind=kind, storage=storage))
    with gunicorn_server.serve(f"{name}:app", folder, 2) as url:
        with urllib.request.urlopen(url, timeout=60) as answer:
            headers = dict(answer.headers)
        if kind != "bare" and "X-RateLimit-Remaining" not in headers:
            raise SystemExit(f"{name} sends no rate limit headers")
        yield url


def wrk(url: str, seconds: int) -> float:
    out = subprocess.run(
        ["wrk", "-t1", "-c8", f"-d{seconds}s", url], capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in out:
        raise SystemExit(f"some requests failed:\n{out}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    if not found:
        raise SystemExit(f"wrk printed:\n{out}")
    return float(found.group(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=1, help="of load for each server and round")
    parser.add_argument(
        "--redis",
        metavar="URI",
        default="own",
        help="measure both on this Redis, too; own: one that is started for it (default); none",
    )
    arguments = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed: apt-get install wrk")
    cases = [
        ("bare", "bare", ""),
        ("weir", "weir", ""),
        ("flask_limiter", "flask_limiter", "memory://"),
    ]
    with contextlib.ExitStack() as stack:
        uri = arguments.redis
        if uri == "own":
            uri = stack.enter_context(own_redis())
        if uri not in ("", "none"):
            cases += [("weir_redis", "weir", uri)]
            cases += [("flask_limiter_redis", "flask_limiter", uri)]
        rates = measure(cases, arguments)
    report(rates)


def measure(cases: list[tuple[str, str, str]], arguments: argparse.Namespace) -> Rates:
    """Requests per second in each round, by name of the case."""
    rates: Rates = {name: [] for name, _, _ in cases}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {
            name: stack.enter_context(serve(folder, f"app_{name}", kind, storage))
            for name, kind, storage in cases
        }
        for url in urls.values():
            wrk(url, 1)
        for round_ in range(arguments.rounds):
            for name, url in urls.items():
                rates[name].append(wrk(url, arguments.seconds))
            if os.isatty(2):
                print(f"round {round_ + 1} of {arguments.rounds}", file=sys.stderr)
    return rates


def report(rates: Rates) -> None:
    print(f"  {'':22} {'requests/s':>10}   {'lowest to highest':>20}   of the bare app")
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(values, rates["bare"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(
            f"  {name:22} {statistics.median(values):10.0f}   {spread:>20}"
            f"   x {middle:.2f} [{low:.2f}, {high:.2f}]"
        )


if __name__ == "__main__":
    main()
