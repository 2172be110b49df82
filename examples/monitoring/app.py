"""A small shop with metrics for Prometheus.

gunicorn -w 2 -b 127.0.0.1:8000 app:app
prometheus --config.file=prometheus.yml --web.listen-address=127.0.0.1:9090
"""

from __future__ import annotations

import logging
import os
import sys

from flask import Flask

from weir.flask import Limiter
from weir.flask.metrics import mount
from weir.flask.util import get_remote_address, trusted_proxies

app = Flask(__name__)

# Behind nginx on the same host, the client is in X-Forwarded-For.
key_func = trusted_proxies("127.0.0.1") if os.environ.get("BEHIND_PROXY") else get_remote_address
limiter = Limiter(key_func, app=app, default_limits=["100 per minute"])

# /metrics. Everyone who can reach this port can read it; restrict access with authorize=….
mount(app, limiter)

# The audit log on stderr: one JSON object per line.
logging.getLogger("weir.audit").addHandler(logging.StreamHandler(sys.stderr))


@app.get("/")
def index() -> str:
    return "Welcome.\n"


@app.get("/search")
@limiter.limit("10 per minute")
def search() -> str:
    return "Found.\n"
