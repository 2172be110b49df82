"""Counters on Redis, with options for its client."""

import os

from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

app = Flask(__name__)
limiter = Limiter(
    get_remote_address,
    app=app,
    storage_uri=os.environ.get("REDIS_URL", "redis://localhost:6379"),
    storage_options={"socket_connect_timeout": 30},
    strategy="moving-window",
    default_limits=["3 per hour"],
    headers_enabled=True,
    key_prefix="tutorial",
)


@app.route("/")
def index():
    return "index"


@app.route("/reset")
@limiter.exempt
def reset():
    limiter.reset()
    return type(limiter.storage).__name__


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
