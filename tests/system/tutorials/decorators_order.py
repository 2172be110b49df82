"""Several limits on a view, an auth decorator around them, a function that views call."""

import os
from functools import wraps

from flask import Flask, abort, g, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

app = Flask(__name__)
limiter = Limiter(
    get_remote_address,
    app=app,
    default_limits=["100 per day"],
    application_limits=["1000 per day"],
    storage_uri="memory://",
)


def require_key(view):
    @wraps(view)
    def wrapper(*args, **kwargs):
        g.key = request.args.get("key")
        if not g.key:
            abort(401)
        return view(*args, **kwargs)

    return wrapper


@app.route("/limited")
@require_key
@limiter.limit("5/day")
@limiter.limit("2/hour", key_func=lambda: g.key)
def limited():
    return f"{g.key}: " + ", ".join(str(limit.limit) for limit in limiter.current_limits)


@limiter.limit("1/day")
def send_mail():
    return "sent"


@app.route("/mail")
def mail():
    return send_mail()


@app.route("/slow")
@limiter.limit(
    "1 per 2 hours; 10 per 3 days", deduct_when=lambda response: response.status_code != 404
)
def slow():
    if request.args.get("missing"):
        abort(404)
    return "slow"


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
