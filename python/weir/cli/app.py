"""The group of commands; :mod:`.main` adds the commands to it."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .. import __version__
from .errors import EXIT_CODES

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Commands(click.Group):
    """Ends quietly when the reader of a pipe does: ``weir … | head``."""

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
    """Explain rate limits, replay logs, watch and control running limiters.

    Commands on a store take its URI by --store (-s) or from the environment variable WEIR_STORE:
    shm://name, file:///path, redis://…, valkey://…, postgresql://… or memcached://…. Without a URI,
    they use the table of the server that runs on this host, if there is exactly one. WEIR_STORES
    names the modules of custom stores.
    """
    context.obj = store
