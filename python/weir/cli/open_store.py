"""Selects the store of a command: by its URI, or the only one of this host."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import click

from .._text import hide_password
from ..stores.registry import is_known
from ..stores.tenants import DEFAULT, Tenant
from .discover import Found, other_users, tables
from .errors import Away, Unable, Unreadable
from .local import LocalStore, open_existing
from .options import PREFIX
from .output import hint
from .store import Store
from .words import shown

#: Names of tables that hold the statistics of a remote store, but no counters.
_BESIDE_REMOTE = re.compile(r"-stats\d+$", re.ASCII)


def chosen(context: click.Context, uri: str | None) -> str:
    """The store's URI: from the command, the group, the environment, or the only one."""
    given = uri or context.obj or os.environ.get("WEIR_STORE")
    if given and given.partition("?")[0] != "auto://":
        return str(given)
    return only_one().uri


def only_one() -> Found:
    """The table of the running server; ends the command if there is none or more than one."""
    running = [found for found in tables() if found.runs]
    if len(running) == 1:
        return running[0]
    if not running:
        elsewhere = other_users()
        raise Away(
            "no running server has a table on this host. Name the store with --store URI or "
            "WEIR_STORE: shm://name, file:///path, redis://…, postgresql://… or memcached://…; "
            "`weir tables` lists the tables of this host"
            + (
                f". A table belongs to the user who created it: sudo -u {elsewhere[0]} weir …"
                if elsewhere
                else ""
            )
        )
    lines = "".join(f"\n    --store {found.uri}   {shown(found.command)}" for found in running)
    raise Away(f"{len(running)} servers have a table on this host; choose one:{lines}")


def _name_applications(tenants: Sequence[Tenant]) -> None:
    """Print the applications that a command covers, if any of them has a prefix."""
    labels = [shown(tenant.label) for tenant in tenants if tenant.label]
    if not labels:
        return
    text = ", ".join(labels) + (", and those without a prefix" if DEFAULT in tenants else "")
    choose = "; choose one with --prefix" if len(tenants) > 1 else ""
    hint(f"weir: this covers the applications with these prefixes: {text}{choose}")


def opened(context: click.Context, uri: str | None) -> Store:
    """The store to work with; ends the command if it cannot be opened."""
    name = chosen(context, uri)
    scheme, colon, rest = name.partition("://")
    base = scheme.partition("+")[0]
    if not colon:
        raise Unreadable(
            f"{shown(hide_password(name))!r} is not a URI: write shm://name, file:///path, redis://…"
        )
    prefix = context.meta.get(PREFIX)
    if base in ("memory", "shm", "file") and prefix is not None:
        raise Unreadable(
            f"{base}:// is the table of one application: --prefix is for stores such as redis:// "
            "that several share"
        )
    if base == "memory":
        raise Unable(
            "memory:// is private to one process: configure shm://name or auto:// in the "
            "application, so that commands can open its table"
        )
    if base in ("shm", "file"):
        if _BESIDE_REMOTE.search(rest.partition("?")[0]) and context.command.name != "top":
            raise Unable(
                f"{shown(name)} contains only statistics of a remote store; counters and rules are "
                "in that store: pass its URI with --store"
            )
        return LocalStore(name, open_existing(name))
    if is_known(scheme):
        from .remote import RemoteStore

        store = RemoteStore(name, prefix)
        _name_applications(store.tenants)
        return store
    raise Unreadable(
        f"unknown scheme {shown(scheme, 20)!r}: use one of shm://, file://, redis://, valkey://, "
        "memcached://, postgresql://, or list the module of a custom store in WEIR_STORES"
    )
