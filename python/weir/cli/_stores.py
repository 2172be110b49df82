"""The store that a command is about, by its URI or because it is the only one."""

from __future__ import annotations

import contextlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import click
from click.shell_completion import CompletionItem

from .._core import TEST, Limit, Table, Verdict, join_key
from ..errors import ConfigurationError, ParseError, StorageError, WeirError
from ..storage import StorageTypes
from ._app import json_option
from ._errors import Away, Unable, Unreadable
from ._found import SHARED_MEMORY, Found, others, tables
from ._words import shown

#: So far into a key no client begins: to look past the rules about clients.
_NOBODY = 16 << 20

#: A server's automatic storages are told apart by their order; more than this are not looked for.
NAMESPACES = 8

Command = TypeVar("Command", bound=Callable[..., Any])

_REMOTE = ("redis", "rediss", "valkey", "valkeys", "memcached")


_HASH = re.compile(r"#[0-9a-f]{16}", re.ASCII)


def is_hash(client: str) -> bool:
    """Whether this is how a client is shown that is no IP address."""
    return _HASH.fullmatch(client) is not None


class Counted(NamedTuple):
    """What became of the requests that the limits of one text were asked about."""

    limit: str
    allowed: int
    denied: int
    near: int
    shadow: int


class Seen(NamedTuple):
    """A client under the limits of one text; see :class:`weir._core.Heavy`."""

    client: str
    limit: str
    allowed: int
    denied: int
    error: int
    last: float


class Ruled(NamedTuple):
    """A rule about a client; ``until``: seconds since the epoch, ``None`` for good."""

    client: str
    kind: str
    since: float
    until: float | None


By = Literal["denied", "allowed"]


#: Names of tables that hold what is told of a Redis or Memcached, but no counters.
_BESIDE_REMOTE = re.compile(r"-board\d+$", re.ASCII)


class Counter(NamedTuple):
    """A limit that is in use, the store that counts it, and a key's parts around the client."""

    storage: StorageTypes
    limit: Limit
    before: str
    after: str

    def key(self, client: str) -> str:
        """The key of a client's counter."""
        return f"{self.before}{join_key(client)}{self.after}"

    def look(self, client: str) -> Verdict:
        """What a client has left, whatever its rule; nothing is charged."""
        limit = self.limit.replace()
        limit.skip = _NOBODY
        return self.storage.decide([limit], [self.key(client)], [0], TEST)[0]

    def clear(self, client: str) -> None:
        """Forget what a client has used."""
        self.storage.clear([self.limit], [self.key(client)])


class Store(ABC):
    """What the commands ask of a store. Errors are :class:`weir.errors.StorageError`, and
    ValueError for what is no rule."""

    uri: str
    #: Who counts.
    storage: StorageTypes

    @abstractmethod
    def counts(self) -> list[Counted]:
        """How often each limit allowed and denied."""

    @abstractmethod
    def heaviest(self, by: By, count: int) -> list[Seen]:
        """The clients with most denied or allowed requests, heaviest first."""

    @abstractmethod
    def name_of(self, client: str) -> str:
        """The client as :meth:`heaviest` shows it."""

    @abstractmethod
    def counters(self) -> Iterator[Counter]:
        """The limits in use."""

    @abstractmethod
    def health(self) -> dict[str, Any]:
        """How the store fares."""

    def forget_denials(self) -> None:  # noqa: B027  (a table remembers none)
        """Counters were cleared: let workers ask again where they remember what they were told."""

    @abstractmethod
    def set_rule(self, client: str, kind: str, until: float | None) -> None:
        """Block or allow a client or a range."""

    @abstractmethod
    def load_rules(self, rules: list[tuple[str, str, float | None]]) -> int:
        """Set many rules, all of them or none; how many."""

    @abstractmethod
    def unlist(self, client: str) -> bool:
        """Remove the rule of exactly this client or range; whether there was one."""

    @abstractmethod
    def rules(self) -> list[Ruled]:
        """All rules."""

    @abstractmethod
    def rule_of(self, client: str) -> Ruled | None:
        """The rule that holds now."""


class LocalStore(Store):
    """A table of this host."""

    def __init__(self, uri: str, table: Table) -> None:
        self.uri = uri
        self.storage = self.table = table

    def counts(self) -> list[Counted]:
        return [Counted(*counts) for counts in self.table.counts()]

    def heaviest(self, by: By, count: int) -> list[Seen]:
        return [Seen(*heavy) for heavy in self.table.heaviest(by, count)]

    def name_of(self, client: str) -> str:
        return self.table.name_of(client)

    def counters(self) -> Iterator[Counter]:
        for namespace in range(NAMESPACES):
            table = self.table if namespace == 0 else Table(self.uri, namespace=namespace)
            for known in table.catalogue():
                yield Counter(table, known.limit, known.before, known.after)

    def health(self) -> dict[str, Any]:
        return {"table": self.table.info(), "removed": not place_of(self.uri).exists()}

    def set_rule(self, client: str, kind: str, until: float | None) -> None:
        (self.table.block if kind == "block" else self.table.allow)(client, until)

    def load_rules(self, rules: list[tuple[str, str, float | None]]) -> int:
        return self.table.load_rules(rules)

    def unlist(self, client: str) -> bool:
        return self.table.unlist(client)

    def rules(self) -> list[Ruled]:
        return [Ruled(*rule) for rule in self.table.rules()]

    def rule_of(self, client: str) -> Ruled | None:
        rule = self.table.rule_of(client)
        return None if rule is None else Ruled(*rule)


def _complete(context: Any, option: Any, begun: str) -> list[CompletionItem]:
    """The stores of this host, for the shell."""
    return [
        CompletionItem(found.uri, help=found.command or None)
        for found in tables()
        if found.uri.startswith(begun)
    ]


def store_options(command: Command) -> Command:
    """The options of a command about a store."""
    option = click.option(
        "-s", "--store", "store_uri", metavar="URI", help="The store.", shell_complete=_complete
    )
    return option(json_option(command))


def chosen(context: click.Context, uri: str | None) -> str:
    """The store's URI: told by the command, by the group, by the environment, or the only one."""
    told = uri or context.obj or os.environ.get("WEIR_STORE")
    if told and told.partition("?")[0] != "auto://":
        return str(told)
    return only_one().uri


def only_one() -> Found:
    """The table of the running server; ends the command if there is none, or are several."""
    running = [found for found in tables() if found.runs]
    if len(running) == 1:
        return running[0]
    if not running:
        elsewhere = others()
        raise Away(
            "no running server has a table here. Say which store by --store URI or WEIR_STORE: "
            "shm://name, file:///path, redis://… or memcached://…; `weir tables` lists those here"
            + (
                f". Tables belong to the user who made them: sudo -u {elsewhere[0]} weir …"
                if elsewhere
                else ""
            )
        )
    lines = "".join(f"\n    --store {found.uri}   {found.command}" for found in running)
    raise Away(f"{len(running)} servers have a table here; say which is meant:{lines}")


def opened(context: click.Context, uri: str | None) -> Store:
    """The store to work with; ends the command if that cannot be."""
    name = chosen(context, uri)
    scheme, colon, rest = name.partition("://")
    base = scheme.partition("+")[0]
    if not colon:
        raise Unreadable(f"{shown(name)!r} is no URI: write shm://name, file:///path, redis://…")
    if base == "memory":
        raise Unable(
            "memory:// is private to the process that has it: give the application shm://name or "
            "auto:// to look at it from here"
        )
    if base in ("shm", "file"):
        if _BESIDE_REMOTE.search(rest.partition("?")[0]) and context.command.name != "top":
            raise Unable(
                f"{shown(name)} is the board beside a remote store, which counts and keeps "
                "rules: give that store's URI by --store"
            )
        return LocalStore(name, local_table(name, rest))
    if base in _REMOTE:
        from ._remote import RemoteStore

        return RemoteStore(name)
    raise Unreadable(
        f"unknown scheme {shown(scheme, 20)!r}: one of shm://, file://, redis://, valkey://, "
        "memcached://"
    )


def place_of(uri: str) -> Path:
    """The file of a shm:// or file:// table."""
    scheme, _, rest = uri.partition("?")[0].partition("://")
    return SHARED_MEMORY / f"weir.{rest}" if scheme == "shm" else Path(unquote(rest))


def local_table(uri: str, rest: str) -> Table:
    """A table that is there already: to look at one must not make it."""
    if rest.partition("?")[0] and not place_of(uri).exists():
        raise Away(f"there is no table {shown(uri)}: `weir tables` lists those of this host")
    try:
        return Table(uri)
    except (ParseError, ConfigurationError) as error:
        raise Unreadable(str(error)) from None
    except StorageError as error:
        raise Away(str(error)) from None


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Errors of a store end the command."""
    try:
        yield
    except WeirError as error:
        raise Away(str(error)) from None


def without_password(uri: str) -> str:
    """The URI as it may be shown."""
    password = urlsplit(uri).password
    return uri if password is None else uri.replace(f":{password}@", ":***@", 1)
