"""How much a limit can let through, and whether another limit beside it can ever deny.

All limits of one check are charged together or not at all, so each of them sees the same admitted
hits. There is an upper bound for the hits that one of them, ``guard``, admits in any interval. If
this bound never fills ``limit``, then ``limit`` never denies a request that ``guard`` admits, and
has no effect.

==============  ===================================================================================
fixed window    N per window. An interval may begin within a window that has room for N - 1 more
                hits (its first hit opened it); then a new window opens every period:
                ``N - 1 + N ceil(T / P)`` in any half-open interval of length T
moving window   ``N ceil(T / P)``
sliding         N per window of the clock; an interval touches one window more than it is long:
                ``N (ceil(T / P) + 1)``; fewer can pass in fact
calendar        N per window of the calendar; an interval touches one window more than it is long:
                ``N (ceil(T / P) + 1)``, where P is the shortest possible window
token bucket    at most ``b + N T / P``, without the excluded end: ``ceil(b + N T / P) - 1``
leaky bucket    the same with ``b = max_delay N / P + 1``
==============  ===================================================================================

These bounds are exact, except for the sliding window. The last one is for requests of cost 1; with
``costs``, requests may cost up to N, because a request of cost 3 may pass when one of cost 1 may.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

from .._core import STRATEGIES, Limit

#: Shapes of strategies (``enum weir_shape``); the functions below depend on the shape only.
FIXED, MOVING, SLIDING, TOKEN, LEAKY, ALIGNED = (
    "opened",
    "moving",
    "weighed",
    "bucket",
    "queue",
    "aligned",
)

#: The default ``max_delay`` of a leaky bucket, in seconds.
MAX_DELAY = Fraction(1, 2)


def strategy_of(limit: Limit) -> str:
    """The strategy of a limit; by default a fixed window."""
    return limit.strategy or "fixed-window"


def shape_of(limit: Limit) -> str:
    """How the strategy is bounded."""
    return STRATEGIES[strategy_of(limit)][1]


def shortest_period(limit: Limit) -> int:
    """The shortest window in seconds: February has 28 days, and a day may have 23 hours."""
    if shape_of(limit) != ALIGNED:
        return limit.get_expiry()
    days = {"day": 1, "month": 28, "year": 365}.get(limit.unit)
    if days is None:
        return limit.get_expiry()
    return max(1, days * limit.multiples * 86400 - 2 * 3600)


def size(limit: Limit) -> int:
    """Most hits in one window: the burst, if a strategy with windows takes one."""
    if shape_of(limit) in (TOKEN, LEAKY) or not limit.amount:
        return limit.amount
    return limit.burst or limit.amount


def rate(limit: Limit) -> Fraction:
    """Hits per second in the long run."""
    return Fraction(size(limit), limit.get_expiry())


def _longest_wait(limit: Limit) -> Fraction:
    return MAX_DELAY if limit.max_delay is None else Fraction(limit.max_delay)


def depth(limit: Limit, costs: bool = False) -> Fraction:
    """The most that a bucket admits at one moment.

    costs: for requests of any cost, instead of cost 1.
    """
    if shape_of(limit) == TOKEN:
        return Fraction(limit.burst or limit.amount if limit.amount else 0)
    return _longest_wait(limit) * rate(limit) + (limit.amount if costs else 1)


def at_once(limit: Limit) -> int:
    """Most hits of cost 1 at one moment."""
    if shape_of(limit) in (TOKEN, LEAKY) and limit.amount:
        return floor(depth(limit))
    return size(limit)


def largest_cost(limit: Limit) -> int:
    """The largest cost that a single request may have."""
    return int(depth(limit)) if shape_of(limit) == TOKEN else size(limit)


def most_within(limit: Limit, seconds: int, costs: bool = False) -> int:
    """Most hits in any half-open interval of this length."""
    amount, strategy = size(limit), shape_of(limit)
    if amount == 0:
        return 0
    windows = -(-seconds // shortest_period(limit))
    if strategy == FIXED:
        return amount - 1 + amount * windows
    if strategy == MOVING:
        return amount * windows
    if strategy in (SLIDING, ALIGNED):
        return amount * (windows + 1)
    return ceil(depth(limit, costs) + rate(limit) * seconds) - 1


def head(limit: Limit) -> Fraction:
    """The least h with at most ``h + rate t`` hits in any closed interval of length t."""
    strategy = shape_of(limit)
    if strategy == FIXED:
        return Fraction(2 * size(limit) - 1)
    if strategy == MOVING:
        return Fraction(size(limit))
    if strategy == SLIDING:
        return Fraction(2 * size(limit))
    if strategy == ALIGNED:  # its windows are not all of one length
        return Fraction(2 * size(limit)) + rate(limit) * 3 * 86400
    return depth(limit, costs=True)


def weight_within(guard: Limit, seconds: int) -> int:
    """The most that a sliding window of this length counts of the hits that ``guard`` admits.

    The count is ``current + previous (P - e) / P``, rounded up, e into the current window. The
    current part is at most ``head + rate e``; so the sum is at most a straight line in e, which is
    largest at one of its ends. The sum is also at most the content of two windows.
    """
    previous = most_within(guard, seconds, costs=True)
    line = head(guard) + max(Fraction(previous), rate(guard) * seconds)
    return min(floor(line) + 1, most_within(guard, 2 * seconds, costs=True))


def same_windows(limit: Limit, guard: Limit) -> bool:
    """Whether both count in the same windows: of one length, opened by the same hits."""
    strategy = shape_of(limit)
    return (
        strategy == shape_of(guard)
        and strategy in (FIXED, MOVING, SLIDING, ALIGNED)
        and limit.get_expiry() == guard.get_expiry()
        and (strategy != ALIGNED or (limit.unit, limit.tz) == (guard.unit, guard.tz))
    )


def never_binds(limit: Limit, guard: Limit) -> int | None:
    """If ``limit`` can never deny what ``guard`` admits: the most hits that it ever counts.

    For buckets: the most hits at one moment. ``None`` if it can deny, or if that is not known.
    """
    if limit.amount == 0 or guard.amount == 0:
        return None
    if same_windows(limit, guard):
        return size(guard) if size(guard) <= size(limit) else None
    strategy, seconds = shape_of(limit), limit.get_expiry()
    if strategy in (FIXED, MOVING):
        most = most_within(guard, seconds, costs=True)
        return most if most <= size(limit) else None
    if strategy == ALIGNED:
        # A window is at most twice as long as its nominal length.
        most = most_within(guard, 2 * seconds, costs=True)
        return most if most <= size(limit) else None
    if strategy == SLIDING:
        most = weight_within(guard, seconds)
        return most if most <= size(limit) else None
    if rate(limit) < rate(guard) or largest_cost(limit) < largest_cost(guard):
        return None
    if strategy == shape_of(guard) == LEAKY:
        waits = depth(guard) <= depth(limit)
        return floor(depth(guard)) if waits else None
    return floor(head(guard)) if head(guard) <= depth(limit) else None


def binds_at_edges_only(limit: Limit, guard: Limit) -> bool:
    """Whether ``limit`` can deny only because ``guard`` admits more where two windows meet.

    For limits for which :func:`never_binds` returns ``None``.
    """
    windows = (FIXED, MOVING)
    if shape_of(guard) != FIXED or shape_of(limit) not in windows or guard.amount == 0:
        return False
    within = -(-limit.get_expiry() // guard.get_expiry())
    return size(guard) * within <= size(limit)


def same_counter(limit: Limit, other: Limit) -> bool:
    """Whether two limits of one check are one limit written twice."""
    return (
        strategy_of(limit) == strategy_of(other)
        and limit.tz == other.tz
        and limit.amount == other.amount
        and limit.get_expiry() == other.get_expiry()
        and (shape_of(limit) not in (TOKEN, LEAKY) or depth(limit) == depth(other))
    )
