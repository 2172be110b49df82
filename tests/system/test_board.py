"""The board under a real server: every decision is counted, whichever worker made it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import weir
from servers.web import Served, hammer

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
    return {"pid": os.getpid(), "counts": table.counts(), "heaviest": table.top_clients(),
            "name": table.name_of("hammer")}
"""


def test_every_worker_tells_all_that_was_decided(serve: Callable[..., Served]) -> None:
    store = f"shm://test-{uuid.uuid4()}"
    server = serve(APP, STORE=store)
    try:
        assert hammer([server.port], "/hit", REQUESTS, headers={"X-Client": "hammer"}) == {
            200: LIMIT,
            429: REQUESTS - LIMIT,
        }
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
