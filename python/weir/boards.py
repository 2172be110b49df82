"""What several hosts tell of a Redis or Valkey server that they share, and the rules they share.

A host whose limits are counted in Redis keeps a board of its own, a local table of its workers.
About once a second one of them writes what it shows into Redis, for whoever wants to see all hosts
at once, and looks whether the rules about clients have changed::

    weir:boards          sorted set   ids of the hosts, by when they wrote last
    weir:board:{id}      string       what one host shows, as JSON; gone a minute after the host
    weir:rules           hash         client -> JSON of kind, since and until
    weir:rules:version   string       changes with the rules
    weir:forgets         string       changes when remembered denials are to be forgotten

Each name has a time to live, but for rules for good. A client that is shown as ``#…`` is known by
that name on the host that shows it only.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import time
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any, Literal, NamedTuple, cast

from ._core import Table, TopClient
from ._text import printable
from .errors import ConfigurationError, StorageError
from .stores.base import failure

logger = logging.getLogger("weir")

__all__ = ["LIVES", "Boards", "SharedRule", "apply_rules", "snapshot"]

#: Seconds after which the board of a host that is gone is gone.
LIVES = 60

#: How many clients and limits a host tells of.
_HEAVIEST = 50
_CATALOGUE = 500

#: How many of the clients that a table lists are looked at.
_LOOKED_AT = 4096

#: Rules that are kept in Redis: as many as the board of each host has room for.
RULES_MAX = 10_000

#: Hosts whose boards are read: those that wrote last.
_HOSTS_MAX = 1000

#: Bytes of one host's board that are read.
_TEXT_MAX = 1 << 20

#: Rules in one command.
_AT_ONCE = 1000

KINDS = ("block", "allow")


class SharedRule(NamedTuple):
    """A rule about a client: ``kind`` is ``block`` or ``allow``; ``until`` is None for good."""

    client: str
    kind: str
    since: float
    until: float | None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def hottest(table: Table, by: Literal["denied", "allowed"], count: int) -> list[TopClient]:
    """The ``count`` heaviest clients, and of the others as many as came last.

    Who hammers since a second ago has not had as many requests yet as those of the hours before.
    """
    heaviest = table.top_clients(by, _LOOKED_AT)
    others = sorted(heaviest[count:], key=lambda heavy: -heavy.last)
    return heaviest[:count] + others[:count]


def snapshot(table: Table) -> dict[str, Any]:
    """What the board of a table shows, as JSON can say it."""
    return {
        "counts": [list(counts) for counts in table.counts()],
        "heaviest": {
            by: [list(heavy) for heavy in hottest(table, by, _HEAVIEST // 2)]
            for by in ("denied", "allowed")
        },
        "catalogue": [
            [str(known.limit), known.limit.strategy, _text(known.before), _text(known.after)]
            for known in table.registry()[:_CATALOGUE]
        ],
        "rules": len(table.rules()),
        "info": table.info(),
    }


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="backslashreplace")


def apply_rules(table: Table, rules: list[SharedRule]) -> None:
    """Make these the rules of ``table``, in one change; those that no table takes are left out."""
    loadable = [(rule.client, rule.kind, rule.until) for rule in rules]
    try:
        table.load_rules(loadable, replace=True)
    except ValueError as error:
        readable = [rule for rule in loadable if _is_rule(rule)]
        if len(readable) == len(loadable):
            raise
        logger.warning(
            "%d rules cannot be read and are left out, of %d: %s",
            len(loadable) - len(readable),
            len(loadable),
            error,
        )
        table.load_rules(readable, replace=True)


def _is_rule(rule: tuple[str, str, float | None]) -> bool:
    """Whether a table would take it."""
    with Table("memory://?keys=8&rules=1") as judge:
        try:
            judge.load_rules([rule])
        except ValueError:
            return False
    return True


#: Of what another host shows: values in one list, and lists within lists.
_VALUES_MAX = 1000
_DEPTH_MAX = 6


def _clean(value: Any, depth: int = 0) -> Any:
    """What another host shows, with text that may be printed, bounded in every direction."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list | tuple):
        return [_clean(item, depth + 1) for item in value[:_VALUES_MAX] if depth < _DEPTH_MAX]
    if isinstance(value, dict):
        items = islice(value.items(), _VALUES_MAX if depth < _DEPTH_MAX else 0)
        return {printable(name): _clean(item, depth + 1) for name, item in items}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None
    return value


class Boards:
    """The boards and rules in the server of ``storage``, a Redis or Valkey store.

    All methods raise :class:`weir.errors.StorageError` if the server is away; each command has the
    store's deadline.
    """

    def __init__(self, storage: Any) -> None:
        if not hasattr(storage, "client") or not hasattr(storage, "_codec"):
            raise ConfigurationError(
                "only Redis and Valkey share statistics and rules between hosts"
            )
        self._storage = storage
        prefix = storage._codec.prefix.decode()
        self._boards = f"{prefix}:boards"
        self._board = f"{prefix}:board:"
        self._rules = f"{prefix}:rules"
        self._version = f"{prefix}:rules:version"
        self._forgets = f"{prefix}:forgets"

    def _do(self, *command: Any) -> Any:
        try:
            return self._storage.client.execute_command(*command)
        except StorageError:
            raise
        except Exception as error:  # of the client library, and what it lets through
            raise failure(self._storage.name, error) from error

    # -- boards

    def publish(self, host: str, board: dict[str, Any]) -> None:
        """Show ``board`` as that of ``host``."""
        now = time.time()
        text = json.dumps({"host": host, "time": now, **board}, default=str)
        self._do("SET", self._board + host, text, "EX", LIVES)
        self._do("ZADD", self._boards, now, host)
        self._do("ZREMRANGEBYSCORE", self._boards, "-inf", now - LIVES)
        self._do("EXPIRE", self._boards, LIVES)

    def read(self) -> list[dict[str, Any]]:
        """What all hosts show that have written in the last minute."""
        boards = []
        for host in self._do("ZRANGE", self._boards, -_HOSTS_MAX, -1):
            text = self._do("GET", self._board + _text(host))
            if text is None:
                continue
            board = _loads(text)
            if isinstance(board, dict):
                boards.append(_clean(board))
        return boards

    # -- remembered denials

    def forget_denials(self) -> None:
        """Let all hosts forget, within about two seconds, which denials they remember."""
        # Longer than a host sleeps and remembers.
        self._do("SET", self._forgets, secrets.token_hex(8), "EX", 2 * LIVES)

    def forgets(self) -> str:
        """Changes when that is asked for; "" if it was not of late."""
        token = self._do("GET", self._forgets)
        return "" if token is None else _text(token)

    # -- rules

    def rules_version(self) -> str:
        """Changes with the rules; "" while there never was one."""
        version = self._do("GET", self._version)
        return "" if version is None else _text(version)

    def rules(self) -> list[SharedRule]:
        """All rules that have not ended."""
        now = time.time()
        found = []
        for client, text in _pairs(self._do("HGETALL", self._rules)):
            rule = _rule(client, text)
            if rule is not None and (rule.until is None or rule.until > now):
                found.append(rule)
        return sorted(found, key=lambda rule: rule.client)[:RULES_MAX]

    def set_rule(self, client: str, kind: str, until: float | None = None) -> None:
        """Block or allow ``client`` on every host, within about a second.

        until: seconds since the epoch; ``None``: for good. ValueError: for what is no rule.
        """
        self.set_rules([(client, kind, until)])

    def set_rules(self, rules: Sequence[tuple[str, str, float | None]]) -> int:
        """Set many: ``(client, kind, until)``. Hosts take them over all at once; how many.

        ValueError, and nothing is set: one of them is no rule, or there would be too many.
        """
        now = time.time()
        for _, kind, until in rules:
            if kind not in KINDS:
                raise ValueError(f"a rule is one of {', '.join(KINDS)}, not {kind!r}")
            if until is not None and not (math.isfinite(until) and until > now):
                raise ValueError("until must be a moment that has not passed")
        if not rules:
            return 0
        if len(rules) > RULES_MAX:
            raise ValueError(f"there is room for {RULES_MAX:,} rules; remove some")
        # In the form in which tables show them; and refused if a table would refuse one.
        with Table(f"memory://?keys=8&rules={len(rules)}") as judge:
            judge.load_rules(rules)
            ready = [
                (rule.client, json.dumps({"kind": rule.kind, "since": now, "until": rule.until}))
                for rule in judge.rules()
            ]
        self._make_room(client for client, _ in ready)
        # No host looks before the version has changed.
        for start in range(0, len(ready), _AT_ONCE):
            self._do("HSET", self._rules, *chain(*ready[start : start + _AT_ONCE]))
        self._changed()
        return len(ready)

    def _make_room(self, clients: Iterable[str]) -> None:
        """See that there is room for rules of these clients, some of which may have one already."""
        wanted = set(clients)
        if len(wanted) + int(self._do("HLEN", self._rules)) <= RULES_MAX:
            return
        self.clean()
        wanted.update(_text(client) for client in self._do("HKEYS", self._rules))
        if len(wanted) > RULES_MAX:
            raise ValueError(f"there is room for {RULES_MAX:,} rules; remove some")

    def remove_rule(self, client: str) -> bool:
        """Take back the rule of exactly this client or range; whether there was one."""
        with Table("memory://?keys=8&rules=1") as judge:
            judge.block(client)
            client = judge.rules()[0].client
        removed = bool(self._do("HDEL", self._rules, client))
        if removed:
            self._changed()
        return removed

    def clean(self) -> None:
        """Delete rules that have ended."""
        now = time.time()
        gone = []
        for client, text in _pairs(self._do("HGETALL", self._rules)):
            rule = _rule(client, text)
            if rule is None or (rule.until is not None and rule.until <= now):
                gone.append(client)
        if gone:
            self._do("HDEL", self._rules, *gone)

    def _changed(self) -> None:
        ends = [rule.until for rule in self.rules()]
        # Not a number that counts up: it would say the same again once it is gone.
        version = secrets.token_hex(8)
        if not ends or None not in ends:
            last = math.ceil(max(cast("list[float]", ends), default=time.time())) + LIVES
            self._do("EXPIREAT", self._rules, last)
            self._do("SET", self._version, version, "EXAT", last)
        else:
            self._do("PERSIST", self._rules)
            self._do("SET", self._version, version)


def _pairs(answer: Any) -> list[tuple[str, str]]:
    """What HGETALL said, by whichever protocol and client."""
    if isinstance(answer, dict):
        items = list(answer.items())
    else:
        items = list(zip(answer[::2], answer[1::2], strict=True))
    return [(_text(client), _text(text)) for client, text in items]


def _loads(text: str | bytes) -> Any:
    """What a text in Redis says; None: it is not ours."""
    try:
        return json.loads(text) if len(text) <= _TEXT_MAX else None
    except (ValueError, RecursionError):
        return None


def _rule(client: str, text: str) -> SharedRule | None:
    try:
        rule = _loads(text)
        until = rule["until"]
        if rule["kind"] not in KINDS:
            return None
        return SharedRule(
            client, rule["kind"], float(rule["since"]), None if until is None else float(until)
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
