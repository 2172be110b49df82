"""Tables, statistics, rules, and the limiter. Only types: the names are in ``weir._core``."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol

from typing_extensions import Self

from ._core_decision import Decision, Verdict, WindowStats
from ._core_limit import Limit, _Keys

class LimitCounts(NamedTuple):
    """The counts of decisions of all limits with the same text.

    ``limit``: the text, ``"10 per 1 minute"``, or ``"other"`` for all texts after the first 63.
    ``denied``: requests denied by this limit. If one of several limits denies a request, only the
    limits that deny count it. ``near``: allowed requests after which at least 80 % of the limit was
    used. ``shadow``: requests that would have been denied if the limit were enforced.
    """

    limit: str
    allowed: int
    denied: int
    near: int
    shadow: int

class TopClient(NamedTuple):
    """The counts of one client under the limits of one text.

    ``client``: an IP address, a name (see :attr:`Table.reveal`), or ``#`` and 16 hexadecimal
    digits. ``allowed`` and ``denied`` are lower bounds: requests before the client was listed are
    not counted. The true number of the requested kind is at most ``error`` higher. ``last``: the
    latest hit, in seconds since the epoch.
    """

    client: str
    limit: str
    allowed: int
    denied: int
    error: int
    last: float

class Rule(NamedTuple):
    """A rule about a client. Times: seconds since the epoch; ``until`` is None: no expiry."""

    client: str
    kind: Literal["block", "allow"]
    since: float
    until: float | None

class RegisteredLimit(NamedTuple):
    """A limit in use. The key of a client's counter is ``before + client + after``."""

    limit: Limit
    before: str
    after: str

class Table:
    """A local store: ``memory://``, ``shm://name`` or ``file:///path``.

    Options follow a ``?`` and are joined by ``&``: ``keys=N``, ``hits=N``, ``rules=N`` and
    ``group=NAME``.

    Tables with the same URI and different namespaces (0 to 2**63-1) do not share counters.
    """

    def __new__(
        cls,
        uri: str = "memory://",
        /,
        *,
        namespace: int = 0,
        _forks_share: bool = False,
        _observes: bool = False,
        _saved: bytes = ...,
    ) -> Self: ...
    def _save(self) -> bytes: ...
    @property
    def uri(self) -> str: ...
    @property
    def namespace(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def decide(
        self,
        limits: Sequence[Limit],
        keys: _Keys,
        costs: Sequence[int] | None = None,
        mode: int = ...,
        now: float | None = None,
        /,
    ) -> Decision:
        """Decide all limits at once. A limit without a strategy is a fixed window.

        ``keys``: one for each limit, or one str or bytes for all. A key contains the identifiers
        of the counter, joined as by :func:`join_key`; ``limiter.hit(limit, "a", "b")`` uses
        ``"a/b"``. Each combination of key, limit, strategy, ``Limit.namespace`` and
        ``Table.namespace`` has its own counter.

        ``now``: the time of the decision, for replaying past requests; ``None``: the current time.
        """
    def peek(self, limits: Sequence[Limit], keys: _Keys, /) -> Decision:
        """Return what remains in the counters. Ignores rules about clients; charges nothing."""
    def clear(self, limits: Sequence[Limit], keys: _Keys, /) -> None: ...
    def reset(self) -> None: ...
    def check(self) -> bool: ...
    def info(self) -> dict[str, int]: ...
    def meter(self, name: str, add: int = 0, /) -> int:
        """Add to a meter shared by all processes of the table; return its new value.

        A table has room for 224 meters, which are never removed. Raises ValueError if there is no
        more room.
        """
    def raise_meter(self, name: str, value: int, /) -> None:
        """Raise the meter to ``value`` if it is lower."""
    def verify(self) -> None:
        """Run the full integrity check; raise :class:`TableError` if it fails."""
    # -- statistics
    def counts(self) -> list[LimitCounts]:
        """Return how often each limit allowed and denied.

        Counts all processes, since the table was created.
        """
    def top_clients(
        self,
        by: Literal["denied", "allowed"] = "denied",
        count: int = 20,
        limit: str | Limit | None = None,
    ) -> list[TopClient]:
        """Return the clients with the most denied or allowed hits, highest number first.

        count: the number of clients, 1 to 4096. limit: only hits under this limit.
        """
    def record(
        self,
        limits: Sequence[Limit],
        keys: _Keys,
        decision: Decision,
        shadow: bool = False,
    ) -> None:
        """Count a decision that another store made; limits and keys as in :meth:`decide`.

        shadow: the decision was not enforced. Only its denials are counted, as shadow denials.
        """
    def register(self, limit: Limit, before: str, after: str, /) -> bool:
        """Add a limit to :meth:`registry`. Returns ``False`` if there is no room for it.

        ``before + client + after`` is the key that :meth:`decide` gets for a client.
        """
    def registry(self) -> list[RegisteredLimit]:
        """Return the limits that any process registered in this table's namespace."""
    #: Deprecated: the earlier names.
    heaviest = top_clients
    note = record
    describe = register
    catalogue = registry
    # -- rules about clients
    def block(
        self, client: str | bytes | float, until: float | None = None, now: float | None = None
    ) -> None:
        """Deny all requests of a client or IP range, in all processes, immediately.

        ``client``: the first identifier of :meth:`RateLimiter.hit`, ``"10.0.0.0/8"``,
        ``"2001:db8::/32"``, or a ``#…`` from :meth:`top_clients`. ``until``: seconds since the
        epoch; ``None``: no expiry. Replaces the rule about the same client or range, in all
        namespaces of the table. The most specific rule applies; after it expires, the next wider
        rule applies.

        Raises :class:`ParseError` for a range with bits after its prefix and for text that only
        resembles an address, :class:`TableError` if there is no more room.
        """
    def allow(
        self, client: str | bytes | float, until: float | None = None, now: float | None = None
    ) -> None:
        """Allow all requests of a client or range, ignoring limits, and charge nothing."""
    def unlist(self, client: str | bytes | float, /) -> bool:
        """Remove the rule about exactly this client or range. Returns whether there was one."""
    def rules(self, now: float | None = None) -> list[Rule]:
        """Return the rules that have not expired: IPv4, then IPv6, by address, then names."""
    def rule_of(self, client: str | bytes | float, now: float | None = None) -> Rule | None:
        """Return the rule that applies to a client."""
    def load_rules(
        self,
        rules: Iterable[tuple[str | bytes | float, str, float | None]],
        *,
        replace: bool = False,
        now: float | None = None,
    ) -> int:
        """Set many rules, ``(client, kind, until)``, in one change. If one is invalid, set none.

        replace: remove all other rules. Returns how many were set. Expired rules are skipped.
        """
    @property
    def rules_version(self) -> int:
        """Changes with each change of the rules; 0: no rule was ever set."""
    def ruled(
        self,
        limits: Sequence[Limit],
        keys: _Keys,
        now: float | None = None,
        /,
    ) -> Decision | None:
        """Return the decision if a rule makes it, else ``None``; for stores that decide elsewhere.

        Counts nothing. If rules allow only some of several clients, the limits decide about all
        of them.
        """
    def name_of(self, client: str | bytes, /) -> str:
        """Return the name by which :meth:`top_clients` shows a client.

        It is an IP address unchanged, and the hash of any other client.
        """
    @property
    def ipv6_prefix(self) -> int | None:
        """The number of bits of an IPv6 address that identify a client in this table.

        The latest application that counts in this table sets it; ``None``: not set. If it is set,
        rules about an IPv6 address apply to its network of that many bits.
        """
    @ipv6_prefix.setter
    def ipv6_prefix(self, value: int, /) -> None: ...
    @property
    def reveal(self) -> bool:
        """Whether this process shows client names in clear. It always shows IP addresses."""
    @reveal.setter
    def reveal(self, value: bool, /) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

def unlink(uri: str, /) -> None:
    """Remove the name of a shm:// or file:// table.

    Processes that have it open can still use it.
    """

class _Store(Protocol):
    """What a limiter calls: a Table, a Storage, or another object with these methods."""

    def decide(
        self,
        limits: Sequence[Limit],
        keys: _Keys,
        costs: Sequence[int] | None = None,
        mode: int = ...,
        /,
    ) -> Decision: ...
    def clear(self, limits: Sequence[Limit], keys: _Keys, /) -> object: ...

class RateLimiter:
    """One strategy with one store; the classes of ``limits.strategies`` as one C type.

    ``storage``: a :class:`Table` or any object with the methods ``decide`` and ``clear``.
    """

    def __init__(self, storage: _Store, strategy: str = "fixed-window") -> None: ...
    @property
    def storage(self) -> Any:
        """The object that was given."""
    @property
    def strategy(self) -> str: ...
    def hit(self, item: Limit, /, *identifiers: object, cost: int = 1) -> bool:
        """Charge ``cost`` if the limit has room for it. Returns whether it was charged."""
    def test(self, item: Limit, /, *identifiers: object, cost: int = 1) -> bool:
        """Return whether the limit has room for ``cost``; charge nothing."""
    def refund(self, item: Limit, /, *identifiers: object, cost: int = 1) -> None:
        """Give ``cost`` back, at most what was charged."""
    def decide(
        self,
        item: Limit,
        /,
        *identifiers: object,
        cost: int = 1,
        mode: int = ...,
    ) -> Verdict:
        """As :meth:`hit`, but return the verdict."""
    def get_window_stats(self, item: Limit, /, *identifiers: object) -> WindowStats: ...
    def clear(self, item: Limit, /, *identifiers: object) -> None: ...
