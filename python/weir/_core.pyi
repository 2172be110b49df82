"""The C extension: Python objects over libweir's structs, nothing else.

Times are seconds since the Unix epoch. Every call that decides reads ``time.time()`` through the
``time`` module at that moment, so that freezegun, time-machine and hiro move Weir's clock. The
reading is rounded to the nearest microsecond, moments and durations that are answered are rounded
up to the next.
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

#: The seconds of each unit, by name; the shortest first.
UNITS: Final[dict[str, int]]

#: The strategies: tag in the names of counters, shape, and what they do in words, by name.
STRATEGIES: Final[dict[str, tuple[str, str, str, tuple[str, ...], str]]]

class Peek(int):
    """A cost of :meth:`weir.storage.Storage.decide` that is not charged.

    Its limit is evaluated but not charged, as in a ``TEST``. But if it denies, nothing is charged.

    >>> from weir import Limit, Peek, Table
    >>> table = Table("memory://?keys=1000")
    >>> table.decide([Limit(1), Limit(9)], "alice", [Peek(1), 1])[0].remaining
    1
    """

class WeirError(Exception):
    """Base of all errors. ``code`` is libweir's, e.g. ``"ENOSPC"``.

    ``is_outage`` says whether the store itself is away or broken: true of a
    :class:`StorageError`, unless it is about one request or one key.
    """

    code: str
    is_outage: bool

class ParseError(WeirError, ValueError):
    """A limit string or URI that cannot be read. ``column`` is 1-based, 0 when there is none."""

    column: int

class StorageError(WeirError):
    """A store that could not decide. ``storage_error`` is the cause, if any."""

    storage_error: BaseException | None

class TableError(StorageError, OSError):
    """A table that cannot be opened or used."""

class Granularity(NamedTuple):
    """A unit of time."""

    seconds: int
    name: str

class Limit:
    """One limit: ``amount`` hits per ``multiples`` units. Immutable and hashable.

    A ``namespace`` that begins with ``!`` is for bookkeeping: what it decides is not counted by
    :meth:`Table.counts` and listed by :meth:`Table.top_clients`, and no rule is about its keys.

    ``strategy`` is ``None`` if none was given; a limiter then uses its own.
    ``burst`` implies ``"token-bucket"``, ``max_delay`` ``"leaky-bucket"`` and ``tz``
    ``"calendar-window"``.

    Equal limits are equal in every member. They are ordered by unit, as in ``limits``; then by
    multiples, amount and the rest.
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
        """The zone whose midnights a calendar window starts at; ``None``: UTC."""
    @property
    def namespace(self) -> str: ...
    def window_at(self, now: float, /) -> tuple[float, float]:
        """Start and end of the calendar window that a moment is in.

        Raises ``ValueError`` for a limit of another strategy.
        """
    @property
    def GRANULARITY(self) -> Granularity: ...  # noqa: N802
    def get_expiry(self) -> int:
        """The period in seconds."""
    def key_for(self, *identifiers: object) -> str:
        """``LIMITER/alice/10/1/minute``: namespace, identifiers and the limit, joined by ``/``.

        ``/`` and ``%`` within an identifier are written ``%2F`` and ``%25``.
        """
    def full_key(self, key: str | bytes, /) -> str:
        """:meth:`key_for` of a key whose identifiers are joined already: what stores are given."""
    def replace(
        self,
        *,
        burst: int | None = ...,
        strategy: str | None = ...,
        max_delay: float | None = ...,
        tz: str | tzinfo | None = ...,
        namespace: str = ...,
    ) -> Self:
        """A copy with these members changed."""
    def __lt__(self, other: Limit, /) -> bool: ...
    def __le__(self, other: Limit, /) -> bool: ...
    def __gt__(self, other: Limit, /) -> bool: ...
    def __ge__(self, other: Limit, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: Any, /) -> Self: ...
    def __reduce__(self) -> Any: ...

def parse(text: str, /, *, strategy: str | None = None, tz: str | tzinfo | None = None) -> Limit:
    """Exactly one limit, else :class:`ParseError`.

    strategy, tz: for limits that do not set a strategy, for example by ``burst``. With
    ``"calendar-window"``, ``week`` is a unit, too.
    """

def parse_many(
    text: str, /, *, strategy: str | None = None, tz: str | tzinfo | None = None
) -> list[Limit]:
    """One or more limits joined by ``;``, ``,`` or ``|``, else :class:`ParseError`."""

def _make_zone(name: str, offsets: list[tuple[int, int]], /) -> Any: ...
def _set_items(
    classes: tuple[type[Limit], ...],
    granularities: dict[str, Any],
    hooks: tuple[Callable[..., Any], ...],
    /,
) -> None: ...
def join_key(*identifiers: object) -> str:
    """The key of the identifiers for stores.

    Joined by ``/``, escaped so that different identifiers make different keys:
    ``alice/view%2F1/7``. A str, the bytes of its UTF-8, and a number and its text are the same
    identifier. Of other objects :func:`identifier` makes text.
    """

def identifier(value: object, /) -> str | bytes:
    """The text of an identifier in keys: str and bytes unchanged, else ``str(value)``.

    Raises what that raises, and TypeError for an object whose text is its address in memory, for no
    other request would have it again.
    """

class Verdict(NamedTuple):
    """The verdict of one limit."""

    allowed: bool
    limit: int
    remaining: int
    reset_at: float
    retry_after: float  # seconds; 0.0 when allowed, math.inf when never
    delay: float

class WindowStats(NamedTuple):
    """When the window is reset, in seconds since the epoch, and how many hits remain."""

    reset_time: float
    remaining: int

@final
class Decision:
    """The result of one check: a sequence with the :class:`Verdict` of each limit.

    Custom stores create it.
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
        """The verdict of that limit."""
    @property
    def now(self) -> float:
        """The time of the decision."""
    @property
    def rule(self) -> Literal["", "block", "allow"]:
        """The kind of rule that decided instead of the limits, if any."""
    def texts(self, index: int, /) -> tuple[str, str, str]:
        """The values of one limit for headers, as text.

        The remaining hits, the first whole second after its reset, and the whole seconds from
        now until then. One call, for speed.
        """
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Verdict: ...
    @overload
    def __getitem__(self, index: slice, /) -> tuple[Verdict, ...]: ...
    def __iter__(self) -> Iterator[Verdict]: ...

class LimitCounts(NamedTuple):
    """The counts of decisions of all limits with the same text.

    ``limit``: the text, ``"10 per 1 minute"``, or ``"other"`` for those beyond 63 texts.
    ``denied``: by this limit; of several limits only those that denied count anything then.
    ``near``: of the allowed, those after which at least 80 % of the limit was used. ``shadow``:
    would have been denied, were the limit enforced.
    """

    limit: str
    allowed: int
    denied: int
    near: int
    shadow: int

class TopClient(NamedTuple):
    """The counts of one client under the limits of one text.

    ``client``: an IP address, what :attr:`Table.reveal` reveals, or ``#`` and 16 hexadecimal
    digits. ``allowed`` and ``denied`` have happened; at most ``error`` more of the requested kind
    may have happened before it was listed. ``last``: its latest hit, in seconds since the epoch.
    """

    client: str
    limit: str
    allowed: int
    denied: int
    error: int
    last: float

class Rule(NamedTuple):
    """A client that is blocked or allowed. Seconds since the epoch; ``until`` None: no expiry."""

    client: str
    kind: Literal["block", "allow"]
    since: float
    until: float | None

class RegisteredLimit(NamedTuple):
    """A limit in use: ``before + client + after`` is the key of a client's counter."""

    limit: Limit
    before: str
    after: str

#: A limit of a gate: what follows the client in its key, its cost, and the place of its verdict.

class PreparedCheck:
    """The limits of one check; only the data of the request is missing."""

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

        parts: tuples of (limit, key_func, after, cost, role, exempt_when, scope_of, cost_of,
        deduct_when); functions that do not apply are ``None``.
        """
    def evaluate(self) -> Evaluation:
        """Gather and decide."""
    def gather(self) -> Evaluation:
        """Call the functions that return client and cost; decide nothing."""

@final
class Evaluation:
    """The evaluation of a prepared check for one request. In masks, bit i means part i."""

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
        """Decide by the check's store; whether no part denies."""
    def add(self, parts: int, /) -> int:
        """Gather more parts, for :meth:`settle`; the mask of those that apply."""
    def settle(self, mode: int, parts: int, unit_cost: bool = False, /) -> None:
        """Charge or give back parts; keep the verdicts that allow."""
    def decide_on(self, table: object, mode: int, parts: int, settling: bool, /) -> None:
        """Decide parts on a table."""
    def rule_match(self, parts: int, /) -> bool:
        """Whether a rule of the table decides about the clients."""
    def record(self, parts: int, shadow: bool, settled: bool = False, /) -> None:
        """Count what was decided elsewhere in the table's statistics."""
    def checks(self, parts: int, /) -> tuple[list[int], list[Limit], list[str], list[int]]:
        """Indices, limits, keys and costs of parts."""
    def keep(self, parts: list[int] | int, decision: Decision, settling: bool, /) -> bool:
        """Take over the verdicts of a decision; whether it allows.

        parts: their indices in its order, or their mask.
        """
    def verdict(self, index: int, /) -> Verdict: ...
    def client(self, index: int, /) -> str: ...
    def scope(self, index: int, /) -> str | None: ...
    def key(self, index: int, /) -> str: ...
    def cost(self, index: int, /) -> int: ...
    def refuse(self) -> None:
        """Makes every main part deny, without a time at which it allows again."""
    def report(self, index: int, /) -> None:
        """Makes this the part that is reported to the client."""
    def write_headers(self, pairs: list[tuple[str, str]], names: tuple[Any, ...], /) -> bool:
        """Append the headers of the reported part."""

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
        """Begin the request and make the check before dispatch.

        ``None``, or the exception that refuses the request; ``False`` if there is no plan for it.
        """
    def begin(self, context: object, plan: PlanBase, /) -> Any:
        """The same for a plan that was found."""
    def run(self, request: RequestBase, node: object, /) -> Any:
        """Make one check of a request: ``None``, or the exception that refuses it."""
    def call(self, view: object, /) -> Any:
        """Make the check of a limited function.

        When it may run (0.0: at once), or the exception that refuses the request; ``None`` if the
        check was not planned.
        """
    def after(self, response: object, /) -> Any:
        """Write headers: None; or the request, if there is more to do for it."""

@final
class RemoteAddress:
    """A key function: the client's address where that is plain IPv4."""

    def __new__(cls, current: Callable[[], object], otherwise: Callable[[], str], /) -> Self: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> str: ...

class Table:
    """A local store: ``memory://``, ``shm://name`` or ``file:///path``.

    After a ``?`` come ``keys=N``, ``hits=N``, ``rules=N`` and ``group=NAME``, joined by ``&``.

    Tables of one URI but different namespaces (0 to 2**63-1) share no counter.
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

        ``keys``: one for each limit, or one str or bytes for all. A key is the identifiers of the
        counter, joined as by :func:`join_key`; ``limiter.hit(limit, "a", "b")`` counts with
        ``"a/b"``. It is counted apart for each limit, strategy, ``Limit.namespace`` and
        ``Table.namespace``.

        ``now``: the moment of the decision, for replaying what has been; ``None``: the clock's.
        """
    def peek(
        self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /
    ) -> Decision:
        """What remains in counters, ignoring rules about clients; charges nothing."""
    def clear(
        self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /
    ) -> None: ...
    def reset(self) -> None: ...
    def check(self) -> bool: ...
    def info(self) -> dict[str, int]: ...
    def meter(self, name: str, add: int = 0, /) -> int:
        """Adds to a number that all who share the table add to; what it is then.

        There are 224 of them, and a name stays. ValueError: there is no more room.
        """
    def raise_meter(self, name: str, value: int, /) -> None:
        """The meter becomes ``value``, unless it is more than that already."""
    def verify(self) -> None:
        """The full integrity check; raises :class:`TableError`."""
    # -- statistics
    def counts(self) -> list[LimitCounts]:
        """How often each limit allowed and denied, in all processes, since the table exists."""
    def top_clients(
        self,
        by: Literal["denied", "allowed"] = "denied",
        count: int = 20,
        limit: str | Limit | None = None,
    ) -> list[TopClient]:
        """The clients with most denied or allowed hits, most first.

        count: how many, 1 to 4096. limit: under this one alone.
        """
    def record(
        self,
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        decision: Decision,
        shadow: bool = False,
    ) -> None:
        """Count a decision that another store made; limits and keys as in :meth:`decide`.

        shadow: it was not enforced; its denials count as such, and nothing else counts.
        """
    def register(self, limit: Limit, before: str, after: str, /) -> bool:
        """Make a limit known to :meth:`registry`; ``False`` if there is no room for it.

        The key of a client's counter, as :meth:`decide` is given it, is ``before + client +
        after``.
        """
    def registry(self) -> list[RegisteredLimit]:
        """The limits that were registered, by any process, in this table's namespace."""
    #: Deprecated: the earlier names.
    heaviest = top_clients
    note = record
    describe = register
    catalogue = registry
    # -- rules about clients
    def block(
        self, client: str | bytes | float, until: float | None = None, now: float | None = None
    ) -> None:
        """Deny everything to a client or a range of IP addresses, in all processes, at once.

        ``client``: an identifier as :meth:`RateLimiter.hit` takes it first, ``"10.0.0.0/8"``,
        ``"2001:db8::/32"``, or the ``#…`` of :meth:`top_clients`. ``until``: seconds since the
        epoch; ``None``: no expiry. Replaces the rule of the same client or range, in all namespaces
        of the table. The most specific rule wins; when it ends, the next wider one holds.

        Raises :class:`ParseError` for a range with bits after its prefix and for what merely looks
        like an address, :class:`TableError` if there is no more room.
        """
    def allow(
        self, client: str | bytes | float, until: float | None = None, now: float | None = None
    ) -> None:
        """Let a client or a range through, whatever the limits say, and charge nothing."""
    def unlist(self, client: str | bytes | float, /) -> bool:
        """Remove the rule of exactly this client or range; whether there was one."""
    def rules(self, now: float | None = None) -> list[Rule]:
        """The rules that have not ended: IPv4 by address, IPv6 by address, then names."""
    def rule_of(self, client: str | bytes | float, now: float | None = None) -> Rule | None:
        """The rule that holds for a client."""
    def load_rules(
        self,
        rules: Iterable[tuple[str | bytes | float, str, float | None]],
        *,
        replace: bool = False,
        now: float | None = None,
    ) -> int:
        """Set many rules, ``(client, kind, until)``, in one change: all or, if one is wrong, none.

        replace: remove all others. Returns how many hold: those that have ended already are passed
        over.
        """
    @property
    def rules_version(self) -> int:
        """Changes with each change of the rules; 0: there never was one."""
    def ruled(
        self,
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        now: float | None = None,
        /,
    ) -> Decision | None:
        """For a store that decides elsewhere: the decision, if a rule decides instead.

        Counts nothing. If several clients are checked and only some are allowed, the limits
        decide about all of them.
        """
    def name_of(self, client: str | bytes, /) -> str:
        """How :meth:`top_clients` shows a client: an IP address as it is, others as their hash."""
    @property
    def ipv6_prefix(self) -> int | None:
        """The number of bits of an IPv6 address that identify a client here.

        As the latest application that counts in this table has noted; ``None``: none has. Rules
        about an IPv6 address are then about its network of that many bits.
        """
    @ipv6_prefix.setter
    def ipv6_prefix(self, value: int, /) -> None: ...
    @property
    def reveal(self) -> bool:
        """Whether this process lists clients in clear. IP addresses always are."""
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
    """The form of a client's address that limits count; another text stays as it is.

    Brackets, a port and a zone are left out, IPv4 within IPv6 (mapped, SIIT, NAT64) is that IPv4
    address, and IPv6 becomes the network of its first ``ipv6_prefix`` bits, 0 to 128.
    """

def unlink(uri: str, /) -> None:
    """Removes the name of a shm:// or file:// table; who has it open keeps it."""

class RateLimiter:
    """One strategy over one store; ``limits.strategies`` in one C type.

    ``storage`` is a :class:`Table` or any object with its ``decide`` and ``clear``.
    """

    def __init__(self, storage: StorageTypes, strategy: str = "fixed-window") -> None: ...
    @property
    def storage(self) -> StorageTypes: ...
    @property
    def strategy(self) -> str: ...
    def hit(self, item: Limit, /, *identifiers: object, cost: int = 1) -> bool:
        """Charges ``cost`` if the limit has room for it. True if it was charged."""
    def test(self, item: Limit, /, *identifiers: object, cost: int = 1) -> bool:
        """Returns whether there is room for ``cost``; charges nothing."""
    def refund(self, item: Limit, /, *identifiers: object, cost: int = 1) -> None:
        """Gives ``cost`` back, never above full."""
    def decide(
        self,
        item: Limit,
        /,
        *identifiers: object,
        cost: int = 1,
        mode: int = ...,
    ) -> Verdict:
        """:meth:`hit` that answers with the whole verdict."""
    def get_window_stats(self, item: Limit, /, *identifiers: object) -> WindowStats: ...
    def clear(self, item: Limit, /, *identifiers: object) -> None: ...

# -- remote stores: what to send, and what came back

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
        """The command for what :meth:`Table.decide` takes."""
    def prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, /
    ) -> RedisCommand:
        """The command that decides parts of a prepared check."""
    def clear(
        self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /
    ) -> RedisCommand:
        """The command that clears these counters."""
    def slots(
        self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /
    ) -> list[int]:
        """The Cluster slot of each counter."""
    def set_clock(self, seconds: float, given: bool = False, /) -> None:
        """For tests: move the server's clock; or, if ``given``, this is the time."""

class RedisCommand:
    """A command; its bytes are its buffer."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def read(self, data: bytes, /) -> Decision | bool | str | None:
        """The result of a reply.

        A :class:`Decision`, or ``True`` for a command that clears; ``None`` if more bytes are
        needed; ``False`` if the server does not have the script: send :meth:`whole`; a str: its
        error.
        """
    def exchange(
        self, fd: int, seconds: float | None, message: bytes | None = None, /
    ) -> Decision | bool | str:
        """Send the command over a socket, and return what :meth:`read` makes of the answer.

        It takes at most so many seconds; ``None``: no bound. message: sent instead of the command,
        e.g. :meth:`whole`. ConnectionAbortedError: nothing was sent.
        """
    def slot(self) -> int:
        """The Cluster slot of the first counter."""
    def digest(self) -> bytes:
        """A strong hash of the command."""
    def whole(self) -> bytes:
        """The same with the script itself."""
    def arguments(self) -> list[bytes]: ...

def deciding(limits: Sequence[Limit], verdicts: Sequence[Verdict], /) -> int:
    """The index of the limit to report to the client.

    Of those that denied, the one whose ``retry_after`` is furthest away; else the shortest period.
    """

def later(decision: Decision, seconds: float, /) -> Decision:
    """A denial as it is so many seconds later."""

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
        """How many bits of a number are the hits."""
    def with_cost(self, cost: int, /) -> MemcachedCheck:
        """The same with another cost."""
    def command(self, what: int, cas: int, now: float, /) -> bytes:
        """The meta command for a limit that the server counts. now: the true time."""
    def evaluate(self, there: bool, count: int, left_ns: int, what: int, now: float, /) -> Verdict:
        """The Verdict for the reply to it."""
    def window(self, number: int, left: int, now: float, /) -> tuple[int, int, int]:
        """A number that the server keeps: hits, nanoseconds until the window ends, its start.

        left: seconds until the item expires, or -1. now: the true time.
        """
    def opened(self, now: float, /) -> tuple[int, int]:
        """The number of a window that begins now, and for how many seconds to keep it."""
    def step(
        self, value: bytes | None, mode: int, now: float, /
    ) -> tuple[Verdict, bytes, int, bool]:
        """A stored state stepped.

        The verdict, the next value, seconds to keep it, whether it has changed. Raises
        :class:`TableError` if value is no state of this limit, or would become too long.
        """

def memcached_checks(
    prefix: bytes,
    limits: Sequence[Limit],
    keys: str | bytes | Sequence[str | bytes],
    costs: Sequence[int] | None,
    /,
) -> list[MemcachedCheck]:
    """The arguments of :meth:`Table.decide`, as one object for each limit."""

def memcached_read(data: bytes, start: int, /) -> tuple[int, int, int, int, int, str] | None:
    """One reply: kind, its end, count, seconds left, cas, error; ``None``: more is needed."""

@final
class StateRequest:
    """One decision over packed states; made by :func:`state_request`."""

    names: tuple[str, ...]
    identity: bytes
    mode: int
    def decide(
        self, values: Sequence[bytes | None], now: float, /
    ) -> tuple[Decision, list[tuple[int, bytes | None, float]]]:
        """The decision, and what is to be written: place in ``names``, value, until when.

        values: what the store has under each of ``names``.
        """

def state_request(
    prefix: bytes,
    limits: Sequence[Limit],
    keys: str | bytes | Sequence[str | bytes],
    costs: Sequence[int] | None,
    mode: int,
    /,
) -> StateRequest:
    """The arguments of :meth:`Storage.decide`."""
