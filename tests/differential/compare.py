"""Asks both applications, and compares what they answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import flask

from differential.differences import META_SCOPES, used


@dataclasses.dataclass
class Reply:
    status: int
    body: str
    headers: dict[str, str]
    #: How many limits denied the request.
    denied: int
    #: Whether it was a meta limit.
    meta: bool


def send(app: flask.Flask, limiter: Any, request: dict[str, Any]) -> Reply:
    denied = []

    def record(response: flask.Response) -> flask.Response:
        denied[:] = [limit for limit in limiter.current_limits if limit.breached]
        return response

    with app.test_request_context(
        request["path"],
        method=request["method"],
        headers=request["headers"],
        environ_base={"REMOTE_ADDR": request["address"]},
    ) as context:
        context._after_request_functions.append(record)
        response = app.full_dispatch_request()
    return Reply(
        response.status_code,
        response.get_data(as_text=True),
        dict(response.headers),
        len(denied),
        any(part in META_SCOPES for limit in denied for part in limit.key.split("/")),
    )


def compare(spec: dict[str, Any], request: dict[str, Any], theirs: Reply, ours: Reply) -> list[str]:
    """What is different and has no name."""
    wrong = []
    if ours.status != theirs.status:
        return [f"status {theirs.status} became {ours.status}"]
    names = ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"]
    skip = set()
    refused = ours.status == 429
    if refused and (ours.denied > 1 or (ours.meta and theirs.meta and ours.body != theirs.body)):
        used["deciding-limit"] += 1
        skip.update(names, ["body", "Content-Length"])
    if refused and "Retry-After" in ours.headers:
        # One is rounded up, the other is rounded twice.
        waits = ours.headers["Retry-After"], theirs.headers.get("Retry-After", "")
        used["retry-after"] += waits[0] != waits[1]
        exact = spec["strategy"] == "fixed-window" and "body" not in skip
        if not exact or "GMT" in waits[0] or abs(int(waits[0]) - int(waits[1] or -9)) <= 1:
            skip.add("Retry-After")
    if spec["strategy"] == "sliding-window-counter":
        used["sliding-window-reset"] += 1
        skip.update(names[2:])
    if spec["strategy"] == "moving-window" and ours.headers.get(names[0]) == ours.headers.get(
        names[1]
    ):
        used["unused-moving-window"] += 1
        skip.update(names[2:])
    if "body" not in skip and ours.body != theirs.body:
        wrong.append(f"body {theirs.body!r} became {ours.body!r}")
    for name in sorted({*ours.headers, *theirs.headers}):
        if name not in skip and ours.headers.get(name) != theirs.headers.get(name):
            wrong.append(f"{name}: {theirs.headers.get(name)} became {ours.headers.get(name)}")
        if (name in ours.headers) != (name in theirs.headers):
            wrong.append(f"{name} is there for one only")
    return wrong
