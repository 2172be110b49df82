"""The group of commands, and what is common to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from .. import __version__
from ._errors import EXIT_CODES

Command = TypeVar("Command", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT, epilog=EXIT_CODES)
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
    cli(args=None if arguments is None else list(arguments), prog_name="weir")


from . import check, simulate  # noqa: E402, F401  (they register themselves)
