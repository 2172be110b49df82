"""The C extension: Python objects over libweir's structs, nothing else.

Times are seconds since the Unix epoch. Every decision calls ``time.time()`` through the ``time``
module, so freezegun, time-machine and hiro can change Weir's clock. This time is rounded to the
nearest microsecond. Returned times and durations are rounded up to the next microsecond.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import tzinfo
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, SupportsIndex, final, overload

from typing_extensions import Self

from .storage import StorageTypes

VERSION: Final[str]
CHECKS_MAX: Final[int]

#: Modes of :meth:`Table.decide`.
HIT: Final[int]
TEST: Final[int]
EACH: Final[int]
REFUND: Final[int]
ROLE_CHARGED: Final[int]
ROLE_PEEKED: Final[int]
ROLE_DEFERRED: Final[int]
ROLE_SHADOW: Final[int]

#: The seconds of each unit, by name, shortest unit first.
UNITS: Final[dict[str, int]]

#: By name: tag in the names of counters, shape, description, options, and how states are packed.
STRATEGIES: Final[dict[str, tuple[str, str, str, tuple[str, ...], str]]]

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

class Verdict(NamedTuple):
    """The verdict of one limit."""

    allowed: bool
    limit: int
    remaining: int
    reset_at: float
    retry_after: float  # seconds; 0.0 if allowed, math.inf if never
    delay: float

class WindowStats(NamedTuple):
    """The time of the reset, in seconds since the epoch, and the number of remaining hits."""

    reset_time: float
    remaining: int

@final
class Decision:
    """The result of one check: a sequence with the :class:`Verdict` of each limit.

    Custom stores create instances.
    """

    def __new__(
        cls,
        verdicts: Sequence[Verdict],
        deciding: int,
        now: float,
        rule: Literal["", "block", "allow"] = "",
    ) -> Self: ...
    @property
    def allowed(self) -> bool: ...
    @property
    def deciding(self) -> int:
        """Index of the limit to report to the client."""
    @property
    def verdict(self) -> Verdict:
        """The verdict of the limit at index :attr:`deciding`."""
    @property
    def now(self) -> float:
        """The time of the decision."""
    @property
    def rule(self) -> Literal["", "block", "allow"]:
        """The kind of rule that decided instead of the limits; empty: no rule."""
    def texts(self, index: int, /) -> tuple[str, str, str]:
        """Return the header values of one limit, as text.

        They are the remaining hits, the first whole second after the reset, and the number of
        whole seconds from now until that second. One call is faster than three.
        """
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Verdict: ...
    @overload
    def __getitem__(self, index: slice, /) -> tuple[Verdict, ...]: ...
    def __iter__(self) -> Iterator[Verdict]: ...

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

class PreparedCheck:
    """The limits of one check, prepared once; each request adds its own data."""

    evaluated: int
    observed: int
    peeked: int
    deferred: int
    shadows: int
    responsive: int
    mode: int
    defaults: bool
    headers: tuple[tuple[Any, ...], ...] | None
    store: Any
    table: Table

    def __new__(
        cls,
        table: Table,
        store: Any,
        parts: Sequence[Any],
        prefix: str,
        on_empty: Callable[[int, str], object],
        main: int,
        mode: int,
        labels: int,
        evaluated: int,
        lenient: int,
        unshared: int,
        observed: int,
        /,
    ) -> Self:
        """Prepare 1 to 32 parts.

        A part of a prepared check: a tuple of (limit, key_func, after, cost, role, exempt_when,
        scope_of, cost_of, deduct_when). ``after`` follows the client in the key of the counter.
        Functions that do not apply are ``None``.
        """
    def evaluate(self) -> Evaluation:
        """Gather and decide."""
    def gather(self) -> Evaluation:
        """Call the functions that return client and cost; decide nothing."""

@final
class Evaluation:
    """The evaluation of a prepared check for one request. Bit i of a mask is part i."""

    @property
    def check(self) -> Any: ...
    @property
    def parts(self) -> int: ...
    @property
    def denied(self) -> int: ...
    @property
    def reported(self) -> int: ...
    @property
    def now(self) -> float: ...
    @property
    def rule(self) -> str: ...
    @property
    def delay(self) -> float: ...
    def decide(self) -> bool:
        """Decide with the check's store. Returns whether all parts allow."""
    def add(self, parts: int, /) -> int:
        """Gather more parts for :meth:`settle`. Returns the mask of the parts that apply."""
    def settle(self, mode: int, parts: int, unit_cost: bool = False, /) -> None:
        """Charge parts (``EACH``) or give back (``REFUND``); keep the verdicts that allow.

        unit_cost: use a cost of 1.
        """
    def decide_on(self, table: object, mode: int, parts: int, settling: bool, /) -> None:
        """Decide parts on a table."""
    def rule_match(self, parts: int, /) -> bool:
        """Return whether a rule of the table decides about the clients."""
    def record(self, parts: int, shadow: bool, settled: bool = False, /) -> None:
        """Count decisions of another store in the table's statistics."""
    def checks(self, parts: int, /) -> tuple[list[int], list[Limit], list[str], list[int]]:
        """Return indices, limits, keys and costs of parts."""
    def keep(self, parts: list[int] | int, decision: Decision, settling: bool, /) -> bool:
        """Copy the verdicts of a decision into the parts. Returns whether it allows.

        parts: the indices of the parts in the decision's order, or their mask.
        """
    def verdict(self, index: int, /) -> Verdict: ...
    def client(self, index: int, /) -> str: ...
    def scope(self, index: int, /) -> str | None: ...
    def key(self, index: int, /) -> str: ...
    def cost(self, index: int, /) -> int: ...
    def refuse(self) -> None:
        """Make every main part deny, without a time at which it allows again."""
    def report(self, index: int, /) -> None:
        """Report this part to the client."""
    def write_headers(self, pairs: list[tuple[str, str]], names: tuple[Any, ...], /) -> bool:
        """Append the headers of the reported part. Returns whether they were appended."""

class RequestBase:
    """The state of one request for one limiter."""

    @property
    def plan(self) -> Any: ...

    pending: list[Any] | None
    cache: Any
    defaults_counted: bool
    wake: float
    evaluation: Evaluation | None

    def __new__(cls, plan: object, /) -> Self: ...

class PlanBase:
    """The plan of one endpoint and method."""

    function: Any
    filters: list[Callable[[], bool]]
    bare: Any
    before: Any
    view: Any
    at_call: Any
    at_call_counted: Any

@final
class FlaskHooks:
    """The hooks that Flask calls before and after requests."""

    def __new__(
        cls, current: Callable[[], object], slot: str, request_type: type[RequestBase], /
    ) -> Self: ...
    def before(self, plans: dict[str, Any], views: dict[str, Any], /) -> Any:
        """Begin the request and run the check before dispatch.

        Returns ``None``, the exception that refuses the request, or ``False`` if the request has
        no plan.
        """
    def begin(self, context: object, plan: PlanBase, /) -> Any:
        """As :meth:`before`, with a given plan."""
    def run(self, request: RequestBase, node: object, /) -> Any:
        """Run one check of a request. Returns ``None`` or the exception that refuses it."""
    def call(self, view: object, /) -> Any:
        """Run the check of a limited function.

        Returns the time at which the function may run (0.0: immediately), the exception that
        refuses the request, or ``None`` if the check was not planned.
        """
    def after(self, response: object, /) -> Any:
        """Write headers. Returns the request if Python code has more to do for it, else None."""

@final
class RemoteAddress:
    """A key function. Returns a plain IPv4 address, else the result of ``otherwise``."""

    def __new__(cls, current: Callable[[], object], otherwise: Callable[[], str], /) -> Self: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> str: ...

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
        keys: str | bytes | Sequence[str | bytes],
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
    def peek(
        self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /
    ) -> Decision:
        """Return what remains in the counters. Ignores rules about clients; charges nothing."""
    def clear(
        self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /
    ) -> None: ...
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
        keys: str | bytes | Sequence[str | bytes],
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
        keys: str | bytes | Sequence[str | bytes],
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

def client_form(text: str, ipv6_prefix: int = 64, /) -> str:
    """Return the form of a client's address that limits count. Other text is unchanged.

    Brackets, port and zone are removed, IPv4 within IPv6 (mapped, SIIT, NAT64) becomes the IPv4
    address, and IPv6 becomes the network of its first ``ipv6_prefix`` bits, 0 to 128.
    """

def unlink(uri: str, /) -> None:
    """Remove the name of a shm:// or file:// table.

    Processes that have it open can still use it.
    """

class RateLimiter:
    """One strategy with one store; the classes of ``limits.strategies`` as one C type.

    ``storage``: a :class:`Table` or any object with the methods ``decide`` and ``clear``.
    """

    def __init__(self, storage: StorageTypes, strategy: str = "fixed-window") -> None: ...
    @property
    def storage(self) -> StorageTypes: ...
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

# -- remote stores: commands and replies

#: The script that decides on Redis.
REDIS_SCRIPT: Final[bytes]

class RedisCodec:
    """Encodes commands for Redis. prefix: the first part of all names, without braces."""

    def __new__(cls, prefix: bytes = b"weir") -> RedisCodec: ...
    @property
    def prefix(self) -> bytes: ...
    def decide(
        self,
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        costs: Sequence[int] | None = None,
        mode: int = ...,
        /,
    ) -> RedisCommand:
        """Return the command for the arguments of :meth:`Table.decide`."""
    def prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, /
    ) -> RedisCommand:
        """Return the command that decides parts of a prepared check."""
    def clear(
        self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /
    ) -> RedisCommand:
        """Return the command that clears these counters."""
    def slots(
        self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /
    ) -> list[int]:
        """Return the Cluster slot of each counter."""
    def set_clock(self, seconds: float, given: bool = False, /) -> None:
        """For tests: add ``seconds`` to the server's time; if ``given``, use them as the time."""

class RedisCommand:
    """A command for Redis. The buffer protocol gives its bytes."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def read(self, data: bytes, /) -> Decision | bool | str | None:
        """Return the result of a reply.

        A :class:`Decision`, or ``True`` for a command that clears; ``None`` if more bytes are
        needed; ``False`` if the server does not have the script: send :meth:`whole`; a str: the
        server's error.
        """
    def exchange(
        self, fd: int, seconds: float | None, message: bytes | None = None, /
    ) -> Decision | bool | str:
        """Send the command over a socket, and return the result of :meth:`read` for the reply.

        seconds: the longest duration; ``None``: no bound. message: bytes to send instead of the
        command, e.g. :meth:`whole`. Raises ConnectionAbortedError if the server cannot have
        executed the command.
        """
    def slot(self) -> int:
        """Return the Cluster slot of the first counter."""
    def digest(self) -> bytes:
        """Return a strong hash of the command."""
    def whole(self) -> bytes:
        """Return the command with the script itself."""
    def arguments(self) -> list[bytes]: ...

def deciding(limits: Sequence[Limit], verdicts: Sequence[Verdict], /) -> int:
    """Return the index of the limit to report to the client.

    If limits denied, it is the one of them with the longest ``retry_after``; otherwise the limit
    with the shortest period.
    """

def later(decision: Decision, seconds: float, /) -> Decision:
    """Return the same denial, ``seconds`` later: its waits are shorter."""

class MemcachedCheck:
    """One limit of a decision on Memcached."""

    @property
    def name(self) -> bytes: ...
    @property
    def counts(self) -> bool:
        """Whether the server itself can count this limit."""
    @property
    def peek(self) -> bool:
        """Whether it is evaluated without a charge."""
    @property
    def cost(self) -> int: ...
    @property
    def amount(self) -> int: ...
    @property
    def count_bits(self) -> int:
        """The number of bits that contain the hits in a stored number."""
    def with_cost(self, cost: int, /) -> MemcachedCheck:
        """Return the check with another cost."""
    def command(self, what: int, cas: int, now: float, /) -> bytes:
        """Return the meta command for a limit that the server counts. now: the true time."""
    def evaluate(self, there: bool, count: int, left_ns: int, what: int, now: float, /) -> Verdict:
        """Return the verdict for the reply to :meth:`command`."""
    def window(self, number: int, left: int, now: float, /) -> tuple[int, int, int]:
        """Split a number that the server stores.

        Returns the hits, the nanoseconds until the window ends, and the start of the window.

        left: seconds until the item expires, or -1. now: the true time.
        """
    def opened(self, now: float, /) -> tuple[int, int]:
        """Return the number of a window that begins now, and how many seconds to keep it."""
    def step(
        self, value: bytes | None, mode: int, now: float, /
    ) -> tuple[Verdict, bytes, int, bool]:
        """Step a stored state.

        Returns the verdict, the next value, how many seconds to keep it, and whether it has
        changed. Raises :class:`TableError` if ``value`` is not a state of this limit or would
        become too long.
        """

def memcached_checks(
    prefix: bytes,
    limits: Sequence[Limit],
    keys: str | bytes | Sequence[str | bytes],
    costs: Sequence[int] | None,
    /,
) -> list[MemcachedCheck]:
    """Convert the arguments of :meth:`Table.decide` to one check for each limit."""

def memcached_read(data: bytes, start: int, /) -> tuple[int, int, int, int, int, str] | None:
    """Read one reply: its kind, end, count, seconds left, cas and error.

    Returns ``None`` if more bytes are needed.
    """

@final
class StateRequest:
    """One decision about packed states. :func:`state_request` creates it."""

    names: tuple[str, ...]
    identity: bytes
    mode: int
    def decide(
        self, values: Sequence[bytes | None], now: float, /
    ) -> tuple[Decision, list[tuple[int, bytes | None, float]]]:
        """Returns the decision and the changes: (index in ``names``, value, expiry).

        values: the value that the store has for each of ``names``.
        """

def state_request(
    prefix: bytes,
    limits: Sequence[Limit],
    keys: str | bytes | Sequence[str | bytes],
    costs: Sequence[int] | None,
    mode: int,
    /,
) -> StateRequest:
    """Return the request for the arguments of :meth:`Storage.decide`."""
