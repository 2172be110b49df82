"""Signals, by blinker.

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

#: Sent for every breach, not only for logged ones; also for limits in shadow mode.
#:
#: ``sender``: the application. ``breach``: a :class:`weir.audit.Breach`. ``limit``: the
#: :class:`weir.flask.RequestLimit`, with the key in clear. ``limiter``: the limiter of the limit.
#: An exception in a receiver is logged, and the request continues.
rate_limit_breached = _signals.signal("rate-limit-breached")
