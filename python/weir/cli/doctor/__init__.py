"""``weir doctor``: what this machine and an application provide, and what to change."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import click

from ..errors import FINE as EXIT_FINE
from ..errors import WARNED
from ..options import json_option
from ..output import Cell, say, say_json, table
from .application import check_application
from .finding import BAD, FINE, WARN, Arguments, Finding, error_line, one_line
from .machine import (
    check_conflicts,
    check_parts,
    check_python,
    check_servers,
    check_shared_memory,
    check_store,
)

#: Version of the output of --json. It increases if a name or a status changes its meaning.
SCHEMA = 1

#: Characters of a finding: the value that is wrong is often at the end.
_TEXT_MAX = 1000

_CHECKS: tuple[Callable[[Arguments], Iterator[Finding]], ...] = (
    check_python,
    check_parts,
    check_shared_memory,
    check_servers,
    check_store,
    check_conflicts,
    check_application,
)


def findings(arguments: Arguments) -> Iterator[Finding]:
    """All findings. If a check raises an exception, this is a finding, and the others still run."""
    for check in _CHECKS:
        try:
            yield from check(arguments)
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            text = error_line(error)
            yield Finding(name, BAD, text, "report this error to the authors of Weir")


def _stdout_to_stderr() -> tuple[int, int] | None:
    """Let what is written to file descriptor 1 go to standard error; the two, 1 saved."""
    try:
        output, errors = sys.__stdout__.fileno(), sys.__stderr__.fileno()  # type: ignore[union-attr]
        saved = os.dup(output)
    except (AttributeError, OSError, ValueError):  # closed, or not a file
        return None
    os.dup2(errors, output)
    return output, saved


@contextlib.contextmanager
def _clean_output() -> Iterator[None]:
    """Send what an application and its C libraries print to standard error."""
    sys.stdout.flush()
    moved = _stdout_to_stderr()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if sys.__stdout__ is not None and moved:
            sys.__stdout__.flush()
        if moved:
            os.dup2(moved[1], moved[0])
            os.close(moved[1])


def _silence_exit() -> None:
    """Send what the application prints when the process exits to standard error."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    _stdout_to_stderr()
    sys.stdout = sys.stderr


@click.command("doctor")
@click.option("--app", metavar="MODULE:NAME", help="A Flask application to check (FLASK_APP).")
@click.option("-s", "--store", metavar="URI", help="A store to check.")
@json_option
@click.pass_context
def doctor(context: click.Context, app: str | None, store: str | None, as_json: bool) -> int:
    """Show what this machine and an application provide, and what to change.

    Checks Python, the C library, /dev/shm, the store that auto:// selects, Redis, other
    packages, and with --app an application's store, proxies and limits. The exit code is 1 if
    there is something to change.
    """
    chosen = store or context.obj or os.environ.get("WEIR_STORE") or ""
    with _clean_output():
        found = list(findings(Arguments(app or os.environ.get("FLASK_APP") or "", chosen)))
    atexit.register(_silence_exit)  # runs before the functions that the application registered
    if as_json:
        say_json({"schema": SCHEMA, "findings": [one._asdict() for one in found]})
    else:
        show(found)
    return EXIT_FINE if all(one.status == FINE for one in found) else WARNED


def show(found: list[Finding]) -> None:
    """The findings as a table, then what to do about those that are not fine."""
    styles = {FINE: "good", WARN: "warn", BAD: "bad"}
    rows: list[list[Cell]] = []
    for one in found:
        rows.append([(one.status, styles[one.status]), one.name, one_line(one.text, _TEXT_MAX)])
    table(["", "what", "finding"], rows, most=_TEXT_MAX)
    for fix in dict.fromkeys(
        f"{one.name}: {one.fix}" for one in found if one.fix and one.status != FINE
    ):
        say(fix)
