"""The group of commands, and what is common to them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from .. import __version__
from ._errors import EXIT_CODES, INTERRUPTED

Command = TypeVar("Command", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Commands(click.Group):
    """A group whose output somebody may stop reading: ``weir … | head``."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return result


@click.group(cls=Commands, context_settings=CONTEXT, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="weir")
@click.option("-s", "--store", metavar="URI", help="The store, for every command; see below.")
@click.pass_context
def cli(context: click.Context, store: str | None) -> None:
    """Explain rate limits, replay logs through them, watch and steer running ones.

    Commands about a store take its URI by --store (-s) or from the environment's WEIR_STORE:
    shm://name, file:///path, redis://…, valkey://… or memcached://…. Without one they use the table
    of the server that runs on this host, if there is exactly one.
    """
    context.obj = store


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that it has no letters for
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


from . import check, clients, rules, simulate, tables, top  # noqa: E402, F401  (they register themselves)
