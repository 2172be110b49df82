"""Rate limits for Flask, with the names, arguments and settings of Flask-Limiter.

::

    from flask import Flask
    from weir.flask import Limiter
    from weir.flask.util import get_remote_address

    app = Flask(__name__)
    limiter = Limiter(get_remote_address, app=app, default_limits=["200 per day", "50 per hour"])
"""

from __future__ import annotations

import weir._own  # noqa: F401  # first, to report another distribution
from weir import __version__

try:
    from .constants import HEADERS, ExemptionScope, HeaderNames
    from .errors import ConfigurationError, RateLimitExceeded, UsageError
    from .limiter import Limiter
    from .limits import ApplicationLimit, Limit, MetaLimit, RequestLimit, RouteLimit
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] in ("flask", "werkzeug"):
        text = "weir.flask needs the package Flask: pip install Flask"
        raise ModuleNotFoundError(text, name=error.name) from error
    raise

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
