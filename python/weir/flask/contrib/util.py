"""Who is asking, behind a certain provider."""

from __future__ import annotations

from weir.flask.constants import ConfigVars
from weir.flask.context import require_context
from weir.flask.util import client_name


def get_remote_address_cloudflare() -> str:
    """Return the client that Cloudflare names in ``CF-Connecting-IP``.

    IPv6 addresses are treated as :func:`~weir.flask.util.get_remote_address` does. Without the
    header it is ``127.0.0.1``. Whoever reaches the server by another way than Cloudflare can write
    into that header what he likes: let the server answer to Cloudflare's networks only.
    """
    context = require_context()
    address = context.request.headers.get("CF-Connecting-IP", "").strip()
    return client_name(address, context.app.config.get(ConfigVars.IPV6_PREFIX))
