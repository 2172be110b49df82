"""Weir: rate limits, decided by a C core.

>>> import weir
>>> limiter = weir.RateLimiter(weir.Table("memory://"), "moving-window")
>>> limit = weir.parse("2 per minute")
>>> [limiter.hit(limit, "alice") for _ in range(3)]
[True, True, False]

The API follows the ``limits`` library: :mod:`weir.strategies`, :mod:`weir.storage`,
:mod:`weir.util`. For Flask, see :mod:`weir.flask`.
"""

from __future__ import annotations

from . import _foreign, errors, storage, strategies
from ._core import (
    CHECKS_MAX,
    EACH,
    HIT,
    REFUND,
    TEST,
    VERSION,
    Decision,
    Limit,
    LimitCounts,
    Peek,
    RateLimiter,
    RegisteredLimit,
    Rule,
    Table,
    TopClient,
    Verdict,
    WindowStats,
    identifier,
    join_key,
    parse,
    parse_many,
    unlink,
)
from ._log import clean_loggers
from .errors import (
    ConfigurationError,
    KeyRefusedError,
    ParseError,
    StorageError,
    StoreAwayError,
    TableError,
    WeirError,
    WeirWarning,
)
from .limits import (
    Granularity,
    RateLimitItem,
    RateLimitItemPerDay,
    RateLimitItemPerHour,
    RateLimitItemPerMinute,
    RateLimitItemPerMonth,
    RateLimitItemPerSecond,
    RateLimitItemPerYear,
)

__version__ = VERSION

#: Deprecated: the earlier names.
Look, Heavy, Described = Peek, TopClient, RegisteredLimit

#: The name of the distribution; weir is another project on PyPI.
__distribution__ = _foreign.DISTRIBUTION
_foreign.warn_of_foreign()

clean_loggers()


def install_as_flask_limiter() -> None:
    """Let ``import flask_limiter`` and ``import limits`` find Weir; see :mod:`weir.compat`."""
    from .compat import install_as_flask_limiter

    install_as_flask_limiter()


__all__ = [
    "CHECKS_MAX",
    "EACH",
    "HIT",
    "REFUND",
    "TEST",
    "ConfigurationError",
    "Decision",
    "Granularity",
    "KeyRefusedError",
    "Limit",
    "LimitCounts",
    "ParseError",
    "Peek",
    "RateLimitItem",
    "RateLimitItemPerDay",
    "RateLimitItemPerHour",
    "RateLimitItemPerMinute",
    "RateLimitItemPerMonth",
    "RateLimitItemPerSecond",
    "RateLimitItemPerYear",
    "RateLimiter",
    "RegisteredLimit",
    "Rule",
    "StorageError",
    "StoreAwayError",
    "Table",
    "TableError",
    "TopClient",
    "Verdict",
    "WeirError",
    "WeirWarning",
    "WindowStats",
    "__version__",
    "errors",
    "identifier",
    "install_as_flask_limiter",
    "join_key",
    "parse",
    "parse_many",
    "storage",
    "strategies",
    "unlink",
]
