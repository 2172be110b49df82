"""Remote stores: commands and replies. Only types: the names are in ``weir._core``."""

from collections.abc import Sequence
from typing import final

from ._core_check import Evaluation
from ._core_decision import Decision, Verdict
from ._core_limit import Limit, _Keys

class RedisCodec:
    """Encodes commands for Redis. prefix: the first part of all names, without braces."""

    def __new__(cls, prefix: bytes = b"weir") -> RedisCodec: ...
    @property
    def prefix(self) -> bytes: ...
    def decide(
        self,
        limits: Sequence[Limit],
        keys: _Keys,
        costs: Sequence[int] | None = None,
        mode: int = ...,
        /,
    ) -> RedisCommand:
        """Return the command for the arguments of :meth:`Table.decide`."""
    def prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, /
    ) -> RedisCommand:
        """Return the command that decides parts of a prepared check."""
    def clear(self, limits: Sequence[Limit], keys: _Keys, /) -> RedisCommand:
        """Return the command that clears these counters."""
    def slots(self, limits: Sequence[Limit], keys: _Keys, /) -> list[int]:
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
    keys: _Keys,
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
    keys: _Keys,
    costs: Sequence[int] | None,
    mode: int,
    /,
) -> StateRequest:
    """Return the request for the arguments of :meth:`Storage.decide`."""
