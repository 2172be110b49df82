"""One client cannot use up the memory that all clients share."""

from __future__ import annotations

import math

import pytest
from flask import Flask, request

import weir
from weir.flask import Limiter
from weir.flask.errors import ConfigurationError

SMALL = "memory://?keys=64"


def who() -> str:
    return request.headers["X-Who"]


def limiter_of(app: Flask, **options: object) -> Limiter:
    options = {"storage_uri": SMALL, "strategy": "moving-window", **options}
    return Limiter(who, app=app, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["default_limits", "application_limits", "meta_limits"])
def test_a_window_larger_than_the_table_is_refused(where: str) -> None:
    with pytest.raises(ConfigurationError, match=r"EVALUE.*room for .* hits.*\?hits=4000000"):
        limiter_of(Flask("shop"), **{where: ["1000000 per hour"]})


def test_a_window_of_a_view_is_refused_where_it_is_declared() -> None:
    app = Flask("shop")
    limiter = limiter_of(app)
    with pytest.raises(weir.WeirError, match="sliding-window-counter"):
        limiter.limit("1000000 per hour")(lambda: "rows")
    limiter.limit("1000000 per hour", strategy="fixed-window")(lambda: "rows")
    with pytest.raises(ConfigurationError):
        limiter_of(app, strategy="fixed-window").limit("10000/day", strategy="moving-window")(who)


def test_a_window_that_was_declared_before_the_application_is_refused_with_it() -> None:
    app = Flask("shop")
    limiter = Limiter(who, storage_uri=SMALL, strategy="moving-window")
    app.add_url_rule("/", "index", limiter.limit("1000000 per hour")(lambda: "rows"))
    with pytest.raises(ConfigurationError, match="EVALUE"):
        limiter.init_app(app)


@pytest.mark.parametrize("policy", [None, "open", "closed", "local"])
def test_a_greedy_client_is_denied_and_no_other_client_gains(policy: str | None) -> None:
    app = Flask("shop")
    limiter = limiter_of(app, on_store_error=policy, headers_enabled=True)
    # The text of a limit may be known only in a request.
    limited = limiter.limit(lambda: "1000000 per hour")
    app.add_url_rule("/export", "export", limited(lambda: "rows"))
    app.add_url_rule("/", "index", limiter.limit("5 per hour")(lambda: "hello"))
    client = app.test_client()

    def get(path: str, name: str) -> tuple[int, int]:
        response = client.get(path, headers={"X-Who": name})
        return response.status_code, int(response.headers.get("Retry-After", 0))

    assert [get("/", "other")[0] for _ in range(6)] == [200] * 5 + [429]
    answers = [get("/export", "greedy") for _ in range(2000)]
    assert {status for status, _ in answers} == {200, 429}, "no error"
    status, wait = answers[-1]
    assert status == 429
    assert 0 < wait <= 3601
    assert math.isfinite(wait)
    assert [get("/", "other")[0] for _ in range(5)] == [429] * 5
    assert get("/", "third")[0] == 200
