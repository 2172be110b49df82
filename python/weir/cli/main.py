"""Registers all commands and runs one."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import click

from .app import cli
from .commands import check, clients, rules, simulate, store, tables, top
from .doctor import doctor
from .errors import INTERRUPTED

__all__ = ["cli", "run"]

for _command in (
    check.check,
    doctor,
    clients.show,
    clients.reset,
    rules.block,
    rules.allow,
    rules.unlist,
    rules.list_rules,
    simulate.simulate,
    store.store,
    tables.list_tables,
    top.top,
):
    cli.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names may have characters that the terminal cannot encode.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(
            None if arguments is None else list(arguments), prog_name="weir", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        click.echo("weir: interrupted", err=True)
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
