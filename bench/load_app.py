"""The example app behind a proxy, with an expensive route, for bench/load.py.

``/work`` takes about as long as a page with a few database queries (``LOAD_WORK``
rounds of PBKDF2), under the limit ``LOAD_LIMIT``; ``/unlimited`` does the same without a limit.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from werkzeug.middleware.proxy_fix import ProxyFix

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples/tutorial"))

from app import app, limiter

# One trusted proxy, which sets the client's address. Here the load generator sets it.
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)  # type: ignore[method-assign]

ROUNDS = int(os.environ.get("LOAD_WORK", "10000"))


def work() -> str:
    return hashlib.pbkdf2_hmac("sha256", b"weir", b"load", ROUNDS).hex() + "\n"


app.add_url_rule(
    "/work", "work", limiter.limit(os.environ.get("LOAD_LIMIT", "10 per second"))(work)
)
app.add_url_rule("/unlimited", "unlimited", limiter.exempt(lambda: work()))
