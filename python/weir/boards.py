"""Another name of :mod:`weir.stores.shared_stats`.

``Boards`` is ``SharedStats``, ``SharedRule`` is :class:`weir.Rule`.
"""

from __future__ import annotations

from .stores.shared_stats import SharedRule, apply_rules, snapshot
from .stores.shared_stats import SharedStats as Boards

__all__ = ["Boards", "SharedRule", "apply_rules", "snapshot"]
