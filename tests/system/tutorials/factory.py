"""An application factory: the limiter in its own module, blueprints, settings of a class."""

import os

from flask import Blueprint, Flask, jsonify
from flask_limiter import ExemptionScope, Limiter
from flask_limiter.util import get_remote_address

limiter = Limiter(key_func=get_remote_address)


class Config:
    RATELIMIT_DEFAULT = "5 per hour;100 per day"
    RATELIMIT_APPLICATION = "15 per day"
    RATELIMIT_STORAGE_URI = "memory://"
    RATELIMIT_STRATEGY = "fixed-window"
    RATELIMIT_HEADERS_ENABLED = True
    RATELIMIT_HEADER_RETRY_AFTER_VALUE = "http-date"
    RATELIMIT_KEY_PREFIX = "factory"


api = Blueprint("api", __name__, url_prefix="/api")
v1 = Blueprint("v1", __name__, url_prefix="/v1")
health = Blueprint("health", __name__)


@api.route("/items")
def items():
    return jsonify(items=[1, 2, 3])


@v1.route("/items")
def more_items():
    return jsonify(items=[1])


@health.route("/health")
def check():
    return "healthy"


limiter.limit("4/hour")(api)
limiter.limit("2/month", override_defaults=False)(v1)
limiter.exempt(health, flags=ExemptionScope.DEFAULT | ExemptionScope.APPLICATION)


def create_app(config=Config):
    app = Flask(__name__)
    app.config.from_object(config)
    limiter.init_app(app)
    api.register_blueprint(v1)
    app.register_blueprint(api)
    app.register_blueprint(health)

    @app.route("/")
    def index():
        return "index"

    return app


if __name__ == "__main__":
    create_app().run(port=int(os.environ.get("PORT", "5000")))
