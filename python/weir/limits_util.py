"""``limits.util`` as :mod:`weir.compat` gives it: ``parse()`` returns the first of several."""

from __future__ import annotations

import re

from . import util
from ._core import Limit, ParseError
from .limits import GRANULARITIES
from .util import (
    Dependency,
    LazyDependency,
    MissingModule,
    WindowStats,
    get_dependency,
    granularity_from_string,
)
from .util import _Dependencies as DependencyDict

__all__ = [
    "GRANULARITIES",
    "Dependency",
    "DependencyDict",
    "LazyDependency",
    "MissingModule",
    "WindowStats",
    "get_dependency",
    "granularity_from_string",
    "parse",
    "parse_many",
]


def parse_many(limit_string: str) -> list[Limit]:
    """All limits in a text. Errors begin as those of ``limits`` do.

    >>> parse_many("10/second; 5/minute")
    [10 per 1 second, 5 per 1 minute]
    """
    try:
        return util.parse_many(limit_string)
    except ValueError as error:
        unit = re.search('unknown unit "(.*)" at', str(error))
        known = (
            f"no granularity matched for {unit[1]}"
            if unit
            else f"couldn't parse rate limit string '{limit_string}'"
        )
        failed = ParseError(f"{known}: {error}")
        vars(failed).update(vars(error))
        raise failed from None


def parse(limit_string: str) -> Limit:
    """The first of the limits in a text.

    >>> parse("10/second; 5/minute")
    10 per 1 second
    """
    return parse_many(limit_string)[0]
