"""Decisions, their verdicts, and what they report. Only types: the names are in ``weir._core``."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, SupportsIndex, final, overload

from typing_extensions import Self

from ._core_limit import Limit

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

def deciding(limits: Sequence[Limit], verdicts: Sequence[Verdict], /) -> int:
    """Return the index of the limit to report to the client.

    If limits denied, it is the one of them with the longest ``retry_after``; otherwise the limit
    with the shortest period.
    """

def later(decision: Decision, seconds: float, /) -> Decision:
    """Return the same denial, ``seconds`` later: its waits are shorter."""
