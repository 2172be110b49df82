"""``weir tables``: the tables of this host."""

from __future__ import annotations

import time
from typing import Any

import click

from ..._core import Table
from ...errors import WeirError
from ..discover import Found, tables
from ..options import json_option
from ..output import Cell, hint, say_json, table
from ..words import count, iso, shown, span


def _contents(found: Found) -> tuple[dict[str, int], str]:
    """The contents of the table, or why it cannot be read."""
    if not found.here:
        return {}, "belongs to another container"
    try:
        with Table(found.uri, _observes=True) as opened:
            return opened.info(), ""
    except WeirError as error:
        return {}, str(error).removeprefix(f"{found.uri}: ")


@click.command("tables")
@json_option
def list_tables(as_json: bool) -> None:
    """List the tables of this user in shared memory, with the server that uses each."""
    found = [(one, *_contents(one)) for one in tables()]
    if as_json:
        say_json({"tables": [_as_json(*row) for row in found]})
        return
    if not found:
        hint("weir: this user has no table in /dev/shm")
        return
    names = ["store", "server", "keys", "of", "age", ""]
    table(names, [_row(*row) for row in found])


def _server(found: Found) -> Cell:
    if found.server is not None:
        return f"{found.server} {shown(found.command, 40)}"
    if not found.here:
        return ("in another container", "dim")
    if found.automatic:
        return ("ended", "dim")
    return f"{found.users} in use" if found.users else ("not in use", "dim")


def _age(found: Found) -> int:
    """Whole seconds since it was made."""
    return max(0, int(time.time() - found.made))


def _row(found: Found, info: dict[str, int], problem: str) -> list[Cell]:
    return [
        found.uri,
        _server(found),
        count(info["keys"]) if info else "",
        count(info["keys_max"]) if info else "",
        span(_age(found)),
        (problem, "warn") if problem else "",
    ]


def _as_json(found: Found, info: dict[str, int], problem: str) -> dict[str, Any]:
    return {
        "store": found.uri,
        "running": found.runs,
        "server": found.server,
        "command": found.command or None,
        "users": found.users,
        "made": iso(found.made),
        "age": _age(found),
        "table": info or None,
        "problem": problem or None,
    }
