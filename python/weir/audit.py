"""Another name of :mod:`weir.observe.audit`: the same module."""

from __future__ import annotations

import sys

from .observe import audit as _audit
from .observe.audit import KEYS_MAX, SPAN, WINDOWS, Audit, Breach, logger

__all__ = ["KEYS_MAX", "SPAN", "WINDOWS", "Audit", "Breach", "logger"]

sys.modules[__name__] = _audit
