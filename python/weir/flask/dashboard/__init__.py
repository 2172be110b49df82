"""A live page that shows admitted and denied requests, and blocks and allows clients.

::

    from weir.flask import dashboard

    dashboard.mount(app, limiter, authorize=lambda: current_user.is_admin)

mounts it at ``/weir``. For all workers of the host together, it shows admitted and denied requests
per second and per limit, the clients that are denied and admitted most, and the state of the store.
It can block clients, allow them, and remove these rules.

The application serves everything that the page needs; nothing is loaded from other hosts. Updates
are server-sent events. A worker that serves one request at a time (gunicorn's ``sync``) sends one
event and closes the connection, so that open pages do not occupy a worker. A worker with threads
keeps one stream open for ten seconds at a time, and sends single events to other pages. A worker
with greenlets keeps every stream open for a minute at a time.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import ipaddress
import json
import math
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, make_response, request
from werkzeug.wrappers import Response as BaseResponse

from weir.errors import StorageError, WeirError
from weir.stores.instrumented import counted_form

from ..._locks import after_fork
from ..context import answer_of
from ..errors import ConfigurationError
from ..limiter import Limiter
from ..state import AppState
from ._snapshot import snapshot

__all__ = ["blueprint", "mount"]

#: Seconds between two events.
INTERVAL = 1.0
#: Duration of a stream in seconds if it does not occupy a thread.
LONGEST = 60.0

#: Duration of a stream in seconds if it occupies a thread, and the number of such streams in a
#: process. Other pages get one event and connect again.
LONGEST_OF_THREAD = 10.0
STREAMS_MAX = 1
#: The longest name of a client, in bytes.
CLIENT_MAX = 256
#: The longest duration of a rule with an end, in seconds: a year.
FOR_MAX = 366 * 86400

#: The form in which a key is shown.
_HASH = re.compile("#[0-9a-f]{16}")

_COOKIE = "weir-dashboard"
_TOKEN_HEADER = "X-CSRF-Token"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def mount(
    app: Flask,
    limiter: Limiter,
    *,
    authorize: Callable[[], Any],
    url_prefix: str = "/weir",
    name: str = "weir_dashboard",
) -> Blueprint:
    """Serve the page at ``url_prefix`` of ``app``. Returns its :func:`blueprint`."""
    page = blueprint(limiter, authorize=authorize, name=name)
    app.register_blueprint(page, url_prefix=url_prefix)
    return page


def blueprint(
    limiter: Limiter, *, authorize: Callable[[], Any], name: str = "weir_dashboard"
) -> Blueprint:
    """Return the page as a blueprint, to be registered under any prefix.

    authorize: called in the request's context, before anything is shown or changed. If it returns
    something true, the request continues; if false, the answer is 403. A response (for example a
    redirect to the login page), a text or a tuple is sent as if a view had returned it.
    name: the name of the blueprint. A second page on the same application needs another one.

    The limiter does not count the requests of the page itself.

    :raises ConfigurationError: ``EOPTION`` if ``authorize`` is not callable; without it, everyone
        could read the page and block clients
    """
    if not callable(authorize):
        raise ConfigurationError(
            "EOPTION",
            "the dashboard needs authorize=, a function that returns whether this request may see "
            "the page and block clients",
        )
    page = Blueprint(name, __name__)
    limiter.exempt(page)
    page.before_request(functools.partial(_authorize, limiter, authorize))
    page.after_request(_protect)
    page.add_url_rule("/", "index", functools.partial(_index, limiter))
    page.add_url_rule("/page.css", "style", functools.partial(_asset, "page.css", "css"))
    page.add_url_rule("/page.js", "script", functools.partial(_asset, "page.js", "javascript"))
    page.add_url_rule("/state", "state", functools.partial(_state, limiter))
    page.add_url_rule("/events", "events", functools.partial(_stream, limiter))
    page.add_url_rule("/rules", "rules", functools.partial(_rules, limiter), methods=["POST"])
    return page


# ----------------------------------------------------------------------------------------- views


def _authorize(limiter: Limiter, authorize: Callable[[], Any]) -> Any:
    answer = answer_of(authorize)
    if not answer:
        abort(403)
    if isinstance(answer, BaseResponse | str | tuple):
        return answer
    if not limiter.initialized:
        return _refused(503, "the limiter is disabled, or was not given to an application")
    return None


def _protect(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"
    return response


def _index(limiter: Limiter) -> Response:
    session = request.cookies.get(_COOKIE, "")
    if len(session) != 43:
        session = secrets.token_urlsafe(32)
    html = _file("page.html").replace("{{ token }}", _token(limiter._state, session))
    response = make_response(html)
    response.set_cookie(
        _COOKIE,
        session,
        httponly=True,
        secure=request.is_secure,
        samesite="Strict",
        # The browser uses the folder of the page that it sees, which a proxy may have changed.
        path=None,
    )
    return response


def _asset(name: str, kind: str) -> Response:
    return Response(_file(name), mimetype=f"text/{kind}")


def _state(limiter: Limiter) -> Response:
    return jsonify(_readable(snapshot(limiter._state)))


def _stream(limiter: Limiter) -> Response:
    threaded = bool(request.environ.get("wsgi.multithread"))
    response = Response(_events(limiter._state, threaded), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # nginx would buffer the events
    return response


def _rules(limiter: Limiter) -> Any:
    if not _genuine(limiter._state):
        return _refused(403, "this page is out of date: load it again")
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        body = None
    if not isinstance(body, dict):
        return _refused(400, 'send {"action": "block", "client": "10.1.2.3", "seconds": 3600}')
    return _act(limiter._state, body)


# --------------------------------------------------------------------------------------- showing


@functools.cache
def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _readable(value: Any) -> Any:
    """The value with infinities, which JSON does not have, replaced by null."""
    if isinstance(value, dict):
        return {name: _readable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _has_greenlets() -> bool:
    """Whether a waiting stream occupies no thread."""
    for name in ("gevent.monkey", "eventlet.patcher"):
        patched = getattr(sys.modules.get(name), "is_module_patched", None)
        if patched is None:
            patched = getattr(sys.modules.get(name), "is_monkey_patched", None)
        if patched is not None and patched("threading" if "gevent" in name else "thread"):
            return True
    return False


class _Streams:
    """Counts the streams that occupy a thread of this process."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.open = threading.Semaphore(STREAMS_MAX)


_streams = _Streams()


def _after_fork() -> None:
    _streams.renew()


after_fork(_after_fork)


def _events(state: AppState, threaded: bool) -> Iterator[str]:
    """The state as server-sent events: once, or each second for some time.

    threaded: whether the worker has threads for requests; at most one of them is occupied.
    """
    if not threaded:
        yield from _events_for(state, 0.0)
    elif _has_greenlets():
        yield from _events_for(state, LONGEST)
    elif (streams := _streams.open).acquire(blocking=False):
        try:
            yield from _events_for(state, LONGEST_OF_THREAD)
        finally:
            streams.release()
    else:
        yield from _events_for(state, 0.0)


def _events_for(state: AppState, lasts: float) -> Iterator[str]:
    until = time.monotonic() + lasts
    yield f"retry: {int(INTERVAL * 1000)}\n\n"
    while True:
        yield f"data: {json.dumps(_readable(snapshot(state)))}\n\n"
        if time.monotonic() + INTERVAL > until:
            return
        time.sleep(INTERVAL)


# ---------------------------------------------------------------------------------------- acting


def _token(state: AppState, session: str) -> str:
    """The token of the page that was sent with this session's cookie.

    state: without a ``secret_key``, the application uses the secret of its table, which the workers
    of a host share. (Because of the NUL, the name is hashed even by a table that reveals names.)
    """
    key = current_app.secret_key or state.stats_table.name_of(f"weir dashboard\0{session}")
    if isinstance(key, str):
        key = key.encode()
    digest = hmac.digest(key, b"weir dashboard " + session.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode()


def _genuine(state: AppState) -> bool:
    """Whether the request comes from this page, and not from another one in the same browser."""
    session = request.cookies.get(_COOKIE, "")
    sent = request.headers.get(_TOKEN_HEADER, "")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    return (
        len(session) == 43
        and site == "same-origin"
        and hmac.compare_digest(sent.encode(), _token(state, session).encode())
    )


def _refused(status: int, why: str) -> tuple[Response, int]:
    return jsonify(error=why), status


def _act(state: AppState, body: dict[str, Any]) -> Any:
    client, seconds = body.get("client"), body.get("seconds")
    if not isinstance(client, str) or not client.strip() or not _is_short_text(client):
        return _refused(400, f"client: a name of 1 to {CLIENT_MAX} bytes is needed")
    client = client.strip()
    if seconds is not None and (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 1 <= seconds <= FOR_MAX
    ):
        return _refused(400, f"seconds: 1 to {FOR_MAX}, or null for a rule without an end")
    until = None if seconds is None else time.time() + seconds
    lists = state.instrumented or state.stats_table
    given, client = client, counted_form(state.stats_table, client)
    try:
        match body.get("action"):
            case "block":
                lists.block(client, until)
            case "allow":
                lists.allow(client, until)
            case "unlist":
                if not lists.unlist(client):
                    return _refused(404, f"there is no rule for {client}")
            case other:
                return _refused(400, f"there is no action {other!r}: block, allow or unlist")
    except StorageError as error:
        return _refused(503, str(error))
    except (WeirError, ValueError) as error:
        return _refused(400, str(error))
    current_app.logger.info("weir dashboard: %s %s", body["action"], _logged(client))
    if client == given:
        return "", 204
    what = "the network" if "/" in client else "the address"
    return jsonify(message=f"{body['action']}: {client}, {what} that is counted")


def _is_short_text(client: str) -> bool:
    """Whether the text is short enough and has no unpaired surrogates, which JSON allows."""
    try:
        return len(client.encode()) <= CLIENT_MAX
    except UnicodeEncodeError:
        return False


def _logged(client: str) -> str:
    """A client's name for the log: an address, a range or a hash, otherwise "a key"."""
    try:
        return str(ipaddress.ip_network(client, strict=False))
    except ValueError:
        return client if _HASH.fullmatch(client) else "a key"
