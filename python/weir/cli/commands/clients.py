"""``weir show`` and ``weir reset``: one client's counters."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import click

from ..bounds import strategy_of
from ..errors import WARNED, Unable, Unreadable
from ..limit_text import read_limits, with_strategy
from ..open_store import opened
from ..options import limit_options, store_options
from ..output import Cell, hint, say, say_json, table
from ..rule_text import rule_json, rule_text
from ..store import By, Counter, Store, TopClient, answering, counted_text, is_hash
from ..words import count, iso, moment, shown, some, span

_NONE_KNOWN = (
    "no limit is registered yet: weir.flask registers limits when it answers requests; "
    "otherwise name them with --limit"
)

_HASH_ONLY = "the counters of a client cannot be found by its hash; pass the client itself"

#: The number of top clients among which the rank of a client is determined.
RANKED = 1000


class Used:
    """The use of one limit by a client."""

    def __init__(self, counter: Counter, client: str) -> None:
        verdict = counter.peek(client)
        self.limit = counter.limit
        self.scope = shown(_scope(counter))
        self.most = verdict.limit
        self.remaining = verdict.remaining
        self.reset_at = verdict.reset_at

    @property
    def used(self) -> int:
        return self.most - self.remaining

    def as_json(self) -> dict[str, Any]:
        return {
            "limit": str(self.limit),
            "strategy": strategy_of(self.limit),
            "scope": self.scope,
            "used": self.used,
            "remaining": self.remaining,
            "reset_at": iso(self.reset_at),
        }


def _scope(counter: Counter) -> str:
    """The rest of the counter's key, usually the endpoint."""
    return counter.after.lstrip("/")


def use_of(counter: Counter, key: str, counted: str) -> Used:
    """What a client has used, by the counted form of its address or by the given form."""
    used = Used(counter, counted)
    if counted != key and not used.used:
        plain = Used(counter, key)
        return plain if plain.used else used
    return used


def place_of(store: Store, client: str, by: By) -> tuple[int | None, list[TopClient]]:
    """A client's rank among the top clients, from 1, and its entries."""
    name = client if is_hash(client) else store.name_of(client)
    clients = store.top_clients(by, RANKED)
    mine = [top for top in clients if top.client in (client, name)]
    order = list(dict.fromkeys(top.client for top in clients if getattr(top, by)))
    place = next((i for i, one in enumerate(order, 1) if one in (client, name)), None)
    return place, mine


class Selection(NamedTuple):
    """The limits that a command covers; without ``limits``: all registered limits."""

    limits: str | None
    strategy: str | None
    tz: str | None
    scope: str | None

    def counters(self, store: Store, key: str) -> list[Counter]:
        """The counters to show or reset."""
        if self.limits is None and (self.strategy or self.tz or self.scope is not None):
            raise Unreadable("--strategy, --tz and --scope need --limit")
        if is_hash(key):
            return []
        if self.limits is None:
            return list(store.counters())
        after = f"/{self.scope}" if self.scope else ""
        read = read_limits(self.limits, self.strategy, self.tz)
        limits = [with_strategy(limit, self.strategy) for limit in read]
        return [Counter(store.storage, limit, "", after) for limit in limits]


@click.command()
@click.argument("key")
@limit_options
@store_options
@click.pass_context
def show(
    context: click.Context,
    key: str,
    limits: str | None,
    strategy: str | None,
    tz: str | None,
    scope: str | None,
    store_uri: str | None,
    as_json: bool,
) -> None:
    """Show what the client KEY has used of each limit, its rule, and its rank among all clients.

    KEY is what the limiter's key function returns, usually an IP address; or # and 16 digits, as
    `weir top` shows other clients. Nothing is charged. Without weir.flask, name the limits by
    --limit: `limiter.hit(item, "ann", "login")` is `--limit 10/minute --scope login`.
    """
    with answering():
        store = opened(context, store_uri)
        counters = Selection(limits, strategy, tz, scope).counters(store, key)
        counted = store.counted(key)
        used = [use_of(counter, key, counted) for counter in counters]
        rule, denied, allowed = None, None, None
        entries: list[TopClient] = []
        try:
            rule = store.rule_of(key)
            denied, entries = place_of(store, counted, "denied")
            allowed, _ = place_of(store, counted, "allowed")
        except Unable:  # the store has only counters, and the command asks for these
            if limits is None:
                raise
    if as_json:
        say_json(
            {
                "client": counted,
                "limits": [one.as_json() for one in used],
                "rule": rule_json(rule),
                "place": {"denied": denied, "allowed": allowed},
                "counted": [_entry_json(entry) for entry in entries],
            }
        )
        return
    say(f"{counted_text(key, counted).rstrip(',')}: {rule_text(rule)}", "head")
    say(_place_text(denied, allowed))
    if used:
        say()
        table(["limit", "scope", "used", "remaining", "reset"], [_used_row(one) for one in used])
    else:
        hint(f"weir: {_HASH_ONLY if is_hash(key) else _NONE_KNOWN}")
    if entries:
        say()
        table(["limit", "admitted", "denied", "latest"], [_entry_row(entry) for entry in entries])


def _entry_row(entry: TopClient) -> list[Cell]:
    return [entry.limit, count(entry.allowed), count(entry.denied), moment(entry.last)]


def _entry_json(entry: TopClient) -> dict[str, Any]:
    row = entry._asdict()
    del row["client"]
    return {**row, "last": iso(entry.last)}


def _place_text(denied: int | None, allowed: int | None) -> str:
    if denied is None and allowed is None:
        return "Not among the top clients."
    words = [
        f"number {place} by {what} requests"
        for place, what in ((denied, "denied"), (allowed, "admitted"))
        if place is not None
    ]
    return f"Top clients: {', '.join(words)}."


def _used_row(used: Used) -> list[Cell]:
    wait = used.reset_at - time.time()
    style = "bad" if used.remaining == 0 else ""
    return [
        f"{used.limit}",
        used.scope,
        (count(used.used), style),
        (count(used.remaining), style),
        f"in {span(wait)}" if used.used and wait > 0 else "",
    ]


@click.command()
@click.argument("key")
@limit_options
@store_options
@click.pass_context
def reset(
    context: click.Context,
    key: str,
    limits: str | None,
    strategy: str | None,
    tz: str | None,
    scope: str | None,
    store_uri: str | None,
    as_json: bool,
) -> None:
    """Clear the counters of the client KEY. Its rule stays: see `weir unlist`.

    KEY and --limit are as in `weir show`.
    """
    with answering():
        store = opened(context, store_uri)
        counters = Selection(limits, strategy, tz, scope).counters(store, key)
        counted = store.counted(key)
        used = [use_of(counter, key, counted) for counter in counters]
        for counter in counters:
            for form in dict.fromkeys([counted, key]):
                counter.clear(form)
        if counters:
            store.drop_denials()
    if as_json:
        say_json({"client": counted, "cleared": [one.as_json() for one in used]})
    elif counters:
        busy = sum(one.used > 0 for one in used)
        name = counted_text(key, counted).rstrip(",")
        say(f"{name}: {some(len(counters), 'counter')} cleared, {busy} of them in use")
    else:
        hint(f"weir: {_HASH_ONLY}" if is_hash(key) else f"weir: {_NONE_KNOWN}; nothing was cleared")
    if not counters:
        context.exit(WARNED)
