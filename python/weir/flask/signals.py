"""Signals of blinker, for code that wants to know.

::

    from weir.flask.signals import rate_limit_breached

    @rate_limit_breached.connect_via(app)
    def note(app, breach, limit, **extra):
        statsd.increment("breaches", tags=[breach.endpoint])
"""

from __future__ import annotations

from blinker import Namespace

__all__ = ["rate_limit_breached"]

_signals = Namespace()

#: Sent at each breach, not only at those that are logged; also of limits in shadow mode.
#:
#: ``sender``: the application. ``breach``: a :class:`weir.audit.Breach`. ``limit``: the
#: :class:`weir.flask.RequestLimit`, which knows the key in clear. ``limiter``: whose limit it is.
#: An exception of a receiver is logged, and the request goes on.
rate_limit_breached = _signals.signal("rate-limit-breached")
