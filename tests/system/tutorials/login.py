"""Logins: failed ones count, a class-based view, and a callback that records the clients."""

import os

from flask import Flask, request
from flask.views import MethodView
from flask_limiter import Limiter, RequestLimit
from flask_limiter.util import get_remote_address

app = Flask(__name__)
breaches: list[str] = []


def note(request_limit: RequestLimit) -> None:
    breaches.append(request_limit.key)


limiter = Limiter(
    get_remote_address,
    app=app,
    storage_uri="memory://",
    on_breach=note,
    headers_enabled=True,
    meta_limits=["3/hour"],
)


class Login(MethodView):
    decorators = [  # noqa: RUF012
        limiter.limit("2/minute", deduct_when=lambda response: response.status_code == 401)
    ]

    def post(self):
        if request.form.get("password") == "secret":
            return "welcome"
        return "who are you?", 401


app.add_url_rule("/login", view_func=Login.as_view("login"))


@app.route("/breaches")
@limiter.exempt
def list_breaches():
    return ",".join(breaches)


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
