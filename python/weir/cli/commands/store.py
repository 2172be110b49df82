"""``weir store``: what a store needs on its server."""

from __future__ import annotations

from typing import Any

import click

from ...errors import ConfigurationError, ParseError, StorageError, is_outage
from ...stores.registry import Storage, storage_from_string
from ..errors import Away, Unable, Unreadable
from ..open_store import chosen
from ..output import say
from ..words import shown

#: Seconds to wait for the server, which may be far away. A decision has less.
PATIENCE = 5.0


@click.group()
def store() -> None:
    """Prepare a store's server."""


@store.command()
@click.option("-s", "--store", "store_uri", metavar="URI", help="The store.")
@click.option("--print", "only_print", is_flag=True, help="Print the SQL and do not run it.")
@click.pass_context
def init(context: click.Context, store_uri: str | None, only_print: bool) -> None:
    """Create what the store needs: on PostgreSQL, tables and functions.

    Run this again after an upgrade of Weir: functions are replaced, counters are kept. With
    --print, it prints the SQL for an administrator to run.
    """
    uri = chosen(context, store_uri)
    scheme = uri.partition("://")[0]
    nothing = f"nothing to create: {shown(scheme)}:// needs no tables or functions"
    if scheme in ("memory", "shm", "file"):  # opening it would create the table
        raise Unable(nothing)
    try:
        opened = storage_from_string(uri)
    except (ParseError, ConfigurationError) as error:
        raise Unreadable(str(error)) from None
    if not isinstance(opened, Storage) or not opened.init_text():
        raise Unable(nothing)
    patient: Any = opened
    if getattr(patient, "deadline", None) is not None:
        patient.deadline = max(patient.deadline, PATIENCE)
    if only_print:
        click.echo(opened.init_text().rstrip())
        return
    try:
        opened.init()
    except StorageError as error:
        raise (Away if is_outage(error) else Unable)(str(error)) from None
    finally:
        close = getattr(opened, "close", None)
        if close:
            close()
    say("The store is ready.")
