"""The names of ``limits.util``."""

from __future__ import annotations

from ._core import WindowStats, join_key, parse, parse_many

__all__ = ["WindowStats", "join_key", "parse", "parse_many"]
