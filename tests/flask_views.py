"""Views of the Flask tests."""

from __future__ import annotations

from weir.flask import Limiter


def hello() -> str:
    return "hello"


def applied(limiter: Limiter) -> str:
    """The limits that the current request was checked against."""
    return ", ".join(str(item.limit) for item in limiter.current_limits)
