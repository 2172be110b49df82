"""Decisions by the methods of a storage that was written for ``limits``.

A subclass of one of Weir's stores may replace ``incr()`` and its relatives, and another class may
have only these. The strategies whose methods such a class has decide by them.
"""

from __future__ import annotations

import functools
import inspect
import time
from abc import ABCMeta
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from ._core import EACH, HIT, REFUND, TEST, Decision, Limit, Verdict, deciding
from ._deciding import Keys, checks
from .errors import StorageError, StoreAwayError

__all__ = [
    "METHODS",
    "clear_by_methods",
    "decide_by_methods",
    "honour_own_clear",
    "honour_own_methods",
    "not_replaced",
    "wrap_errors",
]

#: The methods that a class may replace, and the strategy that calls each.
METHODS = {
    "incr": "fixed-window",
    "get": "fixed-window",
    "get_expiry": "fixed-window",
    "acquire_entry": "moving-window",
    "get_moving_window": "moving-window",
    "acquire_sliding_window_entry": "sliding-window-counter",
    "get_sliding_window": "sliding-window-counter",
}


def _verdict(limit: Limit, allowed: bool, used: int, reset_at: float, cost: int) -> Verdict:
    now = time.time()
    retry = 0.0 if allowed else inf if cost > limit.amount else max(reset_at - now, 1e-6)
    return Verdict(allowed, limit.amount, max(0, limit.amount - used), reset_at, retry, 0.0)


def _fixed(storage: Any, limit: Limit, key: str, cost: int, charge: bool) -> Verdict:
    expiry = limit.get_expiry()
    if charge and cost:
        used = storage.incr(key, expiry) if cost == 1 else storage.incr(key, expiry, amount=cost)
        allowed = used <= limit.amount
    else:
        used = storage.get(key)
        allowed = used + cost <= limit.amount or cost == 0
    return _verdict(limit, allowed, used, storage.get_expiry(key), cost)


def _moving(storage: Any, limit: Limit, key: str, cost: int, charge: bool) -> Verdict:
    expiry = limit.get_expiry()
    allowed = True
    if charge and cost:
        allowed = bool(storage.acquire_entry(key, limit.amount, expiry, amount=cost))
    start, used = storage.get_moving_window(key, limit.amount, expiry)
    if not charge:
        allowed = used + cost <= limit.amount or cost == 0
    return _verdict(limit, allowed, used, start + expiry if used else time.time(), cost)


def _sliding(storage: Any, limit: Limit, key: str, cost: int, charge: bool) -> Verdict:
    expiry = limit.get_expiry()
    allowed = True
    if charge and cost:
        allowed = bool(storage.acquire_sliding_window_entry(key, limit.amount, expiry, amount=cost))
    before, before_left, current, current_left = storage.get_sliding_window(key, expiry)
    used = int(before * before_left / expiry + current)
    if not charge:
        allowed = used + cost <= limit.amount or cost == 0
    waits = [before_left % (expiry / before)] if before else []
    waits += [current_left % expiry] if current else []
    return _verdict(limit, allowed, used, time.time() + min(waits, default=0.0), cost)


_STEPS = {"fixed-window": _fixed, "moving-window": _moving, "sliding-window-counter": _sliding}


def decide_by_methods(
    storage: Any,
    limits: Sequence[Limit],
    keys: Keys,
    costs: Sequence[int] | None = None,
    mode: int = HIT,
) -> Decision:
    """:meth:`weir.storage.Storage.decide` by the methods of a storage written for ``limits``.

    Such a storage counts one limit at a time. Several limits are tested first, and charged one
    after the other if none denies.
    """
    count = len(limits)
    given = [keys] * count if isinstance(keys, str | bytes) else list(keys)
    prices = [1] * count if costs is None else [int(cost) for cost in costs]
    names = [limit.full_key(key) for limit, key in zip(limits, given, strict=True)]

    def decide_one(i: int, charge: bool) -> Verdict:
        step = _step_of(storage, limits[i])
        return step(storage, limits[i], names[i], prices[i], charge)

    if mode == REFUND:
        verdicts = [_give_back(storage, *row) for row in zip(limits, names, prices, strict=True)]
    elif mode == TEST:
        verdicts = [decide_one(i, False) for i in range(count)]
    else:
        verdicts = [decide_one(i, False) for i in range(count)] if count > 1 else []
        if mode == EACH or all(verdict.allowed for verdict in verdicts):
            verdicts = [
                decide_one(i, not verdicts or verdicts[i].allowed or mode == HIT)
                for i in range(count)
            ]
    return Decision(verdicts, deciding(limits, verdicts), time.time())


def _step_of(storage: Any, limit: Limit) -> Callable[[Any, Limit, str, int, bool], Verdict]:
    strategy = limit.strategy or "fixed-window"
    step = _STEPS.get(strategy)
    needed = [name for name, its in METHODS.items() if its == strategy]
    if step is None or not all(hasattr(storage, name) for name in needed):
        lacking = f": it lacks {', '.join(needed)}" if needed else ""
        raise NotImplementedError(
            f"a storage of type {type(storage).__name__} cannot count by {strategy}{lacking}"
        )
    return step


def _give_back(storage: Any, limit: Limit, key: str, cost: int) -> Verdict:
    if (limit.strategy or "fixed-window") != "fixed-window" or not hasattr(storage, "decr"):
        raise NotImplementedError(
            f"a storage of type {type(storage).__name__} has no decr(): charges cannot be refunded"
        )
    used = storage.decr(key, cost)
    return _verdict(limit, True, used, storage.get_expiry(key), cost)


def clear_by_methods(storage: Any, limits: Sequence[Limit], keys: Keys) -> None:
    """Clear counters by the methods of a storage written for ``limits``."""
    for limit, key, _ in checks(limits, keys):
        name = limit.full_key(key)
        if limit.strategy == "sliding-window-counter":
            storage.clear_sliding_window(name, limit.get_expiry())
        else:
            storage.clear(name)


def honour_own_clear(cls: Any) -> None:
    """Let a subclass of one of Weir's stores have its own ``clear()``, by either interface.

    That of ``limits`` takes the text of one key, that of Weir takes limits and keys. Limiters call
    it with limits and keys, programs with either.
    """
    own = cls.__dict__.get("clear")
    if own is None or getattr(own, "takes_key", False):
        return
    parameters = list(inspect.signature(own).parameters.values())[1:]
    ours = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) > 1 or (
        any(p.kind is p.VAR_POSITIONAL for p in parameters)
    )

    @functools.wraps(own)
    def clear(self: Any, limits: Any, keys: Any = None, /) -> None:
        if keys is not None:
            if ours:
                own(self, limits, keys)
                return
            for limit, key, _ in checks(limits, keys):
                own(self, limit.full_key(key))
        elif ours and isinstance(limits, str):
            self.clear_key(limits)
        else:
            own(self, limits)

    clear.takes_key = True  # type: ignore[attr-defined]
    if not ours:
        cls._native_clear = getattr(cls, "_native_clear", None) or super(cls, cls).clear
    cls.clear = clear


def _wrapping(function: Any) -> Any:
    """A method whose errors are StorageErrors if the storage was made with ``wrap_exceptions``."""

    def wrapped(storage: Any, error: Exception) -> Exception:
        if not storage.wrap_exceptions or isinstance(error, StorageError):
            return error
        failed = StoreAwayError(str(error) or type(error).__name__)
        failed.storage_error = error
        failed.__cause__ = error
        return failed

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return await function(self, *args, **kwargs)
            except self.base_exceptions as error:
                raise wrapped(self, error)  # noqa: B904  (it has its cause)

    else:

        @functools.wraps(function)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return function(self, *args, **kwargs)
            except self.base_exceptions as error:
                raise wrapped(self, error)  # noqa: B904

    method._wraps_errors = True  # type: ignore[attr-defined]
    return method


def wrap_errors(cls: type) -> None:
    """Let the methods that a class defines honour ``wrap_exceptions``."""
    others = ("check", "reset", "clear", "clear_sliding_window")
    for name in (*METHODS, *others):
        function = cls.__dict__.get(name)
        done = getattr(function, "_wraps_errors", False)
        if callable(function) and not done and not getattr(function, "__isabstractmethod__", False):
            setattr(cls, name, _wrapping(function))


class StoreType(ABCMeta):
    """The metaclass of stores that decide in the core.

    It refuses to replace methods that the core does not call, such as ``incr``, because a test that
    replaces one, for example to simulate an outage, would have no effect.
    """

    def __setattr__(cls, name: str, value: Any) -> None:
        cls._refuse(name)
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        cls._refuse(name)
        super().__delattr__(name)

    def _refuse(cls, name: str) -> None:
        if name in METHODS and not hasattr(cls, "_native_decide"):
            raise AttributeError(not_replaced(f"{cls.__name__}.{name}"))


def not_replaced(what: str) -> str:
    """Why a method of a store cannot be replaced, and what to do instead."""
    return (
        f"{what}() cannot be replaced: limits are decided in the core. Replace it in a subclass,"
        " or raise from a custom storage"
    )


def honour_own_methods(cls: Any, base: type) -> bool:
    """Make a subclass of one of Weir's stores decide by the methods that it replaces.

    base: the class with Weir's own methods. Strategies without a replaced method decide as before.
    Returns whether any method was replaced.
    """
    own = {
        strategy
        for name, strategy in METHODS.items()
        if getattr(cls, name, None) is not getattr(base, name, None)
    }
    if not own or "decide" in cls.__dict__:
        return False
    native = getattr(cls, "_native_decide", None) or cls.decide

    def decide(
        self: Any,
        limits: Sequence[Limit],
        keys: Keys,
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        if any((limit.strategy or "fixed-window") in own for limit in limits):
            return decide_by_methods(self, limits, keys, costs, mode)
        return native(self, limits, keys, costs, mode)  # type: ignore[no-any-return]

    cls._native_decide = native
    cls.decide = decide
    return True
