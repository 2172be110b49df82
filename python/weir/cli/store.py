"""What the commands need from a store; :mod:`.local` and :mod:`.remote` are the two kinds."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from .._core import TEST, Limit, LimitCounts, Rule, Table, TopClient, Verdict, client_form, join_key
from .._text import LINE_MAX, printable
from ..errors import WeirError
from ..observe.hosts import By
from ..stores.registry import StorageTypes
from .errors import Away
from .words import shown

__all__ = [
    "By",
    "Counter",
    "LimitCounts",
    "Rule",
    "Store",
    "TopClient",
    "answering",
    "counted_text",
    "is_hash",
]

#: Bits of an IPv6 address that are counted unless an application says otherwise.
IPV6_PREFIX = 64

_HASH = re.compile(r"#[0-9a-f]{16}", re.ASCII)


def counted_text(client: str, counted: str) -> str:
    """A client as it was given and, if they differ, the form that limits count."""
    if client == counted:
        return shown(client)
    what = "the network" if "/" in counted else "the address"
    return f"{shown(counted)}, {what} that is counted,"


def is_hash(client: str) -> bool:
    """Whether this has the form in which clients other than IP addresses are shown."""
    return _HASH.fullmatch(client) is not None


class Counter(NamedTuple):
    """A limit in use, the store that counts it, and the parts of a key around the client."""

    storage: StorageTypes
    limit: Limit
    before: str
    after: str

    def key(self, client: str) -> str:
        """The key of a client's counter."""
        return f"{self.before}{join_key(client)}{self.after}"

    def peek(self, client: str) -> Verdict:
        """What a client has left, whatever its rule; nothing is charged."""
        if isinstance(self.storage, Table):
            return self.storage.peek([self.limit], [self.key(client)])[0]
        return self.storage.decide([self.limit], [self.key(client)], [0], TEST)[0]

    def clear(self, client: str) -> None:
        """Clear what a client has used."""
        self.storage.clear([self.limit], [self.key(client)])


class Store(ABC):
    """A store that commands can read and change.

    Errors: :class:`weir.errors.StorageError`, and ValueError for an invalid rule.
    """

    uri: str
    #: The store that counts.
    storage: StorageTypes

    @abstractmethod
    def counts(self) -> list[LimitCounts]:
        """How often each limit allowed and denied."""

    @abstractmethod
    def top_clients(self, by: By, count: int) -> list[TopClient]:
        """The clients with most denied or allowed requests, most first."""

    @abstractmethod
    def name_of(self, client: str) -> str:
        """The client as :meth:`top_clients` shows it."""

    @abstractmethod
    def counters(self) -> Iterator[Counter]:
        """The limits in use."""

    @abstractmethod
    def health(self) -> dict[str, Any]:
        """The state of the store."""

    def drop_denials(self) -> None:  # noqa: B027  (a table caches none)
        """Make workers ask the store again instead of using denials they remember."""

    def ipv6_prefix(self) -> int | None:
        """The number of bits of an IPv6 address that limits count here; ``None``: unknown."""
        return None

    def counted(self, client: str) -> str:
        """The form of a client's address that limits count; another client as it is."""
        noted = self.ipv6_prefix()
        if noted is None and "/" in client:
            return client
        return client_form(client, IPV6_PREFIX if noted is None else noted)

    @abstractmethod
    def set_rule(self, client: str, kind: str, until: float | None) -> None:
        """Block or allow a client or a range."""

    @abstractmethod
    def load_rules(self, rules: list[tuple[str, str, float | None]]) -> int:
        """Set many rules, all of them or none; returns how many."""

    @abstractmethod
    def unlist(self, client: str) -> bool:
        """Remove the rule of exactly this client or range; returns whether there was one."""

    @abstractmethod
    def rules(self) -> list[Rule]:
        """All rules."""

    @abstractmethod
    def rule_of(self, client: str) -> Rule | None:
        """The rule that applies now."""


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Errors of a store end the command."""
    try:
        yield
    except WeirError as error:
        raise Away(printable(error, LINE_MAX)) from None
