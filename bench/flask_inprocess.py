"""What rate limits add to a Flask request: bare Flask, Flask-Limiter and Weir, alternately.

Caveats:

- A request here is one call of the WSGI application with a GET to a view that returns a constant.
  There is no server, no socket and no client; a real request costs several times more with each of
  the applications.
- Both limiters count in the memory of the process, or with --redis on one server, with fixed
  windows. Requests are denied only in the rows "denied", there all except the first; the bare
  application answers all of them, and "hooks" aborts with 429 before dispatch.
- The numbers are CPU time of the thread that makes the requests, because wall-clock time on a
  shared machine includes other programs. They do not include a background thread of
  Flask-Limiter's storage.
- The applications, each in its own process, are measured alternately in short rounds, in random
  order. Requests before each round warm them up and are not measured. If the machine slows down, it
  slows down all. The processes are started several times, because the memory layout alone makes a
  difference of a microsecond. The result is the ratio of what Flask-Limiter adds to what Weir adds.
- "hooks" is the minimum for any extension: a function before and one after each request that do
  nothing, and four constant headers where the limiters write headers.
- Medians over the rounds, with the quartiles in brackets.

Usage: python bench/flask_inprocess.py [--starts N] [--rounds N] [--calls N] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import platform
import random
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import flask

MANY = "1000000 per day"
SOME = "900000 per hour"
FEW = "800000 per minute"

#: The measured applications, and the module with the limiter of each.
PEERS = {"bare": None, "hooks": None, "flask-limiter": "flask_limiter", "weir": "weir.flask"}


#: Where both limiters count; "--redis" starts a server and says so to the processes.
STORE = os.environ.get("WEIR_BENCH_STORE", "memory://")


def make_limiter(package: Any, app: flask.Flask, **options: Any) -> Any:
    return package.Limiter(package.util.get_remote_address, app=app, storage_uri=STORE, **options)


def hello() -> str:
    return "hello"


def one_limit(package: Any) -> tuple[flask.Flask, str]:
    app = flask.Flask("one")
    view: Callable[[], str] = hello
    if package:
        view = make_limiter(package, app).limit(FEW)(hello)
    app.add_url_rule("/", "hello", view)
    return app, "/"


def three_limits(package: Any) -> tuple[flask.Flask, str]:
    app = flask.Flask("three")
    view: Callable[[], str] = hello
    if package:
        limiter = make_limiter(package, app, default_limits=[MANY, SOME], headers_enabled=True)
        view = limiter.limit(FEW, override_defaults=False)(hello)
    app.add_url_rule("/", "hello", view)
    return app, "/"


def everything(package: Any) -> tuple[flask.Flask, str]:
    app = flask.Flask("everything")
    view: Callable[[], str] = hello
    if package:
        limiter = make_limiter(
            package, app, default_limits=[MANY, SOME], headers_enabled=True, meta_limits=["9/hour"]
        )
        view = limiter.limit(
            FEW, override_defaults=False, deduct_when=lambda response: response.status_code == 200
        )(hello)
    app.add_url_rule("/", "hello", view)
    return app, "/"


def many_routes(package: Any) -> tuple[flask.Flask, str]:
    """200 routes, half of them in a blueprint inside of a blueprint that is limited."""
    app = flask.Flask("many")
    limiter = make_limiter(package, app, default_limits=[MANY]) if package else None
    outer = flask.Blueprint("outer", "outer", url_prefix="/outer")
    inner = flask.Blueprint("inner", "inner", url_prefix="/inner")
    if limiter:
        limiter.limit(SOME)(outer)
        limiter.limit(FEW, override_defaults=False)(inner)
    for n in range(100):
        outer.add_url_rule(f"/{n}", f"hello{n}", hello)
        inner.add_url_rule(f"/{n}", f"hello{n}", hello)
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    return app, "/outer/inner/50"


def denied(handler: bool, on_breach: bool) -> Callable[[Any], tuple[flask.Flask, str]]:
    """A client that is always over one of three limits."""

    def make(package: Any) -> tuple[flask.Flask, str]:
        app = flask.Flask("denied")
        if handler:

            @app.errorhandler(429)
            def too_many(error: Any) -> tuple[dict[str, str], int]:
                return {"error": "too many requests", "limit": error.description}, 429

        def answer(limit: Any) -> flask.Response:
            return flask.make_response("too many", 429)

        view: Callable[[], str] = hello
        if package:
            limiter = make_limiter(
                package,
                app,
                default_limits=[MANY, SOME],
                headers_enabled=True,
                on_breach=answer if on_breach else None,
            )
            view = limiter.limit("1 per 300 day", override_defaults=False)(hello)
        app.add_url_rule("/", "hello", view)
        return app, "/"

    return make


def one_callable(**functions: Any) -> Callable[[Any], tuple[flask.Flask, str]]:
    """As "one route limit, headers", with a function for one of its options."""

    def make(package: Any) -> tuple[flask.Flask, str]:
        app = flask.Flask("callable")
        view: Callable[[], str] = hello
        if package:
            limiter = make_limiter(package, app, headers_enabled=True)
            options = dict(functions)
            text = options.pop("text", FEW)
            view = limiter.limit(text, **options)(hello)
        app.add_url_rule("/", "hello", view)
        return app, "/"

    return make


WORKLOADS: dict[str, Callable[[Any], tuple[flask.Flask, str]]] = {
    "one route limit": one_limit,
    "three limits, headers": three_limits,
    "three limits, meta limit, deduct_when, headers": everything,
    "200 routes in nested blueprints": many_routes,
    "denied, three limits, headers, JSON errorhandler(429)": denied(True, False),
    "denied, three limits, headers": denied(False, False),
    "denied, three limits, headers, on_breach": denied(False, True),
    "one limit, headers": one_callable(),
    "one limit, headers, exempt_when": one_callable(exempt_when=lambda: False),
    "one limit, headers, cost from a function": one_callable(cost=lambda: 1),
    "one limit, headers, dynamic": one_callable(text=lambda: FEW),
}


def add_hooks(app: flask.Flask, headers: bool, denies: bool) -> None:
    """A pair of hooks that limit nothing, or deny everything without a check."""
    headers = [("X-RateLimit-Limit", "1"), ("X-RateLimit-Remaining", "1")]
    headers += [("X-RateLimit-Reset", "1"), ("Retry-After", "1")]

    @app.before_request
    def before() -> None:
        if denies:
            flask.abort(429)

    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        if headers:
            response.headers._list.extend(headers)  # the fastest way
        return response


def caller(app: flask.Flask, path: str, expected: str) -> Callable[[int], float]:
    """A function that makes a number of requests and returns the microseconds of one."""
    # The environment of a request, as a server creates it.
    client = {"REMOTE_ADDR": "127.0.0.1"}
    with app.test_request_context(path, environ_base=client) as context:
        template = context.request.environ
    template = {name: value for name, value in template.items() if not name.startswith("werkzeug.")}
    statuses: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        statuses.append(status)

    def request() -> None:
        body = app.wsgi_app(template.copy(), start_response)
        b"".join(body)
        body.close()  # type: ignore[attr-defined]

    def call(calls: int) -> float:
        statuses.clear()
        for _ in range(100):
            request()
        start = time.thread_time_ns()
        for _ in range(calls):
            request()
        elapsed = time.thread_time_ns() - start
        if set(statuses[1:]) != {expected}:
            raise SystemExit(f"{app.name}: {set(statuses)}")
        return elapsed / calls / 1000

    return call


def serve(workload: str, peer: str, commands: Any) -> None:
    """In a separate process: receive a number, make that many requests, send the time of one."""
    name = PEERS[peer]
    package = None
    if name is not None:
        package = importlib.import_module(name)
        importlib.import_module(f"{name}.util")
    app, path = WORKLOADS[workload](package)
    if peer == "hooks":
        add_hooks(app, "headers" in workload, workload.startswith("denied"))
    denies = workload.startswith("denied") and peer != "bare"
    call = caller(app, path, "429 TOO MANY REQUESTS" if denies else "200 OK")
    gc.collect()
    while calls := commands.recv():
        commands.send(call(calls))


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, median, high = statistics.quantiles(values, n=4)
    return low, median, high


def measure(workload: str, starts: int, rounds: int, calls: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {peer: [] for peer in PEERS}
    spawn = multiprocessing.get_context("spawn")
    order = random.Random(0)
    for _ in range(starts):
        processes = {}
        for peer in PEERS:
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=serve, args=(workload, peer, theirs), daemon=True)
            process.start()
            processes[peer] = (process, ours)
        for n in range(rounds + 1):
            for peer in order.sample(list(PEERS), len(PEERS)):
                _, commands = processes[peer]
                commands.send(calls)
                elapsed: float = commands.recv()
                if n:  # the first round prepares the checks
                    times[peer].append(elapsed)
        for process, commands in processes.values():
            commands.send(0)
            process.join()
    added = {
        name: [t - bare for t, bare in zip(times[name], times["bare"], strict=True)]
        for name in times
        if name != "bare"
    }
    return {
        "us": {name: quartiles(values) for name, values in times.items()},
        "added_us": {name: quartiles(values) for name, values in added.items()},
        "ratio": statistics.median(added["flask-limiter"]) / statistics.median(added["weir"]),
    }


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """The URI of a Redis server on a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        server = subprocess.Popen([*command, "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="What rate limits add to a Flask request.")
    parser.add_argument("--starts", type=int, default=3, help="processes of each, one by one")
    parser.add_argument("--rounds", type=int, default=15, help="in each process")
    parser.add_argument("--calls", type=int, default=200, help="requests in a round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--redis", action="store_true", help="count on a Redis server")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    arguments = parser.parse_args()
    starts, rounds, calls = arguments.starts, arguments.rounds, arguments.calls
    chosen = [name for name in WORKLOADS if arguments.only in name]
    with redis_server() if arguments.redis else contextlib.nullcontext("memory://") as store:
        os.environ["WEIR_BENCH_STORE"] = store
        results = {name: measure(name, starts, rounds, calls) for name in chosen}
    if arguments.json:
        print(json.dumps(results))
        return
    print(
        f"Python {platform.python_version()}, Flask {version('flask')},"
        f" Flask-Limiter {version('flask-limiter')}, limits {version('limits')},"
        f" Weir {version('weir-limiter')}; {starts} x {rounds} rounds of {calls} requests"
    )
    for name, result in results.items():
        print(f"\n{name}")
        for peer, (low, median, high) in result["us"].items():
            line = f"  {peer:14} {median:7.1f} us [{low:.1f} to {high:.1f}]"
            if peer in result["added_us"]:
                low, median, high = result["added_us"][peer]
                line += f"   adds {median:6.1f} us [{low:.1f} to {high:.1f}]"
            print(line)
        print(f"  Flask-Limiter adds {result['ratio']:.1f} times what Weir adds")


if __name__ == "__main__":
    main()
