"""The signature before version 3: the application first; and a handler that returns JSON."""

import os

from flask import Flask, jsonify, make_response
from flask_limiter import HEADERS, Limiter
from flask_limiter.util import get_remote_address

app = Flask(__name__)
app.config["RATELIMIT_HEADERS_ENABLED"] = True

limiter = Limiter(app, key_func=get_remote_address, default_limits=["3 per minute"])
limiter.header_mapping = {HEADERS.LIMIT: "X-RateLimit-Limit"}

in_common = limiter.shared_limit("2/hour", scope="search")


@app.errorhandler(429)
def ratelimit_handler(e):
    return make_response(jsonify(error=f"ratelimit exceeded {e.description}"), 429)


@app.route("/")
def index():
    return "index"


@app.route("/search/users")
@in_common
def users():
    return "users"


@app.route("/search/posts")
@in_common
def posts():
    return "posts"


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
