"""Another name of :mod:`weir.stores.failover`: the same module."""

from __future__ import annotations

import sys

from .stores import failover as _failover
from .stores.failover import POLICIES, FailoverStorage, Guarded, StoreSwitchedError

__all__ = ["POLICIES", "FailoverStorage", "Guarded", "StoreSwitchedError"]

sys.modules[__name__] = _failover
