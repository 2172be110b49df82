"""Exempt requests: a filter by header, one by address, a condition of one route."""

import os

from flask import Flask, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

app = Flask(__name__)
limiter = Limiter(
    app=app,
    key_func=get_remote_address,
    default_limits=["2 per day"],
    storage_uri="memory://",
)


@limiter.request_filter
def header_whitelist():
    return request.headers.get("X-Internal", "") == "true"


@limiter.request_filter
def ip_whitelist():
    return request.remote_addr == "10.9.8.7"


@app.route("/")
def index():
    return "index"


@app.route("/admins")
@limiter.limit("1/day", exempt_when=lambda: request.args.get("admin") == "yes")
def admins():
    return "admins"


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
