"""Locks that a forked child finds free.

A child has only the thread that forked. A lock that another thread held at that moment would be
held for ever. So every lock of this package that lives longer than a call is made here or renewed
by its owner. None is held while something is logged: a handler may call us again.

Python never releases a function that :func:`os.register_at_fork` was given. Only weak references
are kept here, so that the modules of the package can be unloaded.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["after_fork", "new_lock"]

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_functions: list[weakref.ref[Callable[[], None]]] = []


def new_lock() -> threading.Lock:
    """A lock that is free in each forked child."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def after_fork(function: Callable[[], None]) -> None:
    """Call a module's function in each forked child, as long as the module is loaded."""
    _functions.append(weakref.ref(function, _functions.remove))


def _renew() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()  # as threading and logging do with theirs
    for reference in list(_functions):
        if (function := reference()) is not None:
            function()


os.register_at_fork(after_in_child=_renew)
