"""Rate limits for Flask, with the names, arguments and settings of Flask-Limiter.

::

    from flask import Flask
    from weir.flask import Limiter
    from weir.flask.util import get_remote_address

    app = Flask(__name__)
    limiter = Limiter(get_remote_address, app=app, default_limits=["200 per day", "50 per hour"])
"""

from __future__ import annotations

from weir import __version__

from ._limiter import Limiter
from ._limits import ApplicationLimit, Limit, MetaLimit, RequestLimit, RouteLimit
from .constants import HEADERS, ExemptionScope, HeaderNames
from .errors import ConfigurationError, RateLimitExceeded, UsageError

__all__ = [
    "HEADERS",
    "ApplicationLimit",
    "ConfigurationError",
    "ExemptionScope",
    "HeaderNames",
    "Limit",
    "Limiter",
    "MetaLimit",
    "RateLimitExceeded",
    "RequestLimit",
    "RouteLimit",
    "UsageError",
    "__version__",
]
