"""Limits, their text and their keys, and errors. Only types: the names are in ``weir._core``."""

from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import Any, NamedTuple, TypeAlias

from typing_extensions import Self

#: One key for each limit, or one for all of them.
_Keys: TypeAlias = str | bytes | Sequence[str | bytes]

class Peek(int):
    """A cost of :meth:`weir.storage.Storage.decide` that is not charged.

    Its limit is evaluated but not charged, as in a ``TEST``. If it denies, no limit is charged.

    >>> from weir import Limit, Peek, Table
    >>> table = Table("memory://?keys=1000")
    >>> table.decide([Limit(1), Limit(9)], "alice", [Peek(1), 1])[0].remaining
    1
    """

class WeirError(Exception):
    """Base of all errors. ``code`` is libweir's error code, e.g. ``"ENOSPC"``.

    ``is_outage``: whether the store itself is unavailable or broken. It is true for a
    :class:`StorageError`, except for errors that concern only one request or one key.
    """

    code: str
    is_outage: bool

class ParseError(WeirError, ValueError):
    """A limit string or URI that cannot be parsed. ``column`` is 1-based; 0: no position."""

    column: int

class StorageError(WeirError):
    """The store could not decide. ``storage_error`` is the cause, if any."""

    storage_error: BaseException | None

class TableError(StorageError, OSError):
    """The table cannot be opened or used."""

class Granularity(NamedTuple):
    """A unit of time."""

    seconds: int
    name: str

class Limit:
    """One limit: ``amount`` hits per ``multiples`` units. Immutable and hashable.

    A ``namespace`` that begins with ``!`` is for internal use: :meth:`Table.counts` and
    :meth:`Table.top_clients` do not include its decisions, and rules do not apply to its keys.

    ``strategy`` is ``None`` if none was given; the limiter's strategy then applies.
    ``burst`` implies ``"token-bucket"``, ``max_delay`` ``"leaky-bucket"`` and ``tz``
    ``"calendar-window"``.

    Limits are equal if all their members are equal. They are ordered by unit, as in ``limits``,
    then by multiples, amount and the other members.
    """

    def __init__(
        self,
        amount: int,
        multiples: int = 1,
        unit: str = "minute",
        *,
        burst: int | None = None,
        strategy: str | None = None,
        max_delay: float | None = None,
        tz: str | tzinfo | None = None,
        namespace: str = "LIMITER",
    ) -> None: ...
    @property
    def amount(self) -> int: ...
    @property
    def multiples(self) -> int: ...
    @property
    def unit(self) -> str: ...
    @property
    def burst(self) -> int | None: ...
    @property
    def strategy(self) -> str | None: ...
    @property
    def max_delay(self) -> float | None: ...
    @property
    def tz(self) -> str | None:
        """The time zone of a calendar window, which starts at midnight there; ``None``: UTC."""
    @property
    def namespace(self) -> str: ...
    def window_at(self, now: float, /) -> tuple[float, float]:
        """Return start and end of the calendar window that contains ``now``.

        Raises ``ValueError`` for a limit of another strategy.
        """
    @property
    def GRANULARITY(self) -> Granularity: ...  # noqa: N802
    def get_expiry(self) -> int:
        """Return the period in seconds."""
    def key_for(self, *identifiers: object) -> str:
        """Return ``LIMITER/alice/10/1/minute``: namespace, identifiers, limit, joined by ``/``.

        ``/`` and ``%`` within an identifier are written ``%2F`` and ``%25``.
        """
    def full_key(self, key: str | bytes, /) -> str:
        """As :meth:`key_for`, for joined identifiers. Stores get this key."""
    def replace(
        self,
        *,
        burst: int | None = ...,
        strategy: str | None = ...,
        max_delay: float | None = ...,
        tz: str | tzinfo | None = ...,
        namespace: str = ...,
    ) -> Self:
        """Return a copy with these members changed."""
    def __lt__(self, other: Limit, /) -> bool: ...
    def __le__(self, other: Limit, /) -> bool: ...
    def __gt__(self, other: Limit, /) -> bool: ...
    def __ge__(self, other: Limit, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: Any, /) -> Self: ...
    def __reduce__(self) -> Any: ...

def parse(text: str, /, *, strategy: str | None = None, tz: str | tzinfo | None = None) -> Limit:
    """Parse exactly one limit; raise :class:`ParseError` for any other text.

    strategy, tz: for a limit that does not set a strategy, for example by ``burst``. With
    ``"calendar-window"``, ``week`` is a unit, too.
    """

def parse_many(
    text: str, /, *, strategy: str | None = None, tz: str | tzinfo | None = None
) -> list[Limit]:
    """Parse one or more limits joined by ``;``, ``,`` or ``|``, or raise :class:`ParseError`."""

def _make_zone(name: str, offsets: list[tuple[int, int]], /) -> Any: ...
def _set_items(
    classes: tuple[type[Limit], ...],
    granularities: dict[str, Any],
    hooks: tuple[Callable[..., Any], ...],
    /,
) -> None: ...
def join_key(*identifiers: object) -> str:
    """Return the key of the identifiers for stores.

    Identifiers are joined by ``/`` and escaped, so different identifiers have different keys:
    ``alice/view%2F1/7``. A str and its UTF-8 bytes are the same identifier, and so are a number
    and its text. :func:`identifier` converts other objects to text.
    """

def identifier(value: object, /) -> str | bytes:
    """Return the text of an identifier in keys: str and bytes unchanged, else ``str(value)``.

    Raises TypeError for an object whose text contains its memory address, because each request
    would get a different key. Exceptions from ``str(value)`` propagate.
    """

def client_form(text: str, ipv6_prefix: int = 64, /) -> str:
    """Return the form of a client's address that limits count. Other text is unchanged.

    Brackets, port and zone are removed, IPv4 within IPv6 (mapped, SIIT, NAT64) becomes the IPv4
    address, and IPv6 becomes the network of its first ``ipv6_prefix`` bits, 0 to 128.
    """
