"""``weir top``: rates per limit, top clients, and the state of the store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..._text import hide_password, printable
from ...errors import WeirError
from ..errors import Unreadable
from ..open_store import opened
from ..options import store_options
from ..output import NEED_RICH, Cell, has_rich, is_terminal, say, say_json, table
from ..store import LimitCounts, Store, TopClient, answering
from ..words import count, iso, moment, shown, span

if TYPE_CHECKING:
    from rich.console import RenderableType


#: Seconds between the two samples of one snapshot.
BRIEF = 0.5

_HOW_TO_END = "Ctrl-C ends this view"

#: Clients shown, at most.
SHOWN_MAX = 500
#: Clients read, of which the busiest are shown: all that a table lists, so that a client that has
#: just become busy is not hidden by clients with larger totals.
CLIENTS_READ = 4096


class Sample(NamedTuple):
    """The counts of a store at one moment."""

    at: float  # monotonic
    now: float
    counts: list[LimitCounts]
    clients: dict[tuple[str, str], TopClient]
    health: dict[str, Any]


def take_sample(store: Store) -> Sample:
    """Read the store's counts."""
    listed = [
        *store.top_clients("allowed", CLIENTS_READ),
        *store.top_clients("denied", CLIENTS_READ),
    ]
    clients = {(client.client, client.limit): client for client in listed}
    return Sample(time.monotonic(), time.time(), store.counts(), clients, store.health())


class Limit(NamedTuple):
    """A limit, counted since its table was made, and a second."""

    limit: str
    allowed: int
    denied: int
    near: int
    shadow: int
    allowed_per_second: float
    denied_per_second: float


class Client(NamedTuple):
    """A client under one limit."""

    client: str
    limit: str
    allowed: int
    denied: int
    allowed_per_second: float
    denied_per_second: float
    last: float


class Snapshot(NamedTuple):
    """The difference of two samples, and the store's state."""

    store: str
    now: float
    seconds: float
    limits: list[Limit]
    clients: list[Client]
    health: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {
            "time": iso(self.now),
            "store": self.store,
            "seconds": round(self.seconds, 3),
            "limits": [limit._asdict() for limit in self.limits],
            "clients": [{**one._asdict(), "last": iso(one.last)} for one in self.clients],
            "health": self.health,
        }


def between(store: str, before: Sample, after: Sample, most: int) -> Snapshot:
    """The difference of two samples.

    most: how many clients.
    """
    seconds = max(after.at - before.at, 1e-9)

    def rate(new: int, old: int) -> float:
        # A table that was created between the samples counts from 0.
        return round(max(0, new - old) / seconds, 2) if after.at > before.at else 0.0

    was = {counts.limit: (counts.allowed, counts.denied) for counts in before.counts}
    limits = []
    for counts in after.counts:
        allowed, denied = was.get(counts.limit, (0, 0))
        rates = rate(counts.allowed, allowed), rate(counts.denied, denied)
        limits.append(Limit(*counts, *rates))
    clients = []
    for key, client in after.clients.items():
        then = before.clients.get(key)
        # A client that was not listed before may have sent some requests before the first sample.
        rates = (
            (0.0, 0.0)
            if then is None and client.error
            else (
                rate(client.allowed, then.allowed if then else 0),
                rate(client.denied, then.denied if then else 0),
            )
        )
        clients.append(
            Client(client.client, client.limit, client.allowed, client.denied, *rates, client.last)
        )
    limits.sort(key=_limit_order, reverse=True)
    clients.sort(key=_client_order, reverse=True)
    return Snapshot(store, after.now, seconds, limits, clients[:most], after.health)


def _limit_order(limit: Limit) -> tuple[float, ...]:
    return limit.denied_per_second, limit.allowed_per_second, limit.denied, limit.allowed


def _client_order(client: Client) -> tuple[float, ...]:
    return (
        client.denied_per_second,
        client.allowed_per_second,
        client.denied,
        client.allowed,
        client.last,
    )


# ---------------------------------------------------------------------------------------- output

Section = tuple[str, Sequence[str], list[list[Cell]]]


def _per_second(rate: float, style: str = "") -> Cell:
    text = f"{rate:,.0f}" if rate >= 100 else f"{rate:,.1f}"
    return (text, style if rate else "dim")


def sections(snapshot: Snapshot) -> list[Section]:
    """Title, columns and rows of each table."""
    limits: list[list[Cell]] = [
        [
            one.limit,
            _per_second(one.allowed_per_second, "good"),
            _per_second(one.denied_per_second, "bad"),
            count(one.allowed),
            count(one.denied),
            count(one.near),
            count(one.shadow),
        ]
        for one in snapshot.limits
    ]
    clients: list[list[Cell]] = [
        [
            shown(one.client),
            one.limit,
            _per_second(one.denied_per_second, "bad"),
            _per_second(one.allowed_per_second, "good"),
            count(one.denied),
            count(one.allowed),
            _ago(snapshot.now - one.last),
        ]
        for one in snapshot.clients
    ]
    health: list[list[Cell]] = [
        [name, text] for name, text in _health(snapshot.health, snapshot.now)
    ]
    return [
        ("Limits", ["limit", "admitted/s", "denied/s", "admitted", "denied", "near", "shadow"],
         limits),
        ("Top clients",
         ["client", "limit", "denied/s", "admitted/s", "denied", "admitted", "latest"], clients),
        ("Store", ["", ""], health),
    ]  # fmt: skip


def _ago(seconds: float) -> str:
    return "now" if seconds < 2 else f"{span(int(seconds))} ago"


def _health(health: dict[str, Any], now: float) -> list[tuple[str, Cell]]:
    rows: list[tuple[str, Cell]] = []
    if health.get("removed"):
        rows.append(("table", ("removed: its server has ended or was replaced", "bad")))
    info = health.get("table")
    if info:
        rows.append(("keys", f"{count(info['keys'])} of {count(info['keys_max'])}"))
        rows += [
            (what, (count(info[what]), "warn" if info[what] else ""))
            for what in ("evictions", "recoveries")
        ]
        if info["lines_used"]:
            share = 100 * info["lines_used"] // max(1, info["lines_max"])
            rows.append(("moving-window pool", f"{share} % used"))
    remote = health.get("remote")
    if remote:
        latency = remote.get("latency")
        answer: Cell = ("does not answer", "bad")
        if latency is not None:
            answer = f"answers in {span(latency)}"
        rows.append((remote["store"], answer))
        if remote["fallback"]:
            rows.append(("fallback", ("this host decides without the store", "bad")))
        rows += [(f"errors: {kind}", (count(number), "warn" if number else ""))
                 for kind, number in remote["errors"].items()]  # fmt: skip
        for host in remote["hosts"]:
            rows.append((f"host {shown(host['name'], 40)}", _host(host, now)))
    return rows


def _host(host: dict[str, Any], now: float) -> str:
    """The state of one host."""
    words = []
    if isinstance(host["seen"], int | float):
        words.append(f"seen {_ago(max(0.0, now - host['seen']))}")
    return ", ".join(words) or "here"


def _heading(snapshot: Snapshot) -> str:
    return f"{snapshot.store}   {moment(snapshot.now)}"


def _print(snapshot: Snapshot) -> None:
    say(_heading(snapshot), "head")
    for title, columns, rows in sections(snapshot):
        say()
        if rows:
            table(columns, rows, title)
        else:
            say(f"{title}: none yet")


#: Lines of the live view that are not rows: heading, titles, column names, rules.
_FRAME = 18


def _fitting(snapshot: Snapshot, height: int) -> Snapshot:
    """The busiest rows, as many as fit on a terminal of this height."""
    room = max(4, height - _FRAME - len(_health(snapshot.health, snapshot.now)))
    clients = snapshot.clients[: max(2, room - min(len(snapshot.limits), room // 3))]
    limits = snapshot.limits[: max(2, room - len(clients))]
    return snapshot._replace(limits=limits, clients=clients)


def _drawn(snapshot: Snapshot, height: int, problem: str = "") -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from ..output import numeric, rich_table

    parts: list[RenderableType] = [Text(_heading(snapshot), "bold")]
    for title, columns, rows in sections(_fitting(snapshot, height)):
        if rows:
            parts.append(rich_table(columns, rows, title, numeric(columns, rows)))
        else:
            parts.append(Text(f"\n{title}: none yet", "dim"))
    parts.append(Text(shown(problem, 200), "red") if problem else Text(_HOW_TO_END, "dim"))
    return Group(*parts)


# -------------------------------------------------------------------------------------- command


def _snapshots(store: Store, most: int, interval: float) -> Callable[[], Snapshot]:
    """A function that waits for the interval and returns its snapshot."""
    name = hide_password(store.uri)
    last = take_sample(store)

    def after_interval() -> Snapshot:
        nonlocal last
        time.sleep(max(0.0, last.at + interval - time.monotonic()))
        before, last = last, take_sample(store)
        return between(name, before, last, most)

    return after_interval


@click.command()
@click.option("--once", is_flag=True, help="Print once and exit.")
@click.option("--interval", type=click.FloatRange(0.1, 3600), metavar="SECONDS",
              help="Seconds between updates; default 1. With --json: repeat.")  # fmt: skip
@click.option("-n", "--top", "most", default=15, show_default=True, metavar="N",
              type=click.IntRange(1, SHOWN_MAX), help="Number of clients to show.")  # fmt: skip
@store_options
@click.pass_context
def top(
    context: click.Context,
    once: bool,
    interval: float | None,
    most: int,
    store_uri: str | None,
    as_json: bool,
) -> None:
    """Watch rates per limit, the top clients, and the state of the store.

    Refreshes each second until Ctrl-C. --once and --json measure half a second and end; --json with
    --interval continues, one line of JSON each time. Clients that are not IP addresses are shown as
    # and 16 digits unless the application reveals them.
    """
    live = not (once or as_json) and is_terminal()
    if live and not has_rich():
        raise Unreadable(f"{NEED_RICH}; --once and --json work without it")
    with answering(), contextlib.suppress(KeyboardInterrupt):
        store = opened(context, store_uri)
        if live:
            _watch(store, most, interval or 1.0)
            return
        again = as_json and interval is not None and not once
        after_interval = _snapshots(store, most, interval or BRIEF)
        while True:
            snapshot = after_interval()
            if as_json:
                say_json(snapshot.as_json())
            else:
                _print(snapshot)
            if not again:
                return


def _watch(store: Store, most: int, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    first = take_sample(store)
    snapshot = between(hide_password(store.uri), first, first, most)
    after_interval = _snapshots(store, most, interval)
    drawn = _drawn(snapshot, console.height)
    with Live(drawn, console=console, screen=True, auto_refresh=False) as view:
        while True:
            problem = ""
            try:
                snapshot = after_interval()
            except WeirError as error:  # it may come back
                problem = printable(error)
                time.sleep(interval)
            view.update(_drawn(snapshot, console.height, problem), refresh=True)
