"""A table of this host, as commands see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .._core import LimitCounts, Rule, Table, TopClient
from ..errors import ConfigurationError, ParseError, StorageError
from ..stores.server_process import SHARED_MEMORY
from .errors import Away, Unreadable
from .store import By, Counter, Store
from .words import shown

#: Automatic storages of one server are numbered; the commands look at the first of them.
NAMESPACES = 8


class LocalStore(Store):
    """A table of this host."""

    def __init__(self, uri: str, table: Table) -> None:
        self.uri = uri
        self.storage = self.table = table

    def counts(self) -> list[LimitCounts]:
        return self.table.counts()

    def top_clients(self, by: By, count: int) -> list[TopClient]:
        return self.table.top_clients(by, count)

    def name_of(self, client: str) -> str:
        return self.table.name_of(client)

    def counters(self) -> Iterator[Counter]:
        for namespace in range(NAMESPACES):
            table = self.table
            if namespace != 0:
                table = Table(self.uri, namespace=namespace, _observes=True)
            for known in table.registry():
                yield Counter(table, known.limit, known.before, known.after)

    def health(self) -> dict[str, Any]:
        return {"table": self.table.info(), "removed": not path_of(self.uri).exists()}

    def ipv6_prefix(self) -> int | None:
        return self.table.ipv6_prefix

    def set_rule(self, client: str, kind: str, until: float | None) -> None:
        set_rule(self.table, client, kind, until)

    def load_rules(self, rules: list[tuple[str, str, float | None]]) -> int:
        return self.table.load_rules(rules)

    def unlist(self, client: str) -> bool:
        return self.table.unlist(client)

    def rules(self) -> list[Rule]:
        return self.table.rules()

    def rule_of(self, client: str) -> Rule | None:
        return self.table.rule_of(client)


def set_rule(table: Table, client: str, kind: str, until: float | None) -> None:
    """Block or allow a client or a range in a table."""
    (table.block if kind == "block" else table.allow)(client, until)


def path_of(uri: str) -> Path:
    """The file of a shm:// or file:// table."""
    scheme, _, rest = uri.partition("?")[0].partition("://")
    return SHARED_MEMORY / f"weir.{rest}" if scheme == "shm" else Path(unquote(rest))


def open_existing(uri: str) -> Table:
    """Open a table without creating it; ends the command if it does not exist."""
    rest = uri.partition("://")[2]
    if rest.partition("?")[0] and not path_of(uri).exists():
        raise Away(f"there is no table {shown(uri)}: `weir tables` lists those of this host")
    try:
        return Table(uri, _observes=True)
    except (ParseError, ConfigurationError) as error:
        raise Unreadable(str(error)) from None
    except StorageError as error:
        raise Away(str(error)) from None
