"""The C extension: Python objects over libweir's structs, nothing else.

Times are seconds since the Unix epoch. Every call that decides reads ``time.time()`` through the ``time``
module at that moment, so that freezegun, time-machine and hiro move Weir's clock.
"""

from collections.abc import Iterator, Sequence
from typing import Final, overload

VERSION: Final[str]
CHECKS_MAX: Final[int]

#: Modes of :meth:`Table.decide`.
HIT: Final[int]
TEST: Final[int]
EACH: Final[int]
REFUND: Final[int]

class WeirError(Exception):
    """Base of all errors. ``code`` is libweir's, e.g. ``"ENOSPC"``."""

    code: str

class ParseError(WeirError, ValueError):
    """A limit string or URI that cannot be read. ``column`` is 1-based, 0 when there is none."""

    column: int

class TableError(WeirError, OSError):
    """A table that cannot be opened or used."""

class Limit:
    """One limit: ``amount`` hits per ``multiples`` units. Immutable, hashable, ordered by period.

    ``strategy`` is ``None`` for a limit that has not been told; a limiter then uses its own.
    Equality, order and hash follow ``limits``: amount, multiples and unit (and burst, strategy,
    max_delay, namespace where given).
    """

    def __new__(
        cls,
        amount: int,
        multiples: int = 1,
        unit: str = "minute",
        *,
        burst: int | None = None,
        strategy: str | None = None,
        max_delay: float | None = None,
        namespace: str = "LIMITER",
    ) -> Limit: ...
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
    def namespace(self) -> str: ...
    def get_expiry(self) -> int:
        """The period in seconds."""
    def key_for(self, *identifiers: str | int | float) -> str:
        """``LIMITER/alice/10/1/minute``: namespace, identifiers and the limit, joined by ``/``."""
    def replace(
        self,
        *,
        burst: int | None = ...,
        strategy: str | None = ...,
        max_delay: float | None = ...,
        namespace: str = ...,
    ) -> Limit:
        """A copy with these members changed."""
    def __lt__(self, other: Limit) -> bool: ...
    def __le__(self, other: Limit) -> bool: ...
    def __gt__(self, other: Limit) -> bool: ...
    def __ge__(self, other: Limit) -> bool: ...

def parse(text: str, /) -> Limit:
    """Exactly one limit, else :class:`ParseError`."""

def parse_many(text: str, /) -> list[Limit]:
    """One or more limits joined by ``;``, ``,`` or ``|``."""

class Verdict:
    """What one limit said. A named tuple in C (``PyStructSequence``)."""

    allowed: bool
    limit: int
    remaining: int
    reset_at: float
    retry_after: float  # seconds; 0.0 when allowed, math.inf when never
    delay: float

class Decision(Sequence[Verdict]):
    """What all limits of one check said."""

    @property
    def allowed(self) -> bool: ...
    @property
    def deciding(self) -> int:
        """Index of the limit to tell the client of."""
    @property
    def now(self) -> float:
        """The moment of the decision."""
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int, /) -> Verdict: ...
    @overload
    def __getitem__(self, index: slice, /) -> Sequence[Verdict]: ...
    def __iter__(self) -> Iterator[Verdict]: ...

class Table:
    """A local store: ``memory://``, ``shm://name`` or ``file:///path`` (``?keys=N&hits=N``)."""

    def __new__(cls, uri: str = "memory://", /, *, namespace: int = 0) -> Table: ...
    @property
    def uri(self) -> str: ...
    def decide(
        self,
        limits: Sequence[Limit],
        keys: Sequence[str | bytes],
        costs: Sequence[int] | None = None,
        mode: int = ...,
        /,
    ) -> Decision:
        """Decides all limits at once. Every limit must have a strategy (``None`` means fixed-window).

        ``keys`` may be one str/bytes, used for every limit.
        """
    def clear(self, limits: Sequence[Limit], keys: Sequence[str | bytes], /) -> None: ...
    def reset(self) -> None: ...
    def check(self) -> bool: ...
    def info(self) -> dict[str, int]: ...
    def verify(self) -> None:
        """The full integrity check; raises :class:`TableError`."""
    def close(self) -> None: ...

def unlink(uri: str, /) -> None: ...

class RateLimiter:
    """One strategy over one store; ``limits.strategies`` in one C type.

    ``storage`` is a :class:`Table` or any object with its ``decide`` and ``clear``.
    """

    def __init__(self, storage: object, strategy: str = "fixed-window") -> None: ...
    @property
    def storage(self) -> object: ...
    def hit(self, item: Limit, /, *identifiers: str | int | float, cost: int = 1) -> bool: ...
    def test(self, item: Limit, /, *identifiers: str | int | float, cost: int = 1) -> bool: ...
    def refund(self, item: Limit, /, *identifiers: str | int | float, cost: int = 1) -> None: ...
    def get_window_stats(
        self, item: Limit, /, *identifiers: str | int | float
    ) -> WindowStats: ...
    def clear(self, item: Limit, /, *identifiers: str | int | float) -> None: ...

class WindowStats:
    """``(reset_time, remaining)``: a named tuple."""

    reset_time: float
    remaining: int
