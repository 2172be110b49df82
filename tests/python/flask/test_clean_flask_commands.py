"""``flask limiter`` prints clean lines, and no passwords."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask

import weir
from weir.errors import warn
from weir.flask import Limiter
from weir.flask.commands import cli

EVIL = {
    "escape": "a\x1b[2Jz",
    "csi": "a\x9b31mz",
    "lines": "a\nFORGED z",
    "return": "a\rFORGED",
    "separators": "a\u2028FORGED\u2029\x85z",
    "bidi": "a\u202ez\u2066",
    "surrogate": "a\udcffz",
    "long": "a" * 50_000,
    "markup": "[bold red]a[/bold red]",
}
EACH = pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)


def check_clean(result: Any) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    for line in re.split("\n", result.output):
        assert line.isprintable(), ascii(line)
        assert not line.strip().startswith("FORGED"), result.output
    assert len(result.output) < 50_000


@EACH
def test_names_are_shown_clean(app: Flask, make: Any, text: str) -> None:
    limiter: Limiter = make(default_limits=["5 per hour"], headers_enabled=True)
    app.add_url_rule("/a", text.replace(".", "_"), lambda: "a")
    state = app.extensions["weir"][limiter]
    state.headers.mapping = dict.fromkeys(state.headers.mapping, text)
    run = app.test_cli_runner()
    for arguments in (
        ["config"],
        ["limits"],
        ["limits", "--key", text],
        ["limits", "--endpoint", text],
        ["limits", "--endpoint", f"no {text}"],
        ["limits", "--path", f"/no/{text}"],
        ["limits", "--path", "/a", "--method", text],
        ["clear", "--key", text, "-y"],
        ["clear", "--key", text],
    ):
        check_clean(run.invoke(cli, arguments))


@pytest.mark.parametrize(
    "uri",
    [
        "redis://:SECRET@127.0.0.1:1",
        "redis://:SEC[SECRET@127.0.0.1:1",
        "redis://:SEC/SECRET@127.0.0.1:1/0",
        "redis://SECRET@127.0.0.1:1",
        "redis://127.0.0.1:1/0?password=SECRET",
        "redis://user:SE%43RET@127.0.0.1:1",
    ],
)
def test_passwords_are_not_shown(
    app: Flask, make: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    limiter: Limiter = make(default_limits=["5 per hour"])
    app.extensions["weir"][limiter].storage_uri = uri
    result = app.test_cli_runner().invoke(cli, ["config"])
    assert result.exit_code == 0, result.output
    assert "SEC" not in result.output
    assert "SE%43" not in result.output
    assert "***" in result.output


@EACH
def test_warnings_are_clean(text: str) -> None:
    with pytest.warns(weir.WeirWarning) as caught:
        warn(f"the application {text} is odd")
    assert str(caught[0].message).isprintable()
    assert len(str(caught[0].message)) <= 1024
