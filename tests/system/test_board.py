"""The board under a real server: every decision is counted, whichever worker made it."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable

import weir

from .conftest import Served

REQUESTS = 2000
LIMIT = 1300

APP = """
import os
from flask import Flask, request
from weir.flask import Limiter

app = Flask(__name__)
limiter = Limiter(
    lambda: request.headers.get("X-Client", "nobody"), app=app, storage_uri=os.environ["STORE"],
    default_limits=["1300 per day"],
)

@app.get("/hit")
def hit():
    return str(os.getpid())

@app.get("/board")
@limiter.exempt
def board():
    table = limiter.storage
    return {"pid": os.getpid(), "counts": table.counts(), "heaviest": table.heaviest(),
            "name": table.name_of("hammer")}
"""


def hammer(server: Served, requests: int) -> Counter[int]:
    left, lock, statuses = iter(range(requests)), threading.Lock(), Counter[int]()

    def client() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            status, _ = server.ask("/hit", X_Client="hammer")
            with lock:
                statuses[status] += 1

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def test_every_worker_tells_all_that_was_decided(serve: Callable[..., Served]) -> None:
    store = f"shm://test-{uuid.uuid4()}"
    server = serve(APP, STORE=store)
    try:
        assert hammer(server, REQUESTS) == {200: LIMIT, 429: REQUESTS - LIMIT}
        near = LIMIT - (LIMIT * 8 + 9) // 10 + 1
        row = ["1300 per 1 day", LIMIT, REQUESTS - LIMIT, near, 0]
        told = {}
        for _ in range(200):
            board = json.loads(server.ask("/board")[1])
            told[board.pop("pid")] = board
            if len(told) >= 2:
                break
        assert len(told) >= 2
        for board in told.values():
            assert board["counts"] == [row]
            ((client, *heavy, _),) = board["heaviest"]
            assert client == board["name"]
            assert heavy == ["1300 per 1 day", LIMIT, REQUESTS - LIMIT, 0]
        with weir.Table(store) as table:  # and another process
            assert [list(counted) for counted in table.counts()] == [row]
            table.verify()
    finally:
        weir.unlink(store)
