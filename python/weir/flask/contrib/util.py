"""The client of a request behind a certain provider."""

from __future__ import annotations

from weir.flask.constants import ConfigVars
from weir.flask.context import require_context
from weir.flask.util import client_name


def get_remote_address_cloudflare() -> str:
    """Return the client that Cloudflare names in ``CF-Connecting-IP``.

    IPv6 addresses are treated as :func:`~weir.flask.util.get_remote_address` does. Without the
    header it is ``127.0.0.1``. A client that reaches the server without Cloudflare can write any
    text into that header: allow only Cloudflare's networks to connect to the server.
    """
    context = require_context()
    address = context.request.headers.get("CF-Connecting-IP", "").strip()
    return client_name(address, context.app.config.get(ConfigVars.IPV6_PREFIX))
