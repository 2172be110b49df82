"""Statistics and rules that hosts share through one Redis or Valkey server.

A host whose limits are counted in Redis keeps its statistics in a local table of its workers.
About once a second one worker writes them to Redis, so that commands and the dashboard can show all
hosts, and checks whether the shared rules have changed::

    weir:hosts           sorted set   ids of the hosts, scored by the time of their last write
    weir:stats:{id}      string       one host's statistics as JSON
    weir:rules           hash         client -> JSON with kind, since and until
    weir:rules:version   string       changes with the rules
    weir:denials:version string       changes when hosts are to drop their cached denials

Each application has its own: in place of ``weir`` stands the store's ``key_prefix``, and the
``key_prefix`` of :mod:`weir.flask` follows the first word, as in ``weir:rules@shop``
(:mod:`weir.stores.tenants`).

Each of these expires, except rules without an end: statistics a minute after the host's last write.
A client that is shown as ``#...`` has that name only on the host that shows it.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import time
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any, cast

from .._clock import monotonic
from .._core import Rule, Table, TopClient
from .._text import printable
from ..errors import ConfigurationError, StorageError
from ..observe.hosts import By
from .base import failure
from .tenants import KNOWN_KEY, KNOWN_MAX, KNOWN_TTL, Tenant, tenant_of

logger = logging.getLogger("weir")

__all__ = ["HOST_TTL", "SharedRule", "SharedStats", "apply_rules", "snapshot"]

#: Seconds for which a host is listed after its last write.
HOST_TTL = 60

#: How many clients and limits a host publishes.
_CLIENTS_MAX = 50
_LIMITS_MAX = 500

#: How many clients are read from a table, to find those of the last moments among them.
_CLIENTS_READ = 4096

#: Rules in Redis at most: as many as the table of each host has room for.
RULES_MAX = 10_000

#: Hosts that are read at most: those that wrote last.
_HOSTS_MAX = 1000

#: Bytes that are read of one host's statistics.
_TEXT_MAX = 1 << 20

#: Rules in one command.
_BATCH = 1000

KINDS = ("block", "allow")


#: The earlier name of :class:`weir.Rule`, for programs that import it from here.
SharedRule = Rule


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def top_clients(table: Table, by: By, count: int) -> list[TopClient]:
    """The ``count`` clients with most requests, and the ``count`` most recent of the others.

    New clients have fewer requests than long-running ones, so the most recent are included.
    """
    clients = table.top_clients(by, _CLIENTS_READ)
    others = sorted(clients[count:], key=lambda client: -client.last)
    return clients[:count] + others[:count]


def snapshot(table: Table) -> dict[str, Any]:
    """The statistics of a table, as values that JSON can represent."""
    return {
        "counts": [list(counts) for counts in table.counts()],
        "top_clients": {
            by: [list(client) for client in top_clients(table, by, _CLIENTS_MAX // 2)]
            for by in ("denied", "allowed")
        },
        "registry": [
            [
                str(known.limit),
                known.limit.strategy,
                _text(known.before),
                _text(known.after),
                known.limit.tz,
                known.limit.namespace,
            ]
            for known in table.registry()[:_LIMITS_MAX]
        ],
        "rules": len(table.rules()),
        "info": table.info(),
    }


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="backslashreplace")


def apply_rules(table: Table, rules: list[Rule]) -> None:
    """Replace the rules of ``table`` in one change. Invalid rules are left out and logged."""
    loadable = [(rule.client, rule.kind, rule.until) for rule in rules]
    try:
        table.load_rules(loadable, replace=True)
    except ValueError as error:
        readable = [rule for rule in loadable if _is_rule(rule)]
        if len(readable) == len(loadable):
            raise
        logger.warning(
            "ignored %d invalid rules of %d: %s",
            len(loadable) - len(readable),
            len(loadable),
            error,
        )
        table.load_rules(readable, replace=True)


def _is_rule(rule: tuple[str, str, float | None]) -> bool:
    """Whether a table accepts this rule."""
    with Table("memory://?keys=8&rules=1") as scratch:
        try:
            scratch.load_rules([rule])
        except ValueError:
            return False
    return True


#: Bounds for another host's statistics: values in one list, and nested lists.
_VALUES_MAX = 1000
_DEPTH_MAX = 6


def _clean(value: Any, depth: int = 0) -> Any:
    """Another host's statistics, bounded, with text that is safe to print."""
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


class SharedStats:
    """The hosts' statistics and the shared rules in a Redis or Valkey server.

    :param storage: the store that uses that server
    :param own: the ``key_prefix`` of :mod:`weir.flask`: each application has its own

    All methods raise :class:`weir.errors.StorageError` during an outage. Each command has the
    store's deadline.
    """

    def __init__(self, storage: Any, own: str = "") -> None:
        if not hasattr(storage, "client") or not hasattr(storage, "_codec"):
            raise ConfigurationError(
                "only Redis and Valkey can share statistics and rules between hosts"
            )
        self.storage = storage
        #: Whose statistics and rules these are.
        self.tenant = tenant_of(storage, own)
        self._hosts_key = self.tenant.name("hosts")
        self._host_key = self.tenant.name("stats", ":")
        self._rules_key = self.tenant.name("rules")
        self._version_key = self.tenant.name("rules", ":version")
        self._denials_key = self.tenant.name("denials", ":version")
        self._note_again = 0.0

    def _do(self, *command: Any) -> Any:
        try:
            return self.storage.client.execute_command(*command)
        except StorageError:
            raise
        except Exception as error:  # the client library raises its own, and others pass through it
            raise failure(self.storage.name, error) from error

    # -- applications

    def known(self) -> list[Tenant]:
        """The applications that use the server, as far as they have noted themselves."""
        found = self._do("ZREVRANGE", KNOWN_KEY, 0, KNOWN_MAX - 1)
        return [tenant for tenant in map(Tenant.load, found) if tenant is not None]

    def note(self) -> None:
        """Note the application, once a minute."""
        if monotonic() < self._note_again:
            return
        now = time.time()
        try:
            self._do("ZADD", KNOWN_KEY, now, self.tenant.dump())
            self._do("ZREMRANGEBYSCORE", KNOWN_KEY, "-inf", now - KNOWN_TTL)
            self._do("ZREMRANGEBYRANK", KNOWN_KEY, 0, -KNOWN_MAX - 1)
            self._do("EXPIRE", KNOWN_KEY, KNOWN_TTL)
        except StorageError as error:
            if "permission" not in str(error).lower() and "NOPERM" not in str(error):
                raise
            self._note_again = math.inf
            logger.warning(
                "%s: this user may not write %s, so commands do not find this application by "
                "themselves: give them --prefix %s",
                self.storage.name,
                KNOWN_KEY,
                printable(self.tenant.label) or "''",
            )
        else:
            self._note_again = monotonic() + HOST_TTL

    # -- statistics

    def publish(self, host: str, stats: dict[str, Any]) -> None:
        """Write the statistics of ``host``, as :func:`snapshot` returns them."""
        self.note()
        now = time.time()
        text = json.dumps({"host": host, "time": now, **stats}, default=str)
        self._do("SET", self._host_key + host, text, "EX", HOST_TTL)
        self._do("ZADD", self._hosts_key, now, host)
        self._do("ZREMRANGEBYSCORE", self._hosts_key, "-inf", now - HOST_TTL)
        self._do("EXPIRE", self._hosts_key, HOST_TTL)

    def read(self) -> list[dict[str, Any]]:
        """The statistics of all hosts that have written in the last minute."""
        found = []
        for host in self._do("ZRANGE", self._hosts_key, -_HOSTS_MAX, -1):
            text = self._do("GET", self._host_key + _text(host))
            if text is None:
                continue
            stats = _loads(text)
            if isinstance(stats, dict):
                found.append(_clean(stats))
        return found

    # -- cached denials

    def drop_denials(self) -> None:
        """Make all hosts drop their cached denials, within about two seconds."""
        # Longer than a host stays idle, and than any denial is cached.
        self._do("SET", self._denials_key, secrets.token_hex(8), "EX", 2 * HOST_TTL)

    def denials_version(self) -> str:
        """A text that changes with each :meth:`drop_denials`; "" without a recent one."""
        token = self._do("GET", self._denials_key)
        return "" if token is None else _text(token)

    # -- rules

    def rules_version(self) -> str:
        """A text that changes with the rules; "" if none was ever set."""
        version = self._do("GET", self._version_key)
        return "" if version is None else _text(version)

    def rules(self) -> list[Rule]:
        """All rules that have not expired."""
        now = time.time()
        found = []
        for client, text in _pairs(self._do("HGETALL", self._rules_key)):
            rule = _rule(client, text)
            if rule is not None and (rule.until is None or rule.until > now):
                found.append(rule)
        return sorted(found, key=lambda rule: rule.client)[:RULES_MAX]

    def set_rule(self, client: str, kind: str, until: float | None = None) -> None:
        """Block or allow ``client`` on every host, within about a second.

        until: seconds since the epoch, or ``None`` for no end. Raises ValueError for a rule that is
        invalid.
        """
        self.set_rules([(client, kind, until)])

    def set_rules(self, rules: Sequence[tuple[str, str, float | None]]) -> int:
        """Set many rules, each ``(client, kind, until)``. Return how many were set.

        Each host applies them in one change. Raises ValueError, and sets none, if one of them is
        invalid or there would be more than :data:`RULES_MAX`.
        """
        now = time.time()
        for _, kind, until in rules:
            if kind not in KINDS:
                raise ValueError(f"a rule is one of {', '.join(KINDS)}, not {kind!r}")
            if until is not None and not (math.isfinite(until) and until > now):
                raise ValueError("until must be in the future, in seconds since the epoch")
        if not rules:
            return 0
        if len(rules) > RULES_MAX:
            raise ValueError(f"there is room for {RULES_MAX:,} rules; remove some")
        # A table validates the rules and returns them in canonical form.
        with Table(f"memory://?keys=8&rules={len(rules)}") as scratch:
            scratch.load_rules(rules)
            ready = [
                (rule.client, json.dumps({"kind": rule.kind, "since": now, "until": rule.until}))
                for rule in scratch.rules()
            ]
        self._make_room(client for client, _ in ready)
        self.note()
        # Hosts read the rules only after the version has changed.
        for start in range(0, len(ready), _BATCH):
            self._do("HSET", self._rules_key, *chain(*ready[start : start + _BATCH]))
        self._changed()
        return len(ready)

    def _make_room(self, clients: Iterable[str]) -> None:
        """Raise ValueError unless rules for these clients fit; some may replace existing rules."""
        wanted = set(clients)
        if len(wanted) + int(self._do("HLEN", self._rules_key)) <= RULES_MAX:
            return
        self.clean()
        wanted.update(_text(client) for client in self._do("HKEYS", self._rules_key))
        if len(wanted) > RULES_MAX:
            raise ValueError(f"there is room for {RULES_MAX:,} rules; remove some")

    def remove_rule(self, client: str) -> bool:
        """Remove the rule of exactly this client or range. Return whether there was one."""
        with Table("memory://?keys=8&rules=1") as scratch:
            scratch.block(client)
            client = scratch.rules()[0].client
        removed = bool(self._do("HDEL", self._rules_key, client))
        if removed:
            self._changed()
        return removed

    def clean(self) -> None:
        """Delete expired rules."""
        now = time.time()
        gone = []
        for client, text in _pairs(self._do("HGETALL", self._rules_key)):
            rule = _rule(client, text)
            if rule is None or (rule.until is not None and rule.until <= now):
                gone.append(client)
        if gone:
            self._do("HDEL", self._rules_key, *gone)

    def _changed(self) -> None:
        ends = [rule.until for rule in self.rules()]
        # Random, because a counter would repeat its values after it expired.
        version = secrets.token_hex(8)
        if not ends or None not in ends:
            last = math.ceil(max(cast("list[float]", ends), default=time.time())) + HOST_TTL
            self._do("EXPIREAT", self._rules_key, last)
            self._do("SET", self._version_key, version, "EXAT", last)
        else:
            self._do("PERSIST", self._rules_key)
            self._do("SET", self._version_key, version)


def _pairs(answer: Any) -> list[tuple[str, str]]:
    """The reply to HGETALL: a dict or a flat list, depending on protocol and client."""
    if isinstance(answer, dict):
        items = list(answer.items())
    else:
        items = list(zip(answer[::2], answer[1::2], strict=True))
    return [(_text(client), _text(text)) for client, text in items]


def _loads(text: str | bytes) -> Any:
    """The JSON value of a text in Redis; None if it is too long or invalid."""
    try:
        return json.loads(text) if len(text) <= _TEXT_MAX else None
    except (ValueError, RecursionError):
        return None


def _rule(client: str, text: str) -> Rule | None:
    try:
        rule = _loads(text)
        until = rule["until"]
        if rule["kind"] not in KINDS:
            return None
        return Rule(
            client, rule["kind"], float(rule["since"]), None if until is None else float(until)
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
