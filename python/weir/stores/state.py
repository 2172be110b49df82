"""Custom stores: a class that reads and writes packed states in its own transaction.

libweir does the rest: it selects the counters of a decision, steps their states, decides all or
nothing, and computes what to write and when it expires. A store is a subclass of
:class:`StateStorage` with three methods:

>>> import threading
>>> from contextlib import contextmanager
>>> class DictStorage(StateStorage):
...     STORAGE_SCHEME = ("dict",)
...
...     def __init__(self, uri=None, **options):
...         super().__init__(uri, **options)
...         self.states = {}
...         self.lock = threading.Lock()
...
...     @contextmanager
...     def transaction(self):
...         with self.lock:
...             yield self.states
...
...     def read(self, states, names):
...         return {name: states[name] for name in names if name in states}
...
...     def write(self, states, changes):
...         for name, value, expires_at in changes:
...             if value is None:
...                 states.pop(name, None)
...             else:
...                 states[name] = value
...
>>> from weir import parse, strategies
>>> from weir.storage import storage_from_string
>>> limiter = strategies.TokenBucketRateLimiter(storage_from_string("dict://"))
>>> [limiter.hit(parse("2/minute"), "alice") for _ in range(3)]
[True, True, False]

``weir.testing.StoreConformance`` tests a store. ``examples/stores/sqlite.py`` is a store that
several processes share.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

from .._clock import monotonic, true_time
from .._core import EACH, HIT, REFUND, TEST, Decision, Limit, StateRequest, state_request
from ..errors import ConfigurationError, StorageError, TableError
from ..stores.registry import KeyedStorage, Keys
from .base import failure, raise_translated, seconds
from .denials import Denials
from .hosts import shown

__all__ = ["AsyncStateStorage", "Change", "Conflict", "StateStorage"]

T = TypeVar("T")

#: How often a decision is repeated after conflicts before it fails.
TRIES = 64


class Change(NamedTuple):
    """A value to write."""

    name: str
    #: ``None``: delete this name.
    value: bytes | None
    #: Seconds since the epoch, by the store's clock, from which on the value may be deleted.
    #: Finite: at most in the year 2262.
    expires_at: float


class Conflict(Exception):  # noqa: N818
    """Another process has changed what was read.

    Raise it in ``read``, ``write`` or at the end of a transaction, if nothing was written. The
    decision is repeated in another transaction.
    """


class _States:
    """The common part of both classes: names, a clock, cached denials."""

    #: Exceptions that mean an outage; they are converted to ``StorageError``.
    outage: ClassVar[tuple[type[BaseException], ...]] = (OSError,)

    def prepare(self, uri: str | None, key_prefix: str | bytes, remember: float) -> None:
        scheme = (getattr(self, "STORAGE_SCHEME", ()) or (type(self).__name__,))[0]
        #: The address in error texts.
        self.name = shown(uri) if uri else f"{scheme}://"
        self._prefix = key_prefix if isinstance(key_prefix, bytes) else key_prefix.encode()
        self._remember = seconds(remember or None, "remember_denials") or 0.0
        self._denials = Denials(self._remember)
        self._clock: tuple[float, bool] = (0.0, False)
        self._pid = os.getpid()
        try:
            self.make_request([Limit(1)], "", None, HIT)
        except (ValueError, TableError):
            raise ConfigurationError(
                "key_prefix: at most 64 printable ASCII characters, no blanks"
            ) from None

    def make_request(
        self, limits: Sequence[Limit], keys: Keys, costs: Sequence[int] | None, mode: int
    ) -> StateRequest:
        return state_request(self._prefix, limits, keys, costs, mode)

    def set_clock(self, seconds: float = 0.0, given: bool = False) -> None:
        """For tests: move the clock by ``seconds``, or with ``given`` set it to ``seconds``."""
        self._clock = (seconds, given)
        self._denials.clear()
        self._denials.seconds = 0.0 if given else self._remember

    def drop_denials(self) -> None:
        """Drop cached denials: the next request of each client is sent to the server."""
        self._denials.clear()

    def moment(self, now: float) -> float:
        """The store's time, moved or set by :meth:`set_clock`."""
        moved, given = self._clock
        return moved if given else now + moved

    def cached_denial(self, request: StateRequest) -> Decision | None:
        """The cached denial of a request, if there is one."""
        self.notice_fork()
        if self._denials.entries and request.mode <= TEST:
            return self._denials.get(request.identity, monotonic())
        return None

    def notice_fork(self) -> None:
        """Call :meth:`after_fork` before the first decision of a child process."""
        if self._pid != os.getpid():
            self._denials = Denials(self._remember)
            self._pid = os.getpid()
            self.after_fork()

    def after_fork(self) -> None:
        """Called in a forked child before its first decision: open new connections here."""

    def cache_denial(
        self, request: StateRequest, decision: Decision, started_at: float
    ) -> Decision:
        if request.mode == REFUND:
            self._denials.remove(name.encode() for name in request.names)
        elif not decision.allowed and request.mode != EACH and self._denials.seconds > 0:
            names = [name.encode() for name in request.names]
            self._denials.add(request.identity, names, started_at, decision)
        return decision

    def ahead_of(self, now: float) -> float:
        """Seconds to keep states longer while a test has moved or set the clock."""
        moved, given = self._clock
        return true_time() - now + 60.0 if given else max(0.0, -moved)

    def _evaluate(
        self, request: StateRequest, found: Mapping[str, bytes], clock: float
    ) -> tuple[Decision, list[Change]]:
        """The decision by the values that were read, and the values to write, sorted by name."""
        now = self.moment(clock)
        decision, changes = request.decide([found.get(name) for name in request.names], now)
        return decision, self.changes(request, changes, now) if changes else []

    def changes(
        self, request: StateRequest, found: Sequence[tuple[int, bytes | None, float]], now: float
    ) -> list[Change]:
        """The values to write, sorted by name."""
        ahead = self.ahead_of(now)
        return sorted(
            Change(request.names[place], value, expires_at + ahead)
            for place, value, expires_at in found
        )

    def _retry(self, error: Exception, left: int) -> None:
        """Return if the decision is to be repeated: after a conflict, with tries left."""
        if not (left and isinstance(error, Conflict)):
            raise_translated(self.failed(error), error)

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Convert errors that the block raises to those that a decision raises."""
        try:
            yield
        except Exception as error:
            raise_translated(self.failed(error), error)

    #: The earlier name of :meth:`translating_errors`.
    telling = translating_errors

    def failed(self, error: BaseException) -> BaseException:
        """The error to raise for one that a transaction raised."""
        if isinstance(error, Conflict):
            text = f"the counters were changed by others {TRIES} times"
            return failure(self.name, text, refused=True)
        if isinstance(error, StorageError) and not isinstance(error, TableError):
            if str(error).startswith(self.name):
                return error
            return failure(self.name, error, refused=True)  # a value that is not a counter
        if isinstance(error, self.outage):
            return failure(self.name, error)
        return error


class StateStorage(_States, KeyedStorage):
    """A store that keeps bytes by name and can change several of them in one transaction.

    :param uri: how it was opened; ``STORAGE_SCHEME`` registers the class for its schemes
    :param key_prefix: the first part of all names
    :param remember_denials: seconds for which a denial may be repeated from memory; 0: never
    """

    times_itself = True

    PEEKS = True

    def __init__(
        self,
        uri: str | None = None,
        key_prefix: str | bytes = "weir",
        remember_denials: float = 60.0,
        **options: Any,
    ) -> None:
        super().__init__(uri, **options)
        self.prepare(uri, key_prefix, remember_denials)

    # -- to be implemented

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Any]:
        """A transaction: committed at the end of the block, rolled back if it raises.

        Between ``read`` and the end, no other process may change what was read: lock it, or raise
        :class:`Conflict` if it has changed. Several threads may be in transactions at once.
        """

    @abstractmethod
    def read(self, transaction: Any, names: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values of these names; leave out names without a value.

        names: at most 32, sorted, each printable ASCII without blanks and at most 250 characters.
        Expired values may be returned or left out.
        """

    @abstractmethod
    def write(self, transaction: Any, changes: Sequence[Change]) -> None:
        """Write or delete values, sorted by name. This is a good place to delete expired ones."""

    def now(self, transaction: Any) -> float:
        """Seconds since the epoch, by the one clock that all users of the store share."""
        return time.time()

    # -- decisions

    def decide(
        self,
        limits: Sequence[Limit],
        keys: Keys,
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        request = self.make_request(limits, keys, costs, mode)
        known = self.cached_denial(request)
        if known is not None:
            return known
        started_at = monotonic()
        decision = self.attempt(request)
        if self.observe is not None:
            self.observe(monotonic() - started_at)
        return self.cache_denial(request, decision, started_at)

    def attempt(self, request: StateRequest) -> Decision:
        """Make one decision. A store may replace this if it has a better way than a transaction."""
        return self._again(partial(self._step, request))

    def _again(self, what: Callable[[], T]) -> T:
        """Repeat a decision after conflicts."""
        for left in reversed(range(TRIES)):
            try:
                return what()
            except Exception as error:
                self._retry(error, left)
        raise AssertionError

    def _step(self, request: StateRequest) -> Decision:
        with self.transaction() as transaction:
            found = self.read(transaction, request.names)
            decision, changes = self._evaluate(request, found, self.now(transaction))
            if changes:
                self.write(transaction, changes)
        return decision

    def _remove(self, names: list[str]) -> None:
        with self.transaction() as transaction:
            self.read(transaction, names)
            self.write(transaction, [Change(name, None, 0.0) for name in names])

    def clear(self, limits: Sequence[Limit], keys: Keys, /) -> None:
        request = self.make_request(limits, keys, None, HIT)
        self.cached_denial(request)
        try:
            self._again(partial(self._remove, list(request.names)))
        finally:
            self._denials.remove(name.encode() for name in request.names)

    def check(self) -> bool:
        """Whether a transaction succeeds."""
        self.notice_fork()
        try:
            with self.transaction() as transaction:
                self.read(transaction, ["-"])
        except Exception as error:
            if isinstance(self.failed(error), StorageError):
                return False
            raise
        return True

    def close(self) -> None:
        """Release the resources of the store."""


class AsyncStateStorage(_States, ABC):
    """The same with coroutines, for programs on an event loop that call the store directly.

    ``await storage.decide([limit], "alice")``. The limiters of :mod:`weir.strategies` need a
    :class:`StateStorage` instead.
    """

    def __init__(
        self,
        uri: str | None = None,
        key_prefix: str | bytes = "weir",
        remember_denials: float = 60.0,
        **options: Any,
    ) -> None:
        self.uri = uri
        self.options = options
        self.prepare(uri, key_prefix, remember_denials)

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[Any]: ...

    @abstractmethod
    async def read(self, transaction: Any, names: Sequence[str]) -> Mapping[str, bytes]: ...

    @abstractmethod
    async def write(self, transaction: Any, changes: Sequence[Change]) -> None: ...

    async def now(self, transaction: Any) -> float:
        return time.time()

    async def decide(
        self,
        limits: Sequence[Limit],
        keys: Keys,
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        request = self.make_request(limits, keys, costs, mode)
        known = self.cached_denial(request)
        if known is not None:
            return known
        started_at = monotonic()
        return self.cache_denial(
            request, await self._again(partial(self._step, request)), started_at
        )

    async def _again(self, what: Callable[[], Awaitable[T]]) -> T:
        for left in reversed(range(TRIES)):
            try:
                return await what()
            except Exception as error:
                self._retry(error, left)
        raise AssertionError

    async def _step(self, request: StateRequest) -> Decision:
        async with self.transaction() as transaction:
            found = await self.read(transaction, request.names)
            decision, changes = self._evaluate(request, found, await self.now(transaction))
            if changes:
                await self.write(transaction, changes)
        return decision

    async def _remove(self, names: list[str]) -> None:
        async with self.transaction() as transaction:
            await self.read(transaction, names)
            await self.write(transaction, [Change(name, None, 0.0) for name in names])

    async def clear(self, limits: Sequence[Limit], keys: Keys, /) -> None:
        request = self.make_request(limits, keys, None, HIT)
        self.cached_denial(request)
        try:
            await self._again(partial(self._remove, list(request.names)))
        finally:
            self._denials.remove(name.encode() for name in request.names)
