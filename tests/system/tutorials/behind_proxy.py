"""Behind nginx: ProxyFix, or a key function that reads the header itself."""

import os

from flask import Flask, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from werkzeug.middleware.proxy_fix import ProxyFix

app = Flask(__name__)
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)


def cloudflare_address():
    return request.headers.get("CF-Connecting-IP") or get_remote_address()


limiter = Limiter(get_remote_address, app=app, storage_uri="memory://")


@app.route("/")
@limiter.limit("2/day")
def index():
    return limiter.current_limit.key


@app.route("/cloudflare")
@limiter.limit("2/day", key_func=cloudflare_address)
def cloudflare():
    return limiter.current_limit.key


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
