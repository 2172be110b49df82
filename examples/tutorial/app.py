"""A small shop whose clients have rate limits.

Run it with several workers, ``gunicorn -w 4 app:app``: they share the counters, and no extra
server is needed.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import TooManyRequests, Unauthorized

from weir.flask import Limiter
from weir.flask.util import get_remote_address

app = Flask(__name__)

# Clients are identified by their address, unless a route has another key function. The default
# limits apply to every route that sets no limit; each route has its own counters.
limiter = Limiter(
    get_remote_address,
    app=app,
    default_limits=["200 per day", "50 per hour"],
    headers_enabled=True,
)


class User(NamedTuple):
    name: str
    role: str


# A real shop stores these in a database.
API_KEYS = {"k-shop", "k-partner"}
TOKENS = {"t-ada": User("ada", "admin"), "t-bob": User("bob", "member")}
PASSWORDS = {"ada": "lovelace", "bob": "builder"}


@app.get("/")
def index() -> str:
    """Has the default limits: 50 per hour and 200 per day."""
    return "Welcome.\n"


@app.get("/limited")
@limiter.limit("10 per minute")
def limited() -> str:
    """A limit of the route replaces the defaults."""
    return "You are within 10 per minute.\n"


@app.post("/login")
@limiter.limit("5 per minute; 20 per hour")
def login() -> Response:
    """Two limits slow down password guessing; a request must be within both."""
    name = request.form.get("name", "")
    if PASSWORDS.get(name) != request.form.get("password"):
        raise Unauthorized("Wrong name or password.")
    return jsonify(token=next(token for token, user in TOKENS.items() if user.name == name))


# ------------------------------------------------------------------------------------- by API key


def api_key() -> str:
    """The API key, if it is valid; otherwise the address, so that new keys give no new quota."""
    key = request.headers.get("X-API-Key", "")
    return f"key:{key}" if key in API_KEYS else f"address:{get_remote_address()}"


@app.get("/prices")
@limiter.limit("30 per minute", key_func=api_key)
def prices() -> Response:
    """Counted per API key: clients with the same address but different keys do not share it."""
    if request.headers.get("X-API-Key") not in API_KEYS:
        raise Unauthorized("X-API-Key is missing or unknown.")
    return jsonify(apple=3, pear=4)


# ------------------------------------------------------------------------------- by bearer token


@app.before_request
def identify() -> None:
    """Store the user of the bearer token in ``g.user``, or None."""
    authorization = request.authorization
    token = authorization.token if authorization and authorization.type == "bearer" else None
    g.user = TOKENS.get(token or "")


def current_user() -> str:
    return f"user:{g.user.name}" if g.user else f"address:{get_remote_address()}"


def require_user() -> User:
    if not isinstance(g.user, User):
        raise Unauthorized("A bearer token is required.")
    return g.user


@app.get("/orders")
@limiter.limit("20 per minute", key_func=current_user)
def orders() -> Response:
    """Counted per user, whatever the address."""
    return jsonify(user=require_user().name, orders=[])


# ------------------------------------------------------------------------------- by the user's role

ROLE_LIMITS = {"admin": "100 per minute", "member": "3 per minute; 30 per day"}


def limit_of_role() -> str:
    """Called for each request, because roles can change while the app runs."""
    return ROLE_LIMITS[g.user.role] if g.user else "1 per minute"


@app.get("/reports")
@limiter.limit(limit_of_role, key_func=current_user)
def reports() -> Response:
    user = require_user()
    return jsonify(user=user.name, role=user.role, reports=[])


# ------------------------------------------------------------------- health, errors, workers


@app.get("/health")
@limiter.exempt
def health() -> str:
    """For the load balancer, which sends a request every second."""
    return "ok\n"


@app.errorhandler(TooManyRequests)
def too_many_requests(error: TooManyRequests) -> tuple[Response, int]:
    """A JSON body. The headers already contain ``Retry-After``."""
    return jsonify(error="too many requests", limit=error.description), 429


@app.after_request
def name_worker(response: Response) -> Response:
    """Show which worker answered."""
    response.headers["X-Worker"] = str(os.getpid())
    return response
