"""Statistics of a real server: each worker reports the decisions of all workers."""

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
    lambda: request.headers.get("X-Client", "none"), app=app, storage_uri=os.environ["STORE"],
    default_limits=["1300 per day"],
)

@app.get("/hit")
def hit():
    return str(os.getpid())

@app.get("/stats")
@limiter.exempt
def stats():
    table = limiter.storage
    return {"pid": os.getpid(), "counts": table.counts(), "top_clients": table.top_clients(),
            "name": table.name_of("hammer")}
"""


def test_every_worker_reports_the_decisions_of_all(serve: Callable[..., Served]) -> None:
    store = f"shm://test-{uuid.uuid4()}"
    server = serve(APP, STORE=store)
    try:
        assert hammer([server.port], "/hit", REQUESTS, headers={"X-Client": "hammer"}) == {
            200: LIMIT,
            429: REQUESTS - LIMIT,
        }
        near = LIMIT - (LIMIT * 8 + 9) // 10 + 1
        row = ["1300 per 1 day", LIMIT, REQUESTS - LIMIT, near, 0]
        reported = {}
        for _ in range(200):
            stats = json.loads(server.send("/stats")[1])
            reported[stats.pop("pid")] = stats
            if len(reported) >= 2:
                break
        assert len(reported) >= 2
        for stats in reported.values():
            assert stats["counts"] == [row]
            ((client, *counts, _),) = stats["top_clients"]
            assert client == stats["name"]
            assert counts == ["1300 per 1 day", LIMIT, REQUESTS - LIMIT, 0]
        with weir.Table(store) as table:  # and another process
            assert [list(counted) for counted in table.counts()] == [row]
            table.verify()
    finally:
        weir.unlink(store)
