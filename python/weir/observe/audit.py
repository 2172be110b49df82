"""Breaches of limits as events: logger ``weir.audit``, one JSON object a line.

The first breach of a key in a window is logged at once, and when the window has ended, one summary
with how often the key was denied in it, counted over all processes that share the table::

    {"event": "breach", "time": "2026-11-21T10:00:00.250000Z", "limit": "10 per 1 minute",
     "scope": "login", "endpoint": "login", "key": "192.0.2.7", "cost": 1, "remaining": 0,
     "retry_after": 59.75, "shadow": false, "store": "auto://", "rule": ""}
    {"event": "summary", "time": "2026-11-21T10:01:00.300000Z", "limit": "10 per 1 minute",
     "scope": "login", "endpoint": "login", "key": "192.0.2.7", "shadow": false,
     "store": "auto://", "count": 4711, "since": "…", "until": "…"}

A window is the limit's period, opened by the first breach. A key that keeps breaching is
reported for :data:`WINDOWS` windows of a :data:`SPAN`; the rest of that span is one more summary.
A process distinguishes at most :data:`KEYS_MAX` keys at once; further keys are reported together,
with ``"key": null``. So the log stays short under any load.

Implementation: each key has two counters in the table, which the breaches "hit" like a limit whose
amount is never reached. The first hit of one counter opens a window and sets its end. The other
counter, the bucket, is named after that end. Its number holds the breaches, the processes that
counted some, and whether the summary was written. Any of these processes can write the summary, and
only one does. A breach at that moment is counted in the next bucket, so none is lost or reported
twice. Breaches seen only by a killed process are lost.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import heapq
import itertools
import json
import logging
import math
import threading
import time
import weakref
from datetime import datetime, timezone
from typing import Any

from .._clock import monotonic
from .._core import HIT, REFUND, TEST, Limit, Table
from .._locks import after_fork
from .._text import printable
from ..errors import StorageError, WeirError

__all__ = ["KEYS_MAX", "SPAN", "WINDOWS", "Audit", "Breach", "logger"]

#: The logger of events, at level ``INFO``. Unless a level is set, events go to every handler, even
#: if the level of the root logger is higher; without handlers they are dropped.
logger = logging.getLogger("weir.audit")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)

#: Windows of a key that are reported one by one within a span.
WINDOWS = 3

#: Seconds. Limits with longer periods have at most one window in a span.
SPAN = 900

#: Keys that a process distinguishes at the same time.
KEYS_MAX = 1000

#: The namespace of the counters of this module; "!" keeps them out of the statistics.
_NAMESPACE = "!audit"

#: The fields of a bucket's number: breaches, then processes that counted some, then summaries.
_BREACH = 1
_PROCESS = 1 << 40
_SUMMARY = 1 << 52
_NEVER_REACHED = 1 << 62

#: Longer keys are counted under their hash.
_KEY_MAX = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Breach:
    """A request that a limit denied, or (``shadow``) would have denied."""

    #: Seconds since the Unix epoch.
    time: float
    #: The limit as text: ``10 per 1 minute``.
    limit: str
    #: What the limit counts together: an endpoint, or a shared scope.
    scope: str
    endpoint: str
    #: The client, as it may be shown: an address, ``#`` and a keyed hash, or in clear.
    key: str | None
    cost: int
    remaining: int
    #: Seconds until the same request can pass; ``None``: never.
    retry_after: float | None
    shadow: bool
    #: The store that decided, without password.
    store: str
    #: ``block`` if a rule denied and not the limit.
    rule: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The event to log."""
        event: dict[str, Any] = {"event": "breach", **dataclasses.asdict(self)}
        event = {name: _clean(value) for name, value in event.items()}
        event["time"] = _moment(self.time)
        if self.retry_after is not None:
            event["retry_after"] = (
                round(self.retry_after, 6) if math.isfinite(self.retry_after) else None
            )
        return event


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _clean(value: Any) -> Any:
    """A text without control characters and of bounded length, as log readers may print it."""
    return printable(value) if isinstance(value, str) else value


def _log(event: dict[str, Any]) -> None:
    text = json.dumps(event, ensure_ascii=True, allow_nan=False)
    logger.info(text, extra={"event": event})


class _Window:
    """Breaches of one key that one summary reports."""

    __slots__ = ("about", "bucket", "end", "first", "known", "limit", "since")

    def __init__(self, about: Breach, bucket: str, limit: Limit, since: float, end: float) -> None:
        self.about = about
        self.bucket = bucket
        self.limit = limit
        self.since = since
        self.end = end
        #: Whether this process logs its first breach.
        self.first = False
        #: Breaches that this process has counted.
        self.known = 0


class Audit:
    """Reports breaches of limits, which are counted in ``table``.

    :param table: where breaches are counted; every process that shares it counts with it
    :param reveal: show keys in clear. Otherwise addresses are shown, and of any other key ``#`` and
        its hash under the table's secret.

    >>> audit = Audit(Table())
    >>> audit.name_of("192.0.2.7")
    '192.0.2.7'
    >>> audit.name_of("k-shop").startswith("#")
    True
    """

    def __init__(self, table: Table, *, reveal: bool = False) -> None:
        self.table = table
        self.reveal = reveal
        self._reset()
        _audits.add(self)

    def _reset(self) -> None:
        """Start empty. A forked child does not report the breaches that its parent has seen."""
        self._lock = threading.Lock()
        #: The current window of each key.
        self._windows: dict[str, _Window] = {}
        #: Windows without a summary yet, soonest to end first.
        self._due: list[tuple[float, int, _Window]] = []
        self._numbers = itertools.count()
        #: The difference of ``time.time()`` and the monotonic clock at the last breach.
        self._ahead = time.time() - monotonic()
        self._failed = False

    def name_of(self, key: str) -> str:
        """The text that stands for ``key`` in the log; ``#`` if the table fails."""
        if self.reveal:
            return key
        try:
            return self.table.name_of(key)
        except (WeirError, ValueError):
            return "#"

    # -- breaches

    @property
    def listens(self) -> bool:
        """Whether a handler would receive what is logged."""
        return logger.isEnabledFor(logging.INFO) and logger.hasHandlers()

    def note(self, breach: Breach, limit: Limit, key: str) -> None:
        """Count a breach, and log it if it is the first of its window.

        limit, key: the arguments of the store. Never raises: if the table fails, this is logged
        once (by the logger ``weir``), and so is the breach.
        """
        if not self.listens:
            return
        try:
            first, ended = self._note(breach, limit, key)
        except (StorageError, OSError, ValueError) as error:
            first, ended = None, []
            if not self._failed:
                self._failed = True
                logging.getLogger("weir").error("breaches cannot be counted: %s", error)
                first = breach
        for window in ended:
            self._report(window)
        if first:
            _log(first.as_dict())

    def _note(self, breach: Breach, limit: Limit, key: str) -> tuple[Breach | None, list[_Window]]:
        """The breach to log, if any, and the windows whose summaries are due."""
        name = f"{limit.full_key(key)}/{limit.strategy}/{breach.shadow:d}"
        if len(name) > _KEY_MAX:
            name = hashlib.blake2b(name.encode(errors="surrogatepass")).hexdigest()
        period = limit.get_expiry()
        now = time.time()
        with self._lock:
            self._ahead = now - monotonic()
            ended = self._ended(now)
            if name not in self._windows and len(self._windows) >= KEYS_MAX:
                # Too many keys; they share one window.
                name, period = "*", 60
                breach = dataclasses.replace(breach, limit="", scope="", endpoint="", key=None)
            window = self._windows.get(name)
            if window is None or not window.since - 1 <= now < window.end:
                window = self._open(name, breach, period, now)
            window, first = self._count(window)
            self._windows[name] = window
        return breach if first else None, ended

    def _open(self, name: str, breach: Breach, period: int, now: float) -> _Window:
        """The window of a breach at ``now``."""
        opening = _openings(period)
        decision = self.table.decide(opening, name, [0] * len(opening), TEST)
        first = False
        if decision[0].remaining == _NEVER_REACHED:
            # No window is open. The first process to hit it opens one.
            decision = self.table.decide(opening, name, [1] * len(opening), HIT)
            first = _used(decision[0].remaining) == 1
        end = decision[0].reset_at
        since = end - period
        lasting = period
        # Each opened window is counted in both, so the difference is the number of windows before
        # this one, which is the same for all processes.
        if (
            len(decision) > 1
            and _used(decision[1].remaining) - _used(decision[0].remaining) >= WINDOWS
        ):
            end, since, first, lasting = decision[1].reset_at, now, False, SPAN
        window = _Window(breach, f"{name}@{round(end * 1e6)}", _bucket(lasting), since, end)
        window.first = first
        return window

    def _count(self, window: _Window) -> tuple[_Window, bool]:
        """Count a breach. Returns its window, and whether to log it."""
        for generation in itertools.count():
            joining = _BREACH if window.known else _BREACH + _PROCESS
            if self._hit(window, joining, HIT) < _SUMMARY:
                break
            # Its summary was written just now, by a process whose clock is ahead or by the last
            # process of a server that has ended. Use the next bucket.
            self._hit(window, joining, REFUND)
            about, bucket = window.about, window.bucket.partition("+")[0]
            late = _Window(about, f"{bucket}+{generation}", window.limit, window.since, window.end)
            late.first, window = window.first, late
        if not window.known:
            heapq.heappush(self._due, (window.end, next(self._numbers), window))
            _summary_thread.wake(self)
        window.known += 1
        first, window.first = window.first, False
        return window, first

    def _hit(self, window: _Window, cost: int, mode: int) -> int:
        decision = self.table.decide([window.limit], window.bucket, [cost], mode)
        return _used(decision[0].remaining)

    # -- summaries

    def _ended(self, now: float) -> list[_Window]:
        """The windows whose summaries are due. Called with the lock held."""
        ended = []
        while self._due and self._due[0][0] <= now:
            ended.append(heapq.heappop(self._due)[2])
        if ended:
            gone = {id(window) for window in ended}
            self._windows = {n: w for n, w in self._windows.items() if id(w) not in gone}
        return ended

    def flush(self) -> float | None:
        """Write the summaries of windows that have ended.

        Returns when the next window ends, in seconds since the epoch. Calling this is optional: a
        thread does it in time.
        """
        return self._flush(time.time())

    def _flush(self, now: float) -> float | None:
        with self._lock:
            ended = self._ended(now)
            following = self._due[0][0] if self._due else None
        for window in ended:
            self._report(window)
        return following

    def flush_in_thread(self) -> float | None:
        """The same, for the thread. Returns the seconds until the next window ends.

        The time is at most that of the last breach plus the monotonic time since: libraries that
        set the time in tests may not set it in threads, where windows would seem to have ended.
        """
        now = min(time.time(), monotonic() + self._ahead)
        following = self._flush(now)
        return None if following is None else following - now

    def _report(self, window: _Window) -> None:
        """Write the summary, unless another process has."""
        try:
            decision = self.table.decide([window.limit], window.bucket, [_SUMMARY], HIT)
        except (StorageError, OSError, ValueError):
            return  # closed or broken, which is reported elsewhere
        used = _used(decision[0].remaining)
        if decision.allowed and used // _SUMMARY == 1:
            self._summarize(window, used)

    def _summarize(self, window: _Window, used: int) -> None:
        about = window.about
        now = time.time()
        event = {
            "event": "summary",
            "time": _moment(now),
            "limit": _clean(about.limit),
            "scope": _clean(about.scope),
            "endpoint": _clean(about.endpoint),
            "key": _clean(about.key),
            "shadow": about.shadow,
            "store": _clean(about.store),
            # If the bucket was evicted, at least the breaches of this process are known.
            "count": max(used % _PROCESS, window.known),
            "since": _moment(window.since),
            "until": _moment(min(window.end, now)),
        }
        _log(event)

    def close(self) -> None:
        """At exit: the last process with breaches in a window writes its summary."""
        with self._lock:
            windows = [window for _, _, window in self._due]
            self._due, self._windows = [], {}
        for window in windows:
            with contextlib.suppress(StorageError, OSError, ValueError):
                self._hit(window, _PROCESS, REFUND)
                used = self._hit(window, 0, TEST)
                if used % _SUMMARY < _PROCESS or time.time() >= window.end:
                    self._report(window)


def _used(remaining: int) -> int:
    return _NEVER_REACHED - remaining


@functools.lru_cache(maxsize=256)
def _openings(period: int) -> list[Limit]:
    """The counters of opened windows: in the current period, and in the span."""
    periods = [period] if period >= SPAN else [period, SPAN]
    return [_counter(seconds) for seconds in periods]


@functools.lru_cache(maxsize=256)
def _bucket(period: int) -> Limit:
    """The limit of a bucket, which lasts twice as long as its window, for the summary."""
    return _counter(2 * max(period, 60))


def _counter(seconds: int) -> Limit:
    return Limit(_NEVER_REACHED, seconds, "second", strategy="fixed-window", namespace=_NAMESPACE)


# --------------------------------------------------------------------------- in time, or at the end


#: Seconds for which a process waits, when it exits, for a summary that is being written.
_PATIENCE = 5.0


class _SummaryThread:
    """A thread that writes summaries when windows end; started when it is needed."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._woken = self._ended = False

    def wake(self, audit: Audit) -> None:
        with self._condition:
            self._woken = True
            if self._thread is None and not self._ended:
                self._thread = threading.Thread(target=self._run, name="weir.audit", daemon=True)
                try:
                    self._thread.start()
                except (
                    RuntimeError
                ):  # no thread can be started: the next breach, or the exit, writes the summary
                    self._thread = None
            self._condition.notify()

    def _run(self) -> None:
        while not self._ended:
            waits = [audit.flush_in_thread() for audit in list(_audits)]
            wait = min((wait for wait in waits if wait is not None), default=None)
            with self._condition:
                if not self._woken:
                    # Not longer, so that a clock that was set forward is noticed.
                    self._condition.wait(None if wait is None else max(0.01, min(wait, 60.0)))
                self._woken = False

    def end(self) -> None:
        """At exit: let the thread finish the summaries that it is writing."""
        with self._condition:
            self._ended = self._woken = True
            self._condition.notify()
            thread = self._thread
        if thread is not None:
            thread.join(_PATIENCE)


_audits: weakref.WeakSet[Audit] = weakref.WeakSet()
_summary_thread = _SummaryThread()


def _after_fork() -> None:
    _summary_thread._reset()
    for audit in list(_audits):
        audit._reset()


def _at_exit() -> None:
    _summary_thread.end()
    for audit in list(_audits):
        audit.close()


after_fork(_after_fork)
atexit.register(_at_exit)
