"""As with Flask-Login: each user has a limit, and staff a higher one."""

import os

from flask import Flask, g, jsonify, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from werkzeug.local import LocalProxy


class User:
    def __init__(self, name=None, role="guest"):
        self.id = name
        self.role = role
        self.is_authenticated = name is not None


USERS = {"token-1": User("ann", "staff"), "token-2": User("bob", "user")}
current_user = LocalProxy(lambda: g.user)
app = Flask(__name__)


@app.before_request
def load_user():
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    g.user = USERS.get(token, User()) if scheme == "Bearer" else User()


def user_or_address():
    if current_user.is_authenticated:
        return f"user:{current_user.id}"
    return get_remote_address()


def limit_of_role():
    return {"staff": "4/day", "user": "2/day"}.get(current_user.role, "1/day")


limiter = Limiter(user_or_address, app=app, storage_uri="memory://")


@app.get("/")
@limiter.limit(limit_of_role, error_message=lambda: f"that is enough, {current_user.role}")
def index():
    return jsonify(user=current_user.id, left=limiter.current_limit.remaining)


@app.get("/expensive")
@limiter.limit("10/day", cost=lambda: 5 if current_user.role == "user" else 1)
def expensive():
    return jsonify(left=limiter.current_limit.remaining)


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
