"""Custom headers and header names, and the limits that a view can read."""

import os

from flask import Flask, jsonify
from flask_limiter import HeaderNames, Limiter
from flask_limiter.util import get_remote_address

app = Flask(__name__)
limiter = Limiter(
    get_remote_address,
    app=app,
    storage_uri="memory://",
    headers_enabled=True,
    header_name_mapping={
        HeaderNames.LIMIT: "X-My-Limit",
        HeaderNames.RESET: "X-My-Reset",
        HeaderNames.REMAINING: "X-My-Remaining",
    },
    default_limits=["50 per day", "3 per hour"],
)


@app.after_request
def add_header(response):
    if limiter.current_limit:
        response.headers["X-Left"] = f"{limiter.current_limit.remaining} left"
    return response


@app.route("/")
def index():
    return jsonify([str(limit.limit) for limit in limiter.current_limits])


@app.route("/mine")
@limiter.limit("2/hour", override_defaults=False)
def mine():
    return jsonify(
        [
            (str(limit.limit), limit.key, limit.remaining, limit.window[1], limit.breached)
            for limit in limiter.current_limits
        ]
    )


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
