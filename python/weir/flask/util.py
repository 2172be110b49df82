"""Key functions, which identify clients by address."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from werkzeug.datastructures import Headers

from weir._core import Table, client_form

from .constants import ConfigVars
from .context import require_context
from .errors import ConfigurationError

_IPV6_PREFIX = 64
_log = logging.getLogger("flask-limiter")
_warned = False
_warned_of_conflict = False


def get_remote_address() -> str:
    """Return the address of the client: an IPv4 address, or the network of an IPv6 address.

    An IPv4 address within IPv6 (``::ffff:192.0.2.1``, NAT64's ``64:ff9b::192.0.2.1``) is returned
    as IPv4. A port and brackets, which some proxies add, are left out. Of any other IPv6 address
    the first 64 bits are returned (``2001:db8:1:2::/64``), because a single client owns
    that many addresses. ``RATELIMIT_IPV6_PREFIX`` sets another length; 128 counts each address.
    Without an address (a Unix socket) the result is ``127.0.0.1``.
    """
    context = require_context()
    address = context.request.remote_addr
    if address and ":" not in address:
        return address
    return client_name(address, context.app.config.get(ConfigVars.IPV6_PREFIX))


def client_name(address: str | None, ipv6_prefix: int | None = None) -> str:
    """The key of a client at ``address``; see :func:`get_remote_address`."""
    if not address:
        return "127.0.0.1"
    if ":" in address:
        return client_form(address, _IPV6_PREFIX if ipv6_prefix is None else ipv6_prefix)
    return address


def note_ipv6_prefix(
    stats_table: Table, key_func: Callable[..., Any], configured: int | None
) -> None:
    """Store the IPv6 prefix in the table, for commands and rules."""
    # Only Weir's own functions have the attribute; others are not read, as a proxy may be unbound.
    own = type(key_func) is FunctionType
    prefix = getattr(key_func, "ipv6_prefix", configured) if own else configured
    stats_table.ipv6_prefix = prefix if type(prefix) is int else _IPV6_PREFIX


def note_proxy(environ: dict[str, Any]) -> None:
    """Warn once if :func:`get_remote_address` is used behind a proxy.

    Checked at the first request of each endpoint and at refusals, not at each request.
    """
    global _warned
    if _warned or "HTTP_X_FORWARDED_FOR" not in environ or "werkzeug.proxy_fix.orig" in environ:
        return
    _warned = True
    _log.warning(
        "a request carries X-Forwarded-For, but no proxy is trusted: all clients behind the proxy"
        " at %s count as one. If the proxy is yours, use"
        " key_func=weir.flask.util.trusted_proxies(...) or werkzeug's ProxyFix",
        environ.get("REMOTE_ADDR"),
    )


def trusted_proxies(
    *proxies: str, header: str | None = None, ipv6_prefix: int = _IPV6_PREFIX
) -> Callable[[], str]:
    """Return a key function that finds the client behind the named proxies.

    ``proxies`` are addresses or networks, e.g. ``trusted_proxies("127.0.0.1", "10.0.0.0/8")``.
    ``X-Forwarded-For``, or ``Forwarded`` (RFC 7239), is read from right to left, starting with the
    proxy closest to the application. The first address that is not a trusted proxy is the client.
    Everything to the left of it could be forged, and is ignored. If that element is not an address
    (``unknown``, ``_hidden``), the client is ``peer of ADDRESS``, with the address of the proxy
    that wrote it, never the proxy itself. For a request that does not come from a trusted proxy,
    the headers are ignored.

    ``header`` names the header that your proxies write, ``"X-Forwarded-For"`` or ``"Forwarded"``.
    Most proxies write one of them and pass the other on as the client sent it. By default,
    ``Forwarded`` is read only if ``X-Forwarded-For`` is missing, and a request in which they name
    different clients logs a warning once. Proxies that write only ``Forwarded`` need
    ``header="Forwarded"``.
    ``ipv6_prefix`` is as in :func:`get_remote_address`.

    :raises weir.flask.ConfigurationError: ``EVALUE``, for something that is not an address, network
        or header.
    """
    trusted = _Proxies(proxies)
    check_ipv6_prefix(ipv6_prefix)
    readers = _readers_of(header)

    def get_client_address() -> str:
        request = require_context().request
        client = _address(request.remote_addr or "127.0.0.1") or str(request.remote_addr)
        if client in trusted:
            chains = [hops for read in readers if (hops := read(request.headers)) is not None]
            found = [trusted.follow(client, hops) for hops in chains]
            if len(set(found)) > 1:
                _note_conflict(client)
            client = found[0] if found else client
        return client_form(client, ipv6_prefix) if ":" in client else client

    get_client_address.ipv6_prefix = ipv6_prefix  # type: ignore[attr-defined]
    return get_client_address


class _Proxies:
    """The networks of trusted proxies.

    :raises ConfigurationError: ``EVALUE``, for none, or for a text that is not a network
    """

    def __init__(self, proxies: Sequence[str]) -> None:
        self._networks = []
        for proxy in proxies:
            try:
                self._networks.append(_network(proxy))
            except ValueError as error:
                raise ConfigurationError("EVALUE", f"trusted_proxies({proxy!r}): {error}") from None
        if not self._networks:
            raise ConfigurationError(
                "EVALUE", "trusted_proxies() needs at least one address or network"
            )

    def __contains__(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def follow(self, proxy: str, hops: list[str]) -> str:
        """The client of ``proxy``, according to the hops that are trusted."""
        client = proxy
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                return f"peer of {client}"
            client = address
            if client not in self:
                break
        return client


def _readers_of(header: str | None) -> list[Callable[[Headers], list[str] | None]]:
    """The functions that read the hops from this header, or from either."""
    if header is None:
        return list(_HOPS.values())
    if header.lower() not in _HOPS:
        raise ConfigurationError(
            "EVALUE", f"trusted_proxies(header={header!r}): X-Forwarded-For or Forwarded"
        )
    return [_HOPS[header.lower()]]


def check_ipv6_prefix(prefix: Any) -> None:
    """Check the length of an IPv6 prefix.

    :raises ConfigurationError: ``EVALUE``.
    """
    if type(prefix) is not int or not 0 <= prefix <= 128:
        raise ConfigurationError("EVALUE", f"an IPv6 prefix has 0 to 128 bits, not {prefix!r}")


def _note_conflict(proxy: str) -> None:
    global _warned_of_conflict
    if _warned_of_conflict:
        return
    _warned_of_conflict = True
    _log.warning(
        "a request from the proxy %s has X-Forwarded-For and Forwarded with different clients, and"
        " X-Forwarded-For is used. Set the header that the proxy writes:"
        ' trusted_proxies(..., header="X-Forwarded-For")',
        proxy,
    )


def _address(text: str) -> str | None:
    """The address without brackets, port and zone, IPv4 in IPv6 as IPv4; None if invalid."""
    form = client_form(text, 128)
    try:
        ipaddress.ip_address(form)
    except ValueError:
        return None
    return form


#: IPv4 in IPv6: mapped, SIIT (RFC 2765), NAT64 (RFC 6052).
_WITHIN = [
    ipaddress.IPv6Network(net) for net in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
]


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A network of proxies; a network of IPv4 addresses in IPv6 is returned as IPv4."""
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and any(map(network.subnet_of, _WITHIN)):
        first = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((first, network.prefixlen - 96))
    return network


def _x_forwarded_hops(headers: Headers) -> list[str] | None:
    """The hops of ``X-Forwarded-For``; None without the header."""
    values = headers.getlist("X-Forwarded-For")
    return [hop.strip() for hop in ",".join(values).split(",")] if values else None


def _forwarded_hops(headers: Headers) -> list[str] | None:
    """The ``for=`` of each element of ``Forwarded``, "" where there is none.

    Quotes do not protect a comma: no address has one, and a client that opens a quote and leaves it
    open must not hide what a proxy adds after it.
    """
    values = headers.getlist("Forwarded")
    if not values:
        return None
    hops = []
    for element in ",".join(values).split(","):
        hop = ""
        for pair in element.split(";"):
            name, _, value = pair.strip().partition("=")
            if name.lower() == "for":
                hop = value.strip('"')
        hops.append(hop)
    return hops


_HOPS: dict[str, Callable[[Headers], list[str] | None]] = {
    "x-forwarded-for": _x_forwarded_hops,
    "forwarded": _forwarded_hops,
}


def get_qualified_name(function: Any) -> str:
    """The name of a function in messages: ``module.name.qualname``."""
    while not hasattr(function, "__name__") and hasattr(function, "func"):
        function = function.func
    module = getattr(function, "__module__", "?")
    name = getattr(function, "__name__", type(function).__name__)
    return f"{module}.{name}.{getattr(function, '__qualname__', name)}"
