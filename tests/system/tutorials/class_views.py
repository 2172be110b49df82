"""Class-based views, shared limits, limits of some methods."""

import os

from flask import Flask, request
from flask.views import MethodView, View
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

app = Flask(__name__)
limiter = Limiter(get_remote_address, app=app, storage_uri="memory://", headers_enabled=True)
mysql_limit = limiter.shared_limit("3/hour", scope="mysql")


class Items(MethodView):
    decorators = [limiter.limit("2/hour", per_method=True)]  # noqa: RUF012

    def get(self):
        return "items"

    def post(self):
        return "created", 201


class Report(View):
    methods = ["GET", "POST"]  # noqa: RUF012
    decorators = [limiter.limit("1/hour", methods=["POST"])]  # noqa: RUF012

    def dispatch_request(self):
        return request.method


app.add_url_rule("/items", view_func=Items.as_view("items"))
app.add_url_rule("/report", view_func=Report.as_view("report"))


@app.route("/r1")
@mysql_limit
def r1():
    return "r1"


@app.route("/r2")
@mysql_limit
def r2():
    return "r2"


def host_scope(endpoint_name):
    return request.host.partition(":")[0]


@app.route("/hosts/<name>")
@limiter.shared_limit("2/hour", scope=host_scope)
def hosts(name):
    return name


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
