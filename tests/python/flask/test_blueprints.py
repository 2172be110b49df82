"""Limits and exemptions of blueprints, and how they are inherited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint, Flask

from weir.flask import ExemptionScope, Limiter

A, D, M = ExemptionScope.APPLICATION, ExemptionScope.DEFAULT, ExemptionScope.META
UP, DOWN = ExemptionScope.ANCESTORS, ExemptionScope.DESCENDENTS


@pytest.fixture
def limiter(make: Any) -> Limiter:
    limiter: Limiter = make(default_limits=["50 per minute"])
    return limiter


class Tree:
    """Blueprints outer, middle and inner, each inside of the one before, each with one view."""

    def __init__(self, app: Flask, limiter: Limiter) -> None:
        def view() -> str:
            return ", ".join(str(item.limit) for item in limiter.current_limits)

        self.app = app
        self.blueprints = [
            Blueprint(name, name, url_prefix=f"/{name}") for name in ("outer", "middle", "inner")
        ]
        self.outer, self.middle, self.inner = self.blueprints
        for blueprint in self.blueprints:
            blueprint.add_url_rule("/", "view", view)

    def register(self, name: str | None = None) -> None:
        self.middle.register_blueprint(self.inner)
        self.outer.register_blueprint(self.middle)
        self.app.register_blueprint(self.outer, **({"name": name} if name else {}))


@pytest.fixture
def tree(app: Flask, limiter: Limiter) -> Tree:
    return Tree(app, limiter)


@pytest.fixture
def applied(tree: Tree, get: Any) -> Callable[[], list[str]]:
    def applied() -> list[str]:
        paths = ("/outer/", "/outer/middle/", "/outer/middle/inner/")
        return [get(path).text for path in paths]

    return applied


def test_a_limit_holds_for_each_view_and_takes_the_place_of_the_defaults(
    app: Flask, limiter: Limiter, statuses: Any
) -> None:
    blueprint = Blueprint("bp", "bp", url_prefix="/bp")
    blueprint.add_url_rule("/a", "a", lambda: "a")
    blueprint.add_url_rule("/b", "b", limiter.limit("1 per minute")(lambda: "b"))
    blueprint.add_url_rule(
        "/c", "c", limiter.limit("1 per second", override_defaults=False)(lambda: "c")
    )
    limiter.limit("2 per minute")(blueprint)
    app.register_blueprint(blueprint)
    assert statuses(3, "/bp/a") == [200, 200, 429]
    assert statuses(2, "/bp/b") == [200, 429]
    assert statuses(2, "/bp/c") == [200, 429]


def test_registered_before_the_limiter(app: Flask, statuses: Any) -> None:
    blueprint = Blueprint("bp", "bp")
    blueprint.add_url_rule("/", "view", lambda: "view")
    app.register_blueprint(blueprint)
    limiter = Limiter(lambda: "key", storage_uri="memory://")
    limiter.limit("1 per minute")(blueprint)
    limiter.init_app(app)
    assert statuses(2) == [200, 429]


def test_a_nested_blueprint_inherits(tree: Tree, limiter: Limiter, applied: Any) -> None:
    limiter.limit("3 per minute")(tree.outer)
    limiter.limit("2 per hour", override_defaults=False)(tree.inner)
    tree.register()
    assert applied() == ["3 per 1 minute", "3 per 1 minute", "3 per 1 minute, 2 per 1 hour"]


def test_a_nested_blueprint_overrides(tree: Tree, limiter: Limiter, applied: Any) -> None:
    limiter.limit("3 per minute")(tree.outer)
    limiter.limit("2 per hour")(tree.inner)
    tree.register()
    assert applied() == ["3 per 1 minute", "3 per 1 minute", "2 per 1 hour"]


def test_limits_that_leave_the_defaults(tree: Tree, limiter: Limiter, applied: Any) -> None:
    limiter.limit("3 per second", override_defaults=False)(tree.outer)
    tree.register()
    assert applied() == ["3 per 1 second, 50 per 1 minute"] * 3


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (A | D | M, ["", "3 per 1 minute", "3 per 1 minute"]),
        (D, ["3 per 1 minute", "3 per 1 minute", "3 per 1 minute"]),
        (A | D | M | DOWN, ["", "", ""]),
        (D | DOWN, ["", "", ""]),
    ],
)
def test_an_exempt_blueprint(
    tree: Tree, limiter: Limiter, applied: Any, flags: ExemptionScope, expected: list[str]
) -> None:
    limiter.limit("3 per minute")(tree.outer)
    limiter.exempt(tree.outer, flags=flags)
    tree.register()
    assert applied() == expected


def test_exempt_from_what_is_above(tree: Tree, limiter: Limiter, applied: Any) -> None:
    limiter.limit("3 per minute")(tree.outer)
    limiter.limit("2 per hour", override_defaults=False)(tree.inner)
    limiter.exempt(tree.inner, flags=UP)
    limiter.exempt(tree.middle, flags=D | UP)
    tree.register()
    assert applied() == ["3 per 1 minute", "", "50 per 1 minute, 2 per 1 hour"]


def test_a_blueprint_registered_under_another_name(
    tree: Tree, limiter: Limiter, applied: Any
) -> None:
    limiter.limit("3 per minute")(tree.outer)
    limiter.exempt(tree.inner)
    tree.register("another")
    assert applied() == ["3 per 1 minute", "3 per 1 minute", ""]


def test_a_blueprint_registered_twice(app: Flask, limiter: Limiter, statuses: Any) -> None:
    blueprint = Blueprint("bp", "bp")
    blueprint.add_url_rule("/", "view", lambda: "view")
    limiter.limit("1 per minute")(blueprint)
    app.register_blueprint(blueprint, url_prefix="/a", name="a")
    app.register_blueprint(blueprint, url_prefix="/b", name="b")
    assert statuses(2, "/a/") == [200, 429]
    assert statuses(2, "/b/") == [200, 429]


def test_meta_limits_of_a_blueprint(
    app: Flask, limiter: Limiter, statuses: Any, clock: Any
) -> None:
    blueprint = Blueprint("bp", "bp")
    blueprint.add_url_rule("/", "view", lambda: "view")
    limiter.limit("1 per second", meta_limits=["2 per day"])(blueprint)
    app.register_blueprint(blueprint)
    assert statuses(3) == [200, 429, 429]
    clock.forward(2)
    assert statuses(1) == [429]
    clock.forward(86400)
    assert statuses(1) == [200]


def test_an_unreadable_limit_of_a_blueprint(
    app: Flask, limiter: Limiter, get: Any, caplog: Any
) -> None:
    blueprint = Blueprint("bp", "bp")
    blueprint.add_url_rule("/", "view", lambda: str(limiter.current_limits[0].limit))
    limiter.limit("one per minute")(blueprint)
    app.register_blueprint(blueprint)
    assert get("/").text == "50 per 1 minute"
    assert "blueprint bp" in caplog.text
