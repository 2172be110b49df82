"""What a refused client gets: JSON for 429, callbacks, the exception's own handler."""

import os

from flask import Flask, jsonify, make_response
from flask_limiter import Limiter, RequestLimit
from flask_limiter.errors import RateLimitExceeded
from flask_limiter.util import get_remote_address

app = Flask(__name__)


def default_error_responder(request_limit: RequestLimit):
    return make_response(f"slow down: {request_limit.limit} of {request_limit.key}", 429)


limiter = Limiter(get_remote_address, app=app, storage_uri="memory://")


@app.errorhandler(429)
def ratelimit_handler(e):
    if e.response is not None:
        return e.response
    return make_response(jsonify(error=f"ratelimit exceeded {e.description}", name=e.name), 429)


@app.errorhandler(RateLimitExceeded)
def exceeded(e):
    return ratelimit_handler(e)


@app.route("/json")
@limiter.limit("1/day")
def plain():
    return "json"


@app.route("/message")
@limiter.limit("1/day", error_message="chill!")
def message():
    return "message"


@app.route("/callback")
@limiter.limit("1/day", on_breach=default_error_responder)
def callback():
    return "callback"


@app.route("/caught")
@limiter.exempt
def caught():
    try:
        with limiter.limit("1/day", scope="mails"):
            return "sent"
    except RateLimitExceeded as error:
        return f"later, {error.description}", 503


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
