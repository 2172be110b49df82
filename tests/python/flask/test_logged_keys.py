"""Keys may be secrets: by default, log lines show their hash; addresses are shown in clear."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest
from flask import Flask

SECRET = "k-secret\n2026 FAKE line\x1b[2J"


@pytest.fixture
def hello(app: Flask) -> None:
    app.add_url_rule("/", "hello", lambda: "hello")


def lines(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "flask-limiter"]


@pytest.mark.parametrize("options", [{}, {"shadow": True}])
@pytest.mark.parametrize(
    ("key", "shown"),
    [("10.0.0.1", "(10.0.0.1)"), ("2001:db8::/64", "(2001:db8::/64)"), (SECRET, "(#")],
)
def test_a_key_is_hashed_but_an_address(
    make: Any, hello: None, get: Any, caplog: Any, key: str, shown: str, options: dict[str, Any]
) -> None:
    make(key_func=lambda: key, default_limits=["1 per minute"], **options)
    caplog.set_level("INFO", "flask-limiter")
    for _ in range(2):
        get("/")
    (line,) = lines(caplog)
    assert shown in line
    assert "k-secret" not in line


def test_reveal_keys_shows_them_escaped(make: Any, hello: None, get: Any, caplog: Any) -> None:
    make(key_func=lambda: SECRET + "x" * 5000, default_limits=["1 per minute"], reveal_keys=True)
    caplog.set_level("INFO", "flask-limiter")
    for _ in range(2):
        get("/")
    (line,) = lines(caplog)
    assert "(k-secret\\n2026 FAKE line\\x1b[2J" in line
    assert line.isprintable()
    assert len(line) <= 1024


def test_under_compat_the_log_line_is_flask_limiters() -> None:
    program = f"""
        import logging, weir
        weir.install_as_flask_limiter()
        from flask import Flask
        from flask_limiter import Limiter
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        app = Flask("shop")
        limiter = Limiter(lambda: {SECRET!r}, app=app, default_limits=["1 per minute"])
        app.add_url_rule("/", "hello", lambda: "hello")
        client = app.test_client()
        print([client.get("/").status_code for _ in range(2)])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert done.stdout == "[200, 429]\n"
    expected = (
        "ratelimit 1 per 1 minute (k-secret\\n2026 FAKE line\\x1b[2J) exceeded at endpoint: hello"
    )
    assert expected in done.stderr.splitlines()
