"""weir.testing, as the tests of an application use it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from weir import Table, parse
from weir.flask import Limiter
from weir.testing import Clock, assert_limited, reset_limits


def shop() -> Flask:
    app = Flask(__name__)
    limiter = Limiter(lambda: "alice", app=app)

    @app.route("/login", methods=["GET", "POST"])
    @limiter.limit("5/minute")
    def login() -> str:
        return "hello"

    return app


def test_a_limit_is_found_where_it_is() -> None:
    response = assert_limited(shop().test_client(), "/login", after=5, method="POST", json={})
    assert response.status_code == 429


@pytest.mark.parametrize(
    ("after", "words"),
    [(6, "request 6 was denied with 429; the first 6 should have passed"),
     (4, "request 5 was answered with 200; it should have been denied with 429. Is the limiter")],
)  # fmt: skip
def test_an_assertion_names_the_actual_limit(after: int, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        assert_limited(shop().test_client(), "/login", after=after)


def test_a_path_that_is_not_there_is_named() -> None:
    with pytest.raises(AssertionError, match=r"answered with 404; .* Are the path and the method"):
        assert_limited(shop().test_client(), "/elsewhere", after=1)


def test_a_clock_moves_what_weir_sees_and_goes_back_to_the_true_time() -> None:
    table, true = Table("memory://"), time.time
    with Clock(1_700_000_000.0) as clock:
        assert table.decide([parse("1/minute")], "a").allowed
        clock.move(59)
        assert not table.decide([parse("1/minute")], "a").allowed
        clock.move(1)
        assert table.decide([parse("1/minute")], "a").now == 1_700_000_060.0
    assert time.time is true


def test_a_clock_moves_stores_with_their_own_clock() -> None:
    calls: list[Any] = []

    class Store:
        def set_clock(self, *arguments: Any) -> None:
            calls.append(arguments)

    with Clock(5.0, Store()) as clock:
        clock.move(2)
    assert calls == [(5.0, True), (7.0, True), ()]


def test_limits_are_reset() -> None:
    app = shop()
    for _ in range(2):
        assert_limited(app.test_client(), "/login", after=5)
        reset_limits(app)
    with pytest.raises(AssertionError, match="has no limiter"):
        reset_limits(Flask("bare"))


PROJECT = {
    "conftest.py": """
import pytest
from shop import app as the_app

pytest_plugins = ["weir.testing.fixtures"]

@pytest.fixture
def app():
    return the_app
""",
    "shop.py": """
import time
from contextlib import contextmanager
from flask import Flask
from weir.flask import Limiter
from weir.stores.state import StateStorage

class OwnClock(StateStorage):
    \"\"\"As a server: it does not go by time.time().\"\"\"
    STORAGE_SCHEME = ("own-clock",)
    states = {}

    @contextmanager
    def transaction(self):
        yield self.states

    def now(self, transaction):
        return time.clock_gettime(time.CLOCK_REALTIME)

    def read(self, states, names):
        return {name: states[name] for name in names if name in states}

    def write(self, states, changes):
        states.update((name, value) for name, value, _ in changes)

    def reset(self):
        self.states.clear()

app = Flask(__name__)
limiter = Limiter(lambda: "alice", app=app, storage_uri="STORE")

@app.get("/")
@limiter.limit("2/minute")
def view():
    return "here"
""",
    "test_shop.py": """
from weir.testing import assert_limited

def test_one(app, fresh_limits, clock):
    assert_limited(app.test_client(), "/", after=2)
    clock.move(60)
    assert_limited(app.test_client(), "/", after=2)

def test_two(app, fresh_limits):
    assert_limited(app.test_client(), "/", after=2)
""",
}


@pytest.mark.parametrize("store", ["memory://", "own-clock://"])
def test_the_fixtures_in_another_project(tmp_path: Path, store: str) -> None:
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text.replace("STORE", store))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "2 passed" in done.stdout, done.stdout
