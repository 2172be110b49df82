"""Applications that admit 100 requests of each key, their servers, and clients of them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from servers import process, web
from servers.ports import free_port, wait_for

LIMIT = 100
CLIENTS = 8
REQUESTS = 400
ROUNDS = 20
SHM = Path("/dev/shm")

#: Answers 200 or 429; the body names the process and the store.
WSGI = """
import os, threading
import weir

LIMIT = weir.parse("100/day")
STORE = os.environ["STORE"]
lock = threading.Lock()
limiter = None

def make():
    global limiter
    with lock:
        if limiter is None:
            store = weir.storage.storage_from_string(STORE)
            limiter = weir.strategies.FixedWindowRateLimiter(store)

if "LAZY" in os.environ:  # in a separate thread, at the first request
    def prepare():
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
else:
    make()
    def prepare():
        pass

def app(environ, start_response):
    prepare()
    allowed = limiter.hit(LIMIT, environ["PATH_INFO"])
    body = f"{os.getpid()} {limiter.storage.uri} {limiter.storage.namespace}".encode()
    start_response("200 OK" if allowed else "429 Too Many Requests",
                   [("Content-Length", str(len(body)))])
    return [body]
"""

ASGI = (
    WSGI.replace("def app(environ, start_response):", "def answer(path):")
    .replace('environ["PATH_INFO"]', "path")
    .partition("    start_response(")[0]
    + """
    return (200 if allowed else 429), body

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    status, body = answer(scope["path"])
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
)

FLASK = """
import os
from flask import Flask
from weir.flask import Limiter

app = Flask(__name__)
options = {"storage_uri": os.environ["STORE"]} if os.environ["STORE"] != "auto://" else {}
limiter = Limiter(lambda: "all", app=app, default_limits=["1000000/day"], **options)

@app.route("/<path:key>")
@limiter.limit("100/day", key_func=lambda: __import__("flask").request.path)
def answer(key):
    return f"{os.getpid()} {limiter.storage.uri} {limiter.storage.namespace}"

@app.errorhandler(429)
def refuse(error):
    return f"{os.getpid()} {limiter.storage.uri} {limiter.storage.namespace}", 429
"""


class Server(web.Served):
    """A running server of one of the applications."""

    def get(self, path: str) -> tuple[int, str]:
        return web.fetch(self.port, path)[:2]

    def hammer(self, path: str, requests: int = REQUESTS) -> Counter[int | str]:
        """The number of responses by status; ``"lost"``: the connection broke."""
        return web.hammer([self.port], path, requests, CLIENTS)

    def workers(self, at_least: int = 2) -> list[int]:
        """The processes that answer; waits until there are as many."""
        pids: set[int] = set()

        def enough() -> bool:
            pids.add(int(self.get(fresh())[1].split()[0]))
            return len(pids) >= at_least

        wait_for(enough)
        return sorted(pids)

    def store(self) -> str:
        return self.get(fresh())[1].split()[1]

    def stop(self, how: int = signal.SIGTERM) -> None:
        if how == signal.SIGKILL and self.process.poll() is None:
            os.killpg(self.process.pid, how)
        process.end(self.process, how)


def fresh() -> str:
    return f"/{uuid.uuid4()}"


def start_server(
    directory: Path,
    options: tuple[str, ...],
    command: list[str] | None,
    log: Path,
    env: Mapping[str, str],
) -> Server:
    """Start ``gunicorn -w 4`` on a socket that it inherits, or a command on a port.

    ``directory`` has the application as ``served.py``.
    """
    if command is not None:
        port = free_port()
        words = [word.format(port=port) for word in command]
        started = process.launch([*words, *options], log, env, cwd=directory)
    else:
        with socket.socket() as listener:
            port = free_port()  # outside the range that clients use
            listener.bind(("127.0.0.1", port))
            listener.listen(256)
            command = [sys.executable, "-m", "gunicorn", "-w", "4", *options]
            command += ["-b", f"fd://{listener.fileno()}", "--graceful-timeout", "3"]
            command += ["--no-control-socket", "served:app"]
            started = process.launch(
                command, log, env, cwd=directory, pass_fds=(listener.fileno(),)
            )
    return Server(started, port, log)


Start = Callable[..., Server]


def check_rounds(server: Server, rounds: int = ROUNDS) -> None:
    """In each round, exactly the limit passes. The server has logged no warning."""
    assert "Warning" not in server.log.read_text()
    for number in range(rounds):
        counts = server.hammer(fresh())
        assert counts == {200: LIMIT, 429: REQUESTS - LIMIT}, f"round {number}"
