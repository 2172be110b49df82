"""Another name of :mod:`weir.observe.metrics`: the same module."""

from __future__ import annotations

import sys

from .observe import metrics as _metrics
from .observe.metrics import Collector

__all__ = ["Collector"]

sys.modules[__name__] = _metrics
