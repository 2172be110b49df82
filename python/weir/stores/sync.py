"""Synchronizes the hosts that share a Redis or Valkey server, once a second, in a thread.

One worker of each host publishes the host's statistics and applies the shared rules
(:mod:`weir.stores.shared_stats`). No request waits for this thread, and each of its commands has
the store's deadline.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import threading
import weakref
from typing import Any

from .._clock import monotonic
from .._core import HIT, Limit, Table
from .._locks import after_fork
from .shared_stats import SharedStats, apply_rules, snapshot

__all__ = ["DROP_DENIALS", "SYNC_INTERVAL", "HostSync"]

logger = logging.getLogger("weir")

#: The meter of a statistics table that grows when all workers are to drop their cached denials.
DROP_DENIALS = "denials dropped"

#: Seconds between two synchronizations.
SYNC_INTERVAL = 1.0

#: Seconds without a request after which a process stops its thread.
_IDLE_AFTER = 60.0

#: Seconds between two removals of expired rules.
_CLEAN_INTERVAL = 60.0

#: Admits one worker of the host a second. Namespaces that begin with "!" are not counted in the
#: statistics, and rules do not apply to them.
_CLAIM = Limit(1, 1, "second", strategy="fixed-window", namespace="!claim")


class HostSync:
    """Publishes this host's statistics and applies the shared rules.

    All workers of a host try once a second; the first of them does it for all.

    :param table: the statistics table that all workers of this host share
    :param shared: the statistics and rules on the server
    :param name: the store's name, without password
    """

    def __init__(self, table: Table, shared: SharedStats, name: str) -> None:
        self.table = table
        self.shared = shared
        self._name = name
        self._token = secrets.token_hex(8)
        self._reset()
        _syncs.add(self)

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._pause = threading.Event()
        self._awake_until = 0.0
        self._rules: str | None = None
        self._denials_version = ""
        self._cleaned = monotonic()
        self._failed = False

    @property
    def host(self) -> str:
        """The identifier of this host's statistics; the same in all workers of a server."""
        uri = self.table.uri
        own = f"{socket.gethostname()} {uri}"
        if uri.startswith("memory:"):  # all tables in memory are called so
            own += f" {os.getpid()} {self._token}"
        return hashlib.blake2b(own.encode(), digest_size=8).hexdigest()

    def wake(self) -> None:
        """Note that there are requests; start the thread if it does not run."""
        self._awake_until = monotonic() + _IDLE_AFTER
        if self._thread is None:
            with self._condition:
                if self._thread is None:
                    self._pause = threading.Event()
                    self._thread = threading.Thread(
                        target=_run,
                        args=(weakref.ref(self), self._pause),
                        name="weir.sync",
                        daemon=True,
                    )
                    try:
                        self._thread.start()
                    except RuntimeError:  # threads cannot be started, for example at exit
                        self._thread = None

    def stop(self) -> None:
        """Stop the thread until the next request. Returns when it has ended."""
        with self._condition:
            self._awake_until = 0.0
            thread = self._thread
            self._pause.set()
        if thread is not None:
            thread.join()

    def once(self, force: bool = False) -> None:
        """Synchronize, unless another worker has done so in this second. Never raises."""
        try:
            claimed = self.table.decide([_CLAIM], self._name, None, HIT).allowed
            if claimed or force:
                self._sync()
                self.shared.publish(self.host, {"name": socket.gethostname(), **self._snapshot()})
        except Exception as error:
            if not self._failed:
                self._failed = True
                logger.warning("cannot share statistics and rules with other hosts: %s", error)
        else:
            self._failed = self._failed and not claimed

    def _snapshot(self) -> dict[str, Any]:
        return snapshot(self.table)

    def _sync(self) -> None:
        version = self.shared.rules_version()
        if version != self._rules:
            apply_rules(self.table, self.shared.rules())
            self._rules = version
        version = self.shared.denials_version()
        if version and version != self._denials_version:
            self._denials_version = version
            self.table.meter(DROP_DENIALS, 1)
        if monotonic() - self._cleaned > _CLEAN_INTERVAL:
            self._cleaned = monotonic()
            self.shared.clean()


def _run(reference: weakref.ref[HostSync], pause: threading.Event) -> None:
    """The thread. It holds no reference while it waits, so that a store can be collected."""
    while True:
        sync = reference()
        if sync is None:
            return
        with sync._condition:
            if monotonic() > sync._awake_until:
                sync._thread = None
                return
        sync.once()
        del sync
        pause.wait(SYNC_INTERVAL)


_syncs: weakref.WeakSet[HostSync] = weakref.WeakSet()


def _after_fork() -> None:
    for sync in list(_syncs):
        sync._reset()


after_fork(_after_fork)
