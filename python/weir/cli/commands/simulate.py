"""``weir simulate``: applies limits to a log of times and keys, with the C core."""

from __future__ import annotations

import gzip
import shutil
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from ..._core import CHECKS_MAX, Limit
from ...strategies import keeps_hits
from ..bounds import same_counter
from ..errors import WARNED, Unreadable
from ..limit_text import normalized, read_limits, with_strategy
from ..options import json_option, strategy_choice, tz_option
from ..output import Cell, hint, say, say_json, say_styled, table
from ..simulate import picture
from ..simulate.formats import FORMATS
from ..simulate.reader import Reader
from ..simulate.replay import Client, Replay, in_order
from ..words import count, iso, moment, shown, some, span

#: Seconds between two lines of progress, on a terminal and elsewhere.
PROGRESS = (0.5, 10.0)


def opened(name: str) -> BinaryIO:
    """The log; ``-`` is standard input, and a file that ends in .gz is decompressed."""
    if name == "-":
        return sys.stdin.buffer
    try:
        if name.endswith(".gz"):
            return cast(BinaryIO, gzip.open(name, "rb"))
        return Path(name).open("rb")
    except OSError as error:
        raise Unreadable(f"cannot read {shown(name)}: {error.strerror}") from None


class Progress:
    """Reports progress on standard error if the replay takes long."""

    def __init__(self, name: str, quiet: bool) -> None:
        self.quiet = quiet
        self.terminal = sys.stderr.isatty()
        self.pause = PROGRESS[not self.terminal]
        self.next = time.monotonic() + self.pause
        self.shown = False
        self.size = 0
        if name != "-" and not name.endswith(".gz"):
            self.size = Path(name).stat().st_size

    def show(self, reader: Reader) -> None:
        """Prints the progress, if the last line is old enough."""
        if self.quiet or time.monotonic() < self.next:
            return
        self.next = time.monotonic() + self.pause
        share = f", {min(100, 100 * reader.bytes // self.size)} %" if self.size else ""
        text = f"weir: {some(reader.lines, 'line')} read{share}"
        click.echo(f"\r{text}" if self.terminal else text, err=True, nl=not self.terminal)
        self.shown = True

    def end(self) -> None:
        if self.shown and self.terminal:
            click.echo("\r" + " " * 60 + "\r", err=True, nl=False)


@click.command()
@click.argument("limits")
@click.argument("file", default="-")
@click.option(
    "--strategy", "strategies", multiple=True, type=strategy_choice,
    help="Strategy of limits that do not set one; repeat it to compare.",
)  # fmt: skip
@click.option("--max-delay", type=float, metavar="SECONDS", help="Longest delay of leaky buckets.")
@tz_option
@click.option("--format", "form", type=click.Choice([*FORMATS]), help="Default: detected.")
@click.option(
    "--key-column", "columns", multiple=True, metavar="NAME",
    help="Column of the key, by name or number; several columns form one key. "
    "Access logs: ip (default), user, method, path, status, agent, referer, vhost.",
)  # fmt: skip
@click.option("--time-column", metavar="NAME", help="Column of the time.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(0), metavar="N",
              help="Number of clients to show.")  # fmt: skip
@click.option("--svg", type=click.Path(dir_okay=False), help="Also draw the timeline as SVG.")
@click.option("--clients", default=100_000, show_default=True, metavar="N",
              type=click.IntRange(1, 10_000_000), help="Clients to distinguish.")  # fmt: skip
@click.option("--hits", type=click.IntRange(1, 2**29), metavar="N",
              help="Number of hits of moving windows to store.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Do not show progress on standard error.")
@json_option
@click.pass_context
def simulate(
    context: click.Context,
    limits: str,
    file: str,
    strategies: Sequence[str],
    max_delay: float | None,
    tz: str | None,
    form: str | None,
    columns: Sequence[str],
    time_column: str | None,
    top: int,
    svg: str | None,
    clients: int,
    hits: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Apply LIMITS to the requests in FILE and show which clients would have been denied.

    FILE (- or none: standard input) has one request per line: "TIME KEY", CSV, JSON lines, or an
    access log of nginx or Apache; the format is detected from the first lines. Times are seconds
    since the epoch or ISO 8601. All limits apply to each key. The exit code is 1 if some lines
    could not be read.
    """
    names = dict.fromkeys(strategies) if strategies else [None]
    texts = read_limits(limits, None if len(names) > 1 else next(iter(names)), tz)
    replays = [
        Replay(name or _name(texts), _once(texts, name, max_delay), clients, hits) for name in names
    ]
    with opened(file) as log:
        try:
            reader = Reader(log, form, columns, time_column)
            late = _run(reader, replays, Progress(file, quiet))
        except (EOFError, OSError, zlib.error) as error:  # not a .gz file, or truncated
            raise Unreadable(f"cannot read the log: {error}") from None
    if reader.lines and reader.bad == reader.lines:
        raise Unreadable(f"no line of {shown(file)} can be read as {reader.format}{_bad(reader)}")
    if svg is not None:
        _write(svg, picture.svg(replays, f"{normalized(texts)}"))
    if as_json:
        say_json(_as_json(texts, reader, late, replays, top))
    else:
        _print(texts, reader, late, replays, top)
    context.exit(WARNED if reader.bad else 0)


def _name(limits: Sequence[Limit]) -> str:
    """The name of a replay without --strategy."""
    return " and ".join(dict.fromkeys(limit.strategy or "fixed-window" for limit in limits))


def _once(limits: Sequence[Limit], strategy: str | None, max_delay: float | None) -> list[Limit]:
    """The limits under a strategy; one that is written twice counts once, as in weir.flask."""
    found: list[Limit] = []
    for limit in limits:
        ready = with_strategy(limit, strategy, max_delay)
        if not any(same_counter(ready, other) for other in found):
            found.append(ready)
    return found[:CHECKS_MAX]


def _run(reader: Reader, replays: Sequence[Replay], progress: Progress) -> int:
    """The number of requests that came too late to be sorted."""
    late = 0
    try:
        for number, (record, was_late) in enumerate(in_order(reader)):
            late += was_late
            for replay in replays:
                replay.decide(record)
            if number % 4096 == 0:
                progress.show(reader)
    finally:
        progress.end()
    return late


def _write(name: str, text: str) -> None:
    try:
        Path(name).write_text(text)
    except OSError as error:
        raise Unreadable(f"cannot write {shown(name)}: {error.strerror}") from None


# ---------------------------------------------------------------------------------------- output


def _bad(reader: Reader) -> str:
    """The lines that could not be read, for people."""
    lines = [f"\n    line {bad.line}: {bad.reason}: {bad.text}" for bad in reader.examples]
    if reader.bad > len(lines):
        lines.append(f"\n    … and {count(reader.bad - len(lines))} more")
    return "".join(lines)


def _print(
    limits: Sequence[Limit], reader: Reader, late: int, replays: Sequence[Replay], top: int
) -> None:
    first = replays[0]
    if reader.bad:
        hint(f"weir: {some(reader.bad, 'line')} could not be read{_bad(reader)}")
    if late:
        hint(
            f"weir: {some(late, 'request')} too far out of order to be sorted; each was counted at "
            "the time of the request before it. Sort the log by time for exact results"
        )
    say(f"{normalized(limits)}: {some(first.requests, 'request')} ({reader.format})", "head")
    if not first.requests:
        return
    _sums(replays)
    say()
    _clients(replays, top)
    width = min(shutil.get_terminal_size((100, 24)).columns, 140)
    height = 8 if len(replays) == 1 else 5
    for replay in replays:
        say()
        if len(replays) > 1:
            say(replay.name, "head")
        for line in picture.drawn(replay.timeline, width, height):
            say_styled(line)
    for replay in replays:
        _remarks(replay)


def _sums(replays: Sequence[Replay]) -> None:
    rows: list[list[Cell]] = [
        [
            replay.name,
            count(replay.admitted),
            (count(replay.denied), "bad" if replay.denied else ""),
            f"{100 * replay.denied / max(1, replay.requests):.1f} %",
            _number_of_clients(replay),
            count(replay.clients_denied),
            span(replay.longest_wait),
        ]
        for replay in replays
    ]
    table(
        ["strategy", "admitted", "denied", "share", "clients", "of them denied", "longest wait"],
        rows,
    )


def _number_of_clients(replay: Replay) -> str:
    """The number of clients, or a lower bound if some were dropped."""
    return f"over {count(replay.most_clients)}" if replay.dropped else count(len(replay.clients))


def _clients(replays: Sequence[Replay], top: int) -> None:
    """One strategy: all columns of each client. Several: the denied requests of each strategy."""
    first = replays[0]
    if len(replays) == 1:
        rows: list[list[Cell]] = [_client_row(*item) for item in first.top_clients(top)]
        names = ["client", "requests", "admitted", "denied", "longest wait", "first denied at"]
    else:
        keys = dict.fromkeys(key for replay in replays for key, _ in replay.top_clients(top))
        none = Client()
        ranked = sorted(
            keys, key=lambda key: -max(r.clients.get(key, none).denied for r in replays)
        )
        rows = []
        for key in ranked[:top]:
            of_key = [replay.clients.get(key, none) for replay in replays]
            denied: list[Cell] = [(count(c.denied), "bad" if c.denied else "") for c in of_key]
            rows.append([shown(key), count(max(c.requests for c in of_key)), *denied])
        names = ["client", "requests", *(f"denied: {replay.name}" for replay in replays)]
    if rows:
        table(names, rows)


def _client_row(key: str, client: Client) -> list[Cell]:
    first = client.first_denied
    return [
        shown(key),
        count(client.requests),
        count(client.admitted),
        (count(client.denied), "bad" if client.denied else ""),
        span(client.longest_wait) if client.denied else "",
        moment(first) if first is not None else "",
    ]


def _remarks(replay: Replay) -> None:
    if replay.longest_delay:
        hint(f"weir: {replay.name}: an admitted request waits up to {span(replay.longest_delay)}")
    if replay.dropped:
        hint(
            f"weir: {replay.name}: there are more clients than could be distinguished; a client's "
            "counts start when it was last dropped. Raise --clients"
        )
    if replay.evictions:
        hint(
            f"weir: {replay.name}: {some(replay.evictions, 'counter')} evicted for lack of room, "
            f"so too many requests may have been admitted. Raise {_more(replay)}"
        )


def _more(replay: Replay) -> str:
    """Which option gives counters more room."""
    logs = any(keeps_hits(limit.strategy or "") for limit in replay.limits)
    return "--hits or --clients" if logs else "--clients"


def _as_json(
    limits: Sequence[Limit], reader: Reader, late: int, replays: Sequence[Replay], top: int
) -> dict[str, Any]:
    return {
        "limits": normalized(limits),
        "format": reader.format,
        "lines": reader.lines,
        "bad_lines": reader.bad,
        "bad_examples": [bad._asdict() for bad in reader.examples],
        "late": late,
        "strategies": [_replay_json(replay, top) for replay in replays],
    }


def _replay_json(replay: Replay, top: int) -> dict[str, Any]:
    bars = replay.timeline.filled()
    return {
        "strategy": replay.name,
        "requests": replay.requests,
        "admitted": replay.admitted,
        "denied": replay.denied,
        "clients": len(replay.clients),
        "clients_denied": replay.clients_denied,
        "clients_dropped": replay.dropped,
        "evictions": replay.evictions,
        "longest_wait": replay.longest_wait,
        "longest_delay": replay.longest_delay,
        "top": [
            {
                "client": key,
                "requests": client.requests,
                "admitted": client.admitted,
                "denied": client.denied,
                "longest_wait": client.longest_wait,
                "first_denied": None if client.first_denied is None else iso(client.first_denied),
            }
            for key, client in replay.top_clients(top)
        ],
        "timeline": {
            "interval": replay.timeline.interval / 1e6,
            "start": iso(bars[0][0]) if bars else None,
            "admitted": [admitted for _, admitted, _ in bars],
            "denied": [denied for _, _, denied in bars],
        },
    }
