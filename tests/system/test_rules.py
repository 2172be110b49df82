"""A rule that is set from outside holds in every worker of a server at once."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

from weir import Table

WORKERS = 4
REQUESTS = 80

APP = """
import os
from flask import Flask, request
from weir.flask import Limiter

app = Flask(__name__)
limiter = Limiter(lambda: request.headers.get("Client", "nobody"), app=app,
                  default_limits=["1000000/day"])

@app.route("/", methods=["GET"])
def answer():
    return f"{os.getpid()} {limiter.storage.uri} {limiter.storage.namespace}"

@app.errorhandler(429)
def refuse(error):
    return f"{os.getpid()} {error.rule}", 429
"""


def send(server: Any, client: str) -> dict[str, collections.Counter[int]]:
    """The number of responses by worker and status."""
    found: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for _ in range(REQUESTS):
        status, body = server.send("/", Client=client)
        found[body.split()[0]][status] += 1
        if status == 429:
            assert body.split()[1:] == ["block"]
    return found


def statuses(found: dict[str, collections.Counter[int]]) -> set[int]:
    return {status for counts in found.values() for status in counts}


def test_a_rule_holds_in_every_worker_at_once(serve: Callable[..., Any]) -> None:
    server = serve(APP, workers=WORKERS)
    uri, namespace = server.send("/", Client="nobody")[1].split()[1:]
    seen: set[str] = set()
    with Table(uri, namespace=int(namespace)) as table:
        for client, rule in (("203.0.113.7", "203.0.113.0/24"), ("2001:db8::1", "2001:db8::/32"),
                             ("tenant/7", "tenant/7")):  # fmt: skip
            assert statuses(send(server, client)) == {200}
            table.block(rule)
            found = send(server, client)  # no request passes
            assert statuses(found) == {429}
            seen |= set(found)
            table.allow(client)
            assert statuses(send(server, client)) == {200}
            assert table.unlist(client)
            table.unlist(rule)
            assert statuses(send(server, client)) == {200}
        assert len(seen) > 1  # one worker alone would prove nothing
