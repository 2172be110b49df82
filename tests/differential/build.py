"""Makes a Flask application of a description, by either package."""

from __future__ import annotations

import functools
from typing import Any

import flask
import flask_limiter
from flask.views import MethodView

import weir.flask
import weir.flask.util
from differential.differences import used
from differential.values import BREACH, decorate, header, make, resolve

SETTINGS = {
    "swallow_errors": "SWALLOW_ERRORS",
    "default_limits": "DEFAULT",
    "default_limits_per_method": "DEFAULTS_PER_METHOD",
    "default_limits_exempt_when": "DEFAULTS_EXEMPT_WHEN",
    "default_limits_deduct_when": "DEFAULTS_DEDUCT_WHEN",
    "default_limits_cost": "DEFAULTS_COST",
    "application_limits": "APPLICATION",
    "application_limits_per_method": "APPLICATION_PER_METHOD",
    "application_limits_exempt_when": "APPLICATION_EXEMPT_WHEN",
    "application_limits_deduct_when": "APPLICATION_DEDUCT_WHEN",
    "application_limits_cost": "APPLICATION_COST",
    "headers_enabled": "HEADERS_ENABLED",
    "retry_after": "HEADER_RETRY_AFTER_VALUE",
    "key_prefix": "KEY_PREFIX",
    "fail_on_first_breach": "FAIL_ON_FIRST_BREACH",
    "meta_limits": "META",
    "on_breach": "ON_BREACH_CALLBACK",
    "on_meta_breach": "ON_META_BREACH_CALLBACK",
    "request_identifier": "REQUEST_IDENTIFIER",
}

BLOCK = """
def entering(view, limit):
    def function():
        with limit():
            return view()

    return function
"""


class Builder:
    """Makes one application; ``limiter`` and ``app`` are its results."""

    def __init__(self, package: Any, spec: dict[str, Any], store: str) -> None:
        self.package = package
        self.spec = spec
        self.app = flask.Flask("differential")
        options = self.options()
        if spec["config"]:
            self.configure(options)
            options = {}
        self.limiter = package.Limiter(
            package.util.get_remote_address,
            storage_uri=store if package is weir.flask else "memory://",
            strategy=spec["strategy"],
            **options,
        )
        if spec["config"]:
            self.limiter.init_app(self.app)
        if spec["filter"]:
            self.limiter.request_filter(lambda: bool(header("X-Filter")))
        self.blueprints = [
            self.blueprint(n, description) for n, description in enumerate(spec["blueprints"])
        ]
        for n, route in enumerate(spec["routes"]):
            self.add_route(n, route)
        self.register()
        if not spec["config"]:
            self.limiter.init_app(self.app)
        if package is flask_limiter and spec["options"]["request_identifier"]:
            # request-identifier: it looks for the view by the name that the identifier returns.
            used["request-identifier"] += 1
            views = self.app.view_functions
            views.update({f"{endpoint}!": function for endpoint, function in views.items()})

    def options(self) -> dict[str, Any]:
        """The limiter's arguments."""
        return {
            name: [make(self.package, item) for item in value]
            if isinstance(value, list)
            else BREACH[value]
            if "breach" in name and value in BREACH
            else resolve(value)
            for name, value in self.spec["options"].items()
            if value is not None and value != []
        }

    def configure(self, options: dict[str, Any]) -> None:
        """Puts the options into the application's configuration."""
        for name, value in options.items():
            text = value
            if isinstance(value, list):
                # There a setting is a single text, here any list.
                text = "; ".join(
                    item if isinstance(item, str) else item.limit_provider for item in value
                )
            self.app.config[f"RATELIMIT_{SETTINGS[name]}"] = text

    def exemption(self, names: list[str]) -> dict[str, Any]:
        """The arguments of ``exempt()``."""
        scope = self.package.ExemptionScope
        flags = [scope[name] for name in names]
        return {"flags": functools.reduce(lambda a, b: a | b, flags)} if flags else {}

    def decorate(self, limit: dict[str, Any]) -> Any:
        return decorate(self.package, self.limiter, limit)

    def blueprint(self, n: int, description: dict[str, Any]) -> flask.Blueprint:
        blueprint = flask.Blueprint(f"bp{n}", "differential")
        if description["limit"]:
            self.decorate(description["limit"])(blueprint)
        if description["exempt"] is not None:
            self.limiter.exempt(blueprint, **self.exemption(description["exempt"]))
        return blueprint

    def register(self) -> None:
        """Children first, so that a blueprint is complete when it is registered."""
        pairs = zip(self.blueprints, self.spec["blueprints"], strict=True)
        for blueprint, description in reversed(list(pairs)):
            parent = description["parent"]
            (self.app if parent is None else self.blueprints[parent]).register_blueprint(blueprint)

    def view(self, n: int) -> Any:
        """A view that returns the properties of the limiter for the request."""

        def view() -> Any:
            checked = [
                (str(limit.limit), limit.key, limit.breached, limit.shared)
                for limit in self.limiter.current_limits
            ]
            current = self.limiter.current_limit and str(self.limiter.current_limit.limit)
            status = int(header("X-Status", "200"))
            return f"{self.limiter.identify_request()} {checked} {current}", status

        view.__name__ = view.__qualname__ = f"view{n}"
        return view

    def block(self, n: int, route: dict[str, Any]) -> Any:
        """A view that enters its limit. Blocks are known by where they stand."""
        place: dict[str, Any] = {}
        exec(compile(BLOCK, f"view{n}.py", "exec"), place)
        function = place["entering"](self.view(n), lambda: self.decorate(route["limits"][0]))
        function.__name__ = function.__qualname__ = f"view{n}"
        return function

    def class_view(self, n: int, route: dict[str, Any]) -> Any:
        view = self.view(n)
        namespace = {
            "get": lambda self: view(),
            "post": lambda self: view(),
            "decorators": [self.decorate(limit) for limit in route["limits"]],
        }
        return type(f"Class{n}", (MethodView,), namespace).as_view(f"view{n}")

    def add_route(self, n: int, route: dict[str, Any]) -> None:
        if route["kind"] == "block":
            function = self.block(n, route)
        elif route["kind"] == "class":
            function = self.class_view(n, route)
        else:
            function = self.view(n)
            for limit in route["limits"]:
                function = self.decorate(limit)(function)
        if route["exempt"] is not None:
            function = self.limiter.exempt(function, **self.exemption(route["exempt"]))
        target = self.app if route["blueprint"] is None else self.blueprints[route["blueprint"]]
        target.add_url_rule(f"/{n}", f"view{n}", function, methods=["GET", "POST"])


def build(package: Any, spec: dict[str, Any], store: str = "memory://") -> tuple[flask.Flask, Any]:
    """The application and its limiter. Weir counts in the store, Flask-Limiter in memory."""
    builder = Builder(package, spec, store)
    return builder.app, builder.limiter
