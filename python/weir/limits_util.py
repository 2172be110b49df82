"""``limits.util`` as :mod:`weir.compat` gives it: ``parse()`` returns the first of several."""

from __future__ import annotations

from ._core import Limit
from .util import (
    Dependency,
    LazyDependency,
    MissingModule,
    WindowStats,
    get_dependency,
    granularity_from_string,
    parse_many,
)

__all__ = [
    "Dependency",
    "LazyDependency",
    "MissingModule",
    "WindowStats",
    "get_dependency",
    "granularity_from_string",
    "parse",
    "parse_many",
]


def parse(limit_string: str) -> Limit:
    """The first of the limits in a text.

    >>> parse("10/second; 5/minute")
    10 per 1 second
    """
    return parse_many(limit_string)[0]
