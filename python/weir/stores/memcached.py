"""Memcached: ``memcached://host:11211,host:11211`` or ``memcached:///run/memcached.sock``.

Memcached cannot run scripts. A fixed window is a number that the server increments, in one round
trip (``weir.stores.memcached_windows``). The other strategies fetch a state, step it, and store
it by compare-and-swap. So a decision over several limits is not atomic: charges are given back when
a later limit denies.

Options are pymemcache's; ``socket_timeout`` is its ``timeout`` and ``connect_timeout``.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .._clock import monotonic, true_time
from .._core import (
    EACH,
    HIT,
    REFUND,
    TEST,
    Decision,
    Limit,
    MemcachedCheck,
    Verdict,
    memcached_checks,
)
from .._log import SeldomLine
from ..errors import ConfigurationError, StorageError, TableError
from . import base
from .base import failure, raise_translated, replaces_flask_limiter, seconds
from .denials import Denials
from .hosts import check_uri, shown
from .memcached_node import (
    CHARGE,
    GIVE_BACK,
    PEEK,
    TRIES,
    Node,
    connected,
    delete,
    fetch,
    is_late,
    ping,
    store,
    within,
)
from .memcached_servers import Servers
from .memcached_windows import Count, count_windows, refund, take_back
from .registry import KeyedStorage, deciding

__all__ = ["MemcachedStorage"]

logger = logging.getLogger("weir")
_uncharged = SeldomLine()

#: Seconds for which an item is kept after its end by a clock that a test has set.
_SPARE = 86_400

#: A smaller difference of the clocks is the time between reading them.
_CLOCK_MOVED = 0.05


class MemcachedStorage(KeyedStorage):
    """One server or several, among which the counters are distributed.

    The verdict of a peeked limit is its state before the other limits are charged.

    :param uri: ``memcached://host:11211,host:11211`` or ``memcached:///path/of/a/socket``
    :param key_prefix: the first part of all names
    :param remember_denials: seconds for which a denial may be repeated from memory; 0: never
    :param socket_timeout: the deadline of a call in seconds
    :param meta: ``False``: count with ``add`` and ``incr``, which servers before 1.6 need; by
     default the store finds out
    :param options: for ``pymemcache.client.base.Client``
    """

    times_itself = True

    PEEKS = True

    def __init__(
        self,
        uri: str = "memcached://127.0.0.1:11211",
        key_prefix: str | bytes = "weir",
        remember_denials: float = 60.0,
        socket_timeout: float | None = base.DEADLINE,
        meta: bool | None = None,
        wrap_exceptions: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(uri, **options)
        check_uri(uri)
        self.name = shown(uri)
        self._prefix = key_prefix if isinstance(key_prefix, bytes) else key_prefix.encode()
        if socket_timeout == base.DEADLINE and replaces_flask_limiter():
            socket_timeout = None  # the default of limits
        self.deadline = seconds(options.get("timeout", socket_timeout), "socket_timeout")
        self._servers = Servers(self.name, uri, self.deadline, options)
        self._nodes = self._servers.nodes
        self._node = self._servers.of_key
        self._meta = meta
        self._clock: tuple[float, bool] = (0.0, False)
        self._spare = 0
        self._pid = os.getpid()
        self._clients = threading.local()
        self._remember = seconds(remember_denials or None, "remember_denials") or 0.0
        self._denials = Denials(self._remember)
        try:
            memcached_checks(self._prefix, [Limit(1)], "", None)
        except (ValueError, TableError):
            raise ConfigurationError(
                "key_prefix: at most 64 printable ASCII characters, no blanks"
            ) from None

    @property
    def storage(self) -> Any:
        """A client of pymemcache for the servers, one for each thread, as in ``limits``."""
        if self._pid != os.getpid():
            self._after_fork()
        client = getattr(self._clients, "client", None)
        if client is None:
            client = self._clients.client = self._servers.client()
        return client

    def drop_denials(self) -> None:
        """Drop cached denials: the next request of each client is sent to the server."""
        self._denials.clear()

    def set_clock(self, seconds: float = 0.0, given: bool = False) -> None:
        """For tests: move the clock by ``seconds``, or with ``given`` set it to ``seconds``.

        The clock of Memcached cannot be moved. So fixed windows are then stepped here, like the
        other strategies, instead of counted by the server.
        """
        self._clock = (seconds, given)
        # The server's clock goes on meanwhile, and this one may be set back.
        self._spare = 0 if (seconds, given) == (0.0, False) else _SPARE
        self._denials.clear()
        self._denials.seconds = 0.0 if given else self._remember

    def _now(self) -> float:
        seconds, given = self._clock
        return seconds if given else time.time() + seconds

    # -- decisions

    def decide(
        self,
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        if mode not in (HIT, TEST, EACH, REFUND):
            raise ValueError("mode must be HIT, TEST, EACH or REFUND")
        if self._pid != os.getpid():
            self._after_fork()
        checks = memcached_checks(self._prefix, limits, keys, costs)
        started_at = monotonic()
        request = b"%d " % mode + b" ".join(
            b"%b %d%b" % (check.name, check.cost, b"?" if check.peek else b"") for check in checks
        )
        if self._denials.entries and mode <= TEST:
            known = self._denials.get(request, started_at)
            if known is not None:
                if not self._denials.must_verify(started_at):
                    return known
                self._denials.clear()  # valid denials are cached again
        now = self._now()
        with within(self.deadline):
            if mode == HIT:
                verdicts = _Hit(self, checks, now).decide()
            elif mode == TEST:
                verdicts = self._test(limits, checks, now)
            else:
                verdicts = [self.charge(check, mode, now) for check in checks]
        if self.observe is not None:
            self.observe(monotonic() - started_at)
        decision = Decision(verdicts, deciding(limits, verdicts), now)
        names = [check.name for check in checks]
        if mode in (EACH, REFUND):
            self._denials.remove(names)
        elif not decision.allowed and mode <= TEST and self._denials.seconds > 0:
            self._denials.add(request, names, started_at, decision)
        return decision

    def _test(
        self, limits: Sequence[Limit], checks: list[MemcachedCheck], now: float
    ) -> list[Verdict]:
        """Nothing is charged, so the costs of several checks of one counter are added."""
        verdicts: list[Verdict] = []
        summed: dict[bytes, int] = {}
        for check in checks:
            before = summed.get(check.name, 0)
            verdict = self.peek(check.with_cost(min(check.cost + before, 2**63 - 1)), now)
            if verdict.allowed and not check.peek:
                summed[check.name] = check.cost + before
            verdicts.append(verdict)
        return verdicts

    def counts(self, check: MemcachedCheck) -> bool:
        """Whether the server increments this counter."""
        return check.counts and self._clock == (0.0, False)

    def peek(self, check: MemcachedCheck, now: float) -> Verdict:
        """The verdict that a hit would get."""
        if self.counts(check):
            count = self._count(check, PEEK, now)
            return check.evaluate(count.left_ns > 0, count.number, count.left_ns, PEEK, now)
        node = self._node(check.name)
        value, _ = node.use(partial(fetch, name=check.name), True)
        return self._step(check, value, TEST, now)[0]

    def charge(self, check: MemcachedCheck, mode: int, now: float) -> Verdict:
        """Charge one limit if it allows the request, or give back."""
        if check.peek:
            return self.peek(check.with_cost(0) if mode == REFUND else check, now)
        if not self.counts(check):
            return self.update(check, mode, now)
        if mode == REFUND:
            node = self._node(check.name)
            count = refund(node, check, self._uses_meta(node), self._true(now))
            there = count.left_ns > 0
            return check.evaluate(there, count.number, count.left_ns, GIVE_BACK, now)
        if check.cost == 0 or check.cost > check.amount:
            return self.peek(check, now)
        count = self._count(check, CHARGE, now)
        verdict = check.evaluate(True, count.number, count.left_ns, CHARGE, now)
        if not verdict.allowed:
            self.undo(check, count)
        return verdict

    # -- counters that the server increments

    @staticmethod
    def _true(now: float) -> float:
        """``now`` by the true clock, which a test that moves ``time.time()`` does not move."""
        moved = true_time() - time.time()
        return now + moved if abs(moved) > _CLOCK_MOVED else now

    def _uses_meta(self, node: Node) -> bool:
        if self._meta is False:
            return False
        if node.meta is None:
            node.use(connected, True)
        return bool(node.meta)

    def _count(self, check: MemcachedCheck, what: int, now: float) -> Count:
        return next(self.count_each([(check, what)], now))[1]

    def count_each(
        self, requests: list[tuple[MemcachedCheck, int]], now: float
    ) -> Iterator[tuple[int, Count]]:
        """Charge counters or peek, all of one server in one round trip.

        One server comes after the other, so that charges are known if a later server fails.

        Servers that failed recently come first: if they still fail, no other has been charged.
        """
        by_node: dict[Node, list[int]] = {}
        for i, (check, _) in enumerate(requests):
            by_node.setdefault(self._node(check.name), []).append(i)
        for node in sorted(by_node, key=lambda node: -node.failed_at):
            places = by_node[node]
            meta, at = self._uses_meta(node), self._true(now)
            found = count_windows(node, [requests[i] for i in places], meta, at)
            yield from zip(places, found, strict=True)

    def undo(self, check: MemcachedCheck, count: Count) -> None:
        """Take a charge back, unless its window has ended and another one has begun.

        A charge that cannot be taken back stays.
        """
        node = self._node(check.name)
        try:
            take_back(node, check, count, self._uses_meta(node), true_time())
        except StorageError as error:
            _uncharged.warning(logger, "%s; a charged limit could not be given back", error)

    # -- states that the server only stores

    def _step(
        self, check: MemcachedCheck, value: bytes | None, mode: int, now: float
    ) -> tuple[Verdict, bytes, int, bool]:
        try:
            return check.step(value, mode, now)
        except TableError as error:
            what = (
                "has too many hits for one Memcached value"
                if error.code == "EFULL"
                else "holds something that is not a counter"
            )
            node = self._node(check.name).name
            raise failure(node, f"{check.name.decode()} {what}", refused=True) from error

    def update(self, check: MemcachedCheck, mode: int, now: float) -> Verdict:
        """Fetch a state, step it, and store it; repeat after a conflict."""
        node = self._node(check.name)

        def step_it(client: Any) -> Verdict | None:
            value, cas = fetch(client, check.name)
            verdict, following, seconds, changed = self._step(check, value, mode, now)
            if not changed:
                return verdict
            try:
                stored = store(client, check.name, following, cas, seconds + self._spare)
            except (OSError, node.errors.closed) as error:
                raise_translated(node.failure(error), error)  # it may be stored: not done again
            return verdict if stored else None

        for attempt in range(TRIES):
            try:
                verdict = node.use(step_it, True)
            except StorageError:
                if attempt == 0 or not is_late():
                    raise
                break  # the server answers, but other processes keep changing the state
            if verdict is not None:
                return verdict
            if attempt > 2:
                time.sleep(random.random() * 0.0005 * min(attempt, 16))
        text = f"{check.name.decode()} was changed by others {attempt + 1} times"
        raise failure(node.name, text, refused=True)

    # -- the rest

    def clear(self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /) -> None:
        checks = memcached_checks(self._prefix, limits, keys, None)
        try:
            with within(self.deadline):
                for check in checks:
                    self._node(check.name).use(partial(delete, name=check.name))
        finally:
            self._denials.remove(check.name for check in checks)

    def reset(self) -> None:
        """Not supported: Memcached cannot list names, and can only flush everything."""
        raise NotImplementedError(
            f"{self.name}: Memcached cannot delete only the counters; "
            "flush_all would delete the items of all its users"
        )

    def check(self) -> bool:
        """Whether all servers answer, each within the deadline."""
        try:
            with within(self.deadline):
                for node in self._nodes:
                    node.use(ping, True)
        except StorageError:
            return False
        return True

    def close(self) -> None:
        """Close idle connections."""
        for node in self._nodes:
            node.close()

    def _after_fork(self) -> None:
        """In a forked child: do not use the parent's connections."""
        for node in self._nodes:
            node.drop_connections()
        self._clients = threading.local()
        self._denials = Denials(self._remember)
        self._pid = os.getpid()


class _Hit:
    """A hit on several limits: either all are charged, or the charges are given back."""

    def __init__(self, storage: MemcachedStorage, checks: list[MemcachedCheck], now: float) -> None:
        self._storage = storage
        self._checks = checks
        self._now = now
        self._verdicts: list[Verdict | None] = [None] * len(checks)
        self._counts: dict[int, Count] = {}
        self._kept: list[int] = []

    def decide(self) -> list[Verdict]:
        try:
            self._count()
            self._update()
        except BaseException:
            if is_late():  # the deadline of the call has passed
                threading.Thread(target=self._give_back_late, daemon=True).start()
            else:
                self._give_back()
            raise
        if not all(verdict.allowed for verdict in self._verdicts if verdict):
            self._give_back()
            self._describe_uncharged()
        return [verdict for verdict in self._verdicts if verdict]

    def _count(self) -> None:
        """The limits that the servers count, in one round trip per server."""
        storage = self._storage
        places = [i for i, check in enumerate(self._checks) if storage.counts(check)]
        requests = [
            (check, CHARGE if 0 < check.cost <= check.amount and not check.peek else PEEK)
            for check in (self._checks[i] for i in places)
        ]
        for at, count in storage.count_each(requests, self._now):
            i, (check, what) = places[at], requests[at]
            if what == CHARGE:
                self._counts[i] = count
            there, left_ns = count.left_ns > 0, count.left_ns
            self._verdicts[i] = check.evaluate(there, count.number, left_ns, what, self._now)

    def _update(self) -> None:
        """The other limits, in the order of their names, until one denies."""
        places = [i for i, verdict in enumerate(self._verdicts) if verdict is None]
        allowed = all(verdict.allowed for verdict in self._verdicts if verdict)
        # Peeked limits come first: if they deny, nothing has to be given back.
        for i in sorted(places, key=lambda i: (not self._checks[i].peek, self._checks[i].name)):
            if self._checks[i].peek:
                verdict = self._storage.peek(self._checks[i], self._now)
                allowed = allowed and verdict.allowed
            elif allowed:
                verdict = self._storage.update(self._checks[i], HIT, self._now)
                allowed = verdict.allowed
                if allowed and self._checks[i].cost > 0:
                    self._kept.append(i)
            else:
                verdict = self._storage.peek(self._checks[i], self._now)
            self._verdicts[i] = verdict

    def _give_back_late(self) -> None:
        with within(self._storage.deadline):
            self._give_back()

    def _give_back(self) -> None:
        for i in reversed(self._kept):
            try:
                self._storage.update(self._checks[i], REFUND, self._now)
            except StorageError as error:
                _uncharged.warning(logger, "%s; a charged limit could not be given back", error)
        for i, count in reversed(self._counts.items()):
            self._storage.undo(self._checks[i], count)

    def _describe_uncharged(self) -> None:
        """Restore the verdicts of the limits that allowed the request to their state before it."""
        for i in [*self._kept, *self._counts]:
            verdict, check = self._verdicts[i], self._checks[i]
            if verdict is None or not verdict.allowed:
                continue
            if i in self._counts:
                count = self._counts[i]
                before, left_ns = max(0, count.number - check.cost), count.left_ns
                was = check.evaluate(True, before, left_ns, GIVE_BACK, self._now)
            else:
                was = self._storage.peek(check.with_cost(0), self._now)
            self._verdicts[i] = verdict._replace(remaining=was.remaining, reset_at=was.reset_at)
