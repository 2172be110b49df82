"""``weir block``, ``allow``, ``unlist`` and ``rules``: rules that override limits."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from typing import Any, Literal

import click

from ..errors import WARNED, Unreadable
from ..open_store import opened
from ..options import Duration, seconds_of, store_options
from ..output import Cell, hint, say, say_json, table
from ..rule_text import effect_text, end_text, rule_json
from ..store import Rule, Store, answering, counted_text
from ..times import LineError, parse_time
from ..words import moment, shown, some

#: Rules in a file, and its bytes, at most.
LOAD_MAX = 1_000_000
LOAD_BYTES = 256 << 20

KINDS = ("block", "allow")


def until(seconds: float, now: float) -> float | None:
    """The time at which a rule of this duration ends; ``None``: never."""
    return None if seconds == float("inf") else now + seconds


def _set(
    context: click.Context,
    kind: Literal["block", "allow"],
    key: str,
    seconds: float,
    uri: str | None,
    as_json: bool,
) -> None:
    now = time.time()
    end = until(seconds, now)
    with answering():
        store = opened(context, uri)
        counted = store.counted(key)
        try:
            store.set_rule(counted, kind, end)
        except ValueError as error:
            raise Unreadable(str(error)) from None
    rule = Rule(counted, kind, now, end)
    if as_json:
        say_json({"rule": rule_json(rule)})
        return
    if counted != key:
        does = "blocks" if kind == "block" else "allows"
        hint(f"weir: {shown(key)}: {does} {counted_text(key, counted).rstrip(',')}")
    say(f"{shown(counted)} is {effect_text(rule)}")


_FOR = click.option(
    "--for", "seconds", type=Duration(), required=True, metavar="DURATION",
    help="Duration: 90s, 15m, 1h, 7d, or forever.",
)  # fmt: skip


@click.command()
@click.argument("key")
@_FOR
@store_options
@click.pass_context
def block(
    context: click.Context, key: str, seconds: float, store_uri: str | None, as_json: bool
) -> None:
    """Deny all requests of KEY, whatever the limits are, in all workers from now on.

    KEY is a client, or a range of IP addresses such as 203.0.113.0/24. An IPv6 address means its
    network, as limits count it: 2001:db8::/64. The most specific rule wins: a client before a
    range, a smaller range before a larger one.
    """
    _set(context, "block", key, seconds, store_uri, as_json)


@click.command()
@click.argument("key")
@_FOR
@store_options
@click.pass_context
def allow(
    context: click.Context, key: str, seconds: float, store_uri: str | None, as_json: bool
) -> None:
    """Allow all requests of KEY, whatever the limits are, and charge it nothing.

    KEY is as in `weir block`.
    """
    _set(context, "allow", key, seconds, store_uri, as_json)


@click.command()
@click.argument("key")
@store_options
@click.pass_context
def unlist(context: click.Context, key: str, store_uri: str | None, as_json: bool) -> None:
    """Remove the rule of KEY. The exit code is 1 if there is no rule for exactly this KEY."""
    with answering():
        store = opened(context, store_uri)
        counted = store.counted(key)
        try:
            removed = store.unlist(counted)
            if counted != key:  # as it was listed by a program that counts single addresses
                removed |= store.unlist(key)
            rule = store.rule_of(key) if "/" not in key else None
        except ValueError as error:
            raise Unreadable(str(error)) from None
    if as_json:
        say_json({"client": counted, "removed": removed, "rule": rule_json(rule)})
    else:
        name = counted_text(key, counted)
        say(f"removed the rule for {name}" if removed else f"there is no rule for {name}")
        if rule is not None:
            hint(f"weir: the {rule.kind} rule for {shown(rule.client)} still applies to it")
    if not removed:
        context.exit(WARNED)


# ------------------------------------------------------------------------------------------ many


Entry = tuple[str, str, float | None]

_HASH = re.compile(r"#[0-9a-f]{16}(?!\S)", re.ASCII)


def _end(text: str, now: float) -> float | None:
    """A duration, or a time in the future."""
    try:
        return until(seconds_of(text), now)
    except ValueError as error:
        try:
            end = parse_time(text)
        except LineError:
            raise LineError(f"{error}, or a time such as 2027-01-15T08:00:00Z") from None
    if end <= now:
        raise LineError(f"{shown(text)} is in the past")
    return end


def _of_object(value: Any, kind: str | None, end: float | None, now: float) -> Entry:
    """A rule as `weir rules --json` prints it."""
    if not isinstance(value, dict):
        raise LineError("not a JSON object")
    client, kind, text = value.get("client"), value.get("kind", kind), value.get("until")
    if not isinstance(client, str) or kind not in KINDS or not isinstance(text, str | None):
        raise LineError('a rule is {"client": "…", "kind": "block", "until": "…"}')
    if "until" in value:
        end = None if text is None else _end(text, now)
    return client, kind, end


def _of_line(text: str, kind: str | None, end: float | None, now: float) -> list[Entry]:
    """``[block|allow] CLIENT [DURATION]``, or JSON."""
    if text.startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise LineError(f"not JSON: {error}") from None
        listed = value.get("rules") if "rules" in value else [value]
        if not isinstance(listed, list):
            raise LineError('"rules" is not a list')
        return [_of_object(one, kind, end, now) for one in listed]
    words = text.split()
    if words[0] in KINDS and len(words) > 1:
        kind = words.pop(0)
    if kind is None:
        raise LineError("a line must be block CLIENT or allow CLIENT, unless --as sets the kind")
    client, *rest = words
    return [(client, kind, _end(" ".join(rest), now) if rest else end)]


def _is_remark(text: str) -> bool:
    return not text or (text.startswith("#") and not _HASH.match(text))


def read_rules(
    lines: Iterable[str], kind: str | None, end: float | None, now: float
) -> list[Entry]:
    """The rules of a file; ends the command if a line cannot be read, before any rule is set.

    kind, end: for lines without them.
    """
    entries: list[Entry] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if _is_remark(text):
            continue
        try:
            entries += _of_line(text, kind, end, now)
        except LineError as error:
            raise Unreadable(f"line {number}: {error}: {shown(text)}; no rule was set") from None
        if len(entries) > LOAD_MAX:
            raise Unreadable(f"more than {LOAD_MAX:,} rules; no rule was set")
    return entries


def _lines(name: str) -> list[str]:
    """The lines of a file of bounded size."""
    try:
        with click.open_file(name, "rb") as file:
            data = file.read(LOAD_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"cannot read {shown(name)}: {error.strerror}") from None
    if len(data) > LOAD_BYTES:
        raise Unreadable(f"{shown(name)} is larger than {LOAD_BYTES >> 20} MiB; no rule was set")
    return str(data, "utf-8-sig", "backslashreplace").splitlines()


def _rule_row(rule: Rule) -> list[Cell]:
    return [
        (rule.kind, "bad" if rule.kind == "block" else "good"),
        shown(rule.client),
        end_text(rule.until),
        moment(rule.since),
    ]


@click.command("rules")
@click.option("--load", "file", type=click.Path(allow_dash=True), metavar="FILE",
              help="Set all rules of FILE, or none if one is invalid (-: stdin).")  # fmt: skip
@click.option(
    "--as", "kind", type=click.Choice(KINDS), help="With --load: the kind of lines without one."
)
@click.option("--for", "seconds", type=Duration(), metavar="DURATION",
              help="With --load: the duration for lines without one; default forever.")  # fmt: skip
@store_options
@click.pass_context
def list_rules(
    context: click.Context,
    file: str | None,
    kind: str | None,
    seconds: float | None,
    store_uri: str | None,
    as_json: bool,
) -> None:
    """List the rules about clients, or set many at once.

    A line of a file is "block 203.0.113.0/24 7d", "allow 10.0.0.1", a client alone (with --as), or
    an object as --json prints them. Empty lines and lines that begin with # are ignored.
    """
    if file is None and (kind is not None or seconds is not None):
        raise Unreadable("--as and --for need --load")
    now = time.time()
    entries: list[Entry] = []
    if file is not None:
        end = until(float("inf") if seconds is None else seconds, now)
        entries = read_rules(_lines(file), kind, end, now)
    with answering():
        store = opened(context, store_uri)
        if file is not None:
            loaded = _load(store, entries)
            if as_json:
                say_json({"loaded": loaded})
            else:
                say(f"{some(loaded, 'rule')} set")
            return
        rules = store.rules()
    if as_json:
        say_json({"rules": [rule_json(rule) for rule in rules]})
    elif rules:
        names = ["rule", "client", "until", "since"]
        table(names, [_rule_row(rule) for rule in rules])
    else:
        hint("weir: there are no rules")


def _load(store: Store, entries: list[Entry]) -> int:
    try:
        return store.load_rules(entries)
    except ValueError as error:
        raise Unreadable(f"{error}; no rule was set") from None
