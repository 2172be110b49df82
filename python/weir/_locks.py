"""Locks that a forked child finds free.

A child has only the thread that forked. A lock that another thread held at that moment would be
held for ever. So every lock of this package that lives longer than a call is made here or renewed
by its owner. None is held while something is logged: a handler may call us again.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

__all__ = ["new_lock"]

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def new_lock() -> threading.Lock:
    """A lock that is free in each forked child."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def _renew() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()  # as threading and logging do with theirs


os.register_at_fork(after_in_child=_renew)
