"""An API: limits by key and by plan, a blueprint, and Redis named but not used."""

import os

from flask import Blueprint, Flask, abort, g, jsonify, request
from flask_limiter import Limiter, RateLimitExceeded
from flask_limiter.storage import RedisStorage
from flask_limiter.util import get_remote_address

PLANS = {"free-key": "2 per minute", "paid-key": "4 per minute;100 per day"}

limiter = Limiter(key_func=get_remote_address, strategy="moving-window")
api = Blueprint("api", __name__, url_prefix="/api")


def api_key():
    return request.headers.get("X-API-KEY", "anonymous")


def limit_of_plan():
    return PLANS.get(api_key(), "1 per minute")


@api.before_request
def require_key():
    if api_key() == "anonymous":
        abort(401)
    g.plan = limit_of_plan()


@api.route("/data")
@limiter.limit(limit_of_plan, key_func=api_key)
def data():
    return jsonify(plan=g.plan, left=limiter.current_limit.remaining)


@api.route("/report", methods=["POST"])
@limiter.limit("1 per minute", key_func=api_key, error_message="one report a minute")
def report():
    return jsonify(done=True)


def create_app():
    app = Flask(__name__)
    storage = "redis://localhost:6379" if os.environ.get("USE_REDIS") else "memory://"
    app.config["RATELIMIT_STORAGE_URI"] = storage
    app.config["REDIS_CLASS"] = RedisStorage.__name__
    limiter.init_app(app)
    app.register_blueprint(api)

    @app.errorhandler(RateLimitExceeded)
    def too_many(error):
        return jsonify(error=error.description), 429

    return app


if __name__ == "__main__":
    create_app().run(port=int(os.environ.get("PORT", "5000")))
