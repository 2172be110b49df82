"""``weir.flask.limits``: limits as objects, and the example that the README begins with."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, request

import pages
from weir.flask import Limit, Limiter


def test_the_first_example_of_the_readme_sends_an_exact_retry_after(clock: Any) -> None:
    example = next(
        one for one in pages.blocks(pages.ROOT / "README.md") if one.language == "python"
    )
    names: dict[str, Any] = {"__name__": "readme"}
    exec(example.text.replace("app=app,", 'app=app, storage_uri="memory://",'), names)
    client = names["app"].test_client()
    answers = [client.get("/search") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    wait = int(answers[-1].headers["Retry-After"])
    clock.forward(wait - 1)
    assert client.get("/search").status_code == 429
    clock.forward(1)
    assert client.get("/search").status_code == 200


def test_options_of_a_limit_replace_those_of_the_defaults(clock: Any) -> None:
    app = Flask("shop")
    by_team = Limit("4/minute", key_function=lambda: request.headers["Team"], cost=2)
    Limiter(
        lambda: request.headers["User"],
        app=app,
        storage_uri="memory://",
        default_limits=[by_team, "3/minute"],
        default_limits_cost=1,
    )
    app.get("/")(lambda: "")
    client = app.test_client()

    def get(user: str, team: str) -> int:
        return client.get("/", headers={"User": user, "Team": team}).status_code

    assert [get("ann", "red"), get("bob", "red"), get("eve", "red")] == [200, 200, 429]
    assert [get("eve", "blue"), get("eve", "green"), get("eve", "black")] == [200, 200, 200]
    assert get("eve", "white") == 429


@pytest.mark.parametrize(("cost", "counted"), [(None, 1), (0, 1), (3, 3), (lambda: 2, 2)])
def test_the_cost_of_a_limit(cost: Any, counted: int) -> None:
    app = Flask("shop")
    limiter = Limiter(
        lambda: "ann",
        app=app,
        storage_uri="memory://",
        default_limits=[Limit("6/minute", cost=cost)],
    )
    app.get("/")(lambda: str(limiter.current_limit.remaining))  # type: ignore[union-attr]
    assert app.test_client().get("/").text == str(6 - counted)
