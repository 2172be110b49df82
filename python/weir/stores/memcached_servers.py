"""The servers of a Memcached store: their addresses, clients, and which one has a key."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError
from .base import need
from .hosts import Hosts
from .memcached_node import Errors, Node, SocketModule, hurried_tls

__all__ = ["Servers"]


class Servers:
    """One server or several, among which keys are distributed by rendezvous hashing.

    :param name: the store's name, for errors
    :param deadline: of a call, in seconds; ``None``: there is none
    :param options: for ``pymemcache.client.base.Client``; others are ignored
    :raises ConfigurationError: if ``uri`` names no server
    """

    def __init__(
        self, name: str, uri: str, deadline: float | None, options: Mapping[str, Any]
    ) -> None:
        library = need("pymemcache.client.base", "pymemcache", "memcached")
        errors = need("pymemcache.exceptions", "pymemcache", "memcached")
        known = inspect.signature(library.Client).parameters
        self._client_class = library.Client
        self._client_options = {
            "timeout": deadline,
            "connect_timeout": deadline,
            "no_delay": True,
            "socket_module": SocketModule(),
            # Options of pymemcache's pooled and hashing clients have no meaning here.
            **hurried_tls({name: value for name, value in options.items() if name in known}),
        }
        known_errors = Errors(
            errors.MemcacheError,
            errors.MemcacheUnexpectedCloseError,
            (errors.MemcacheClientError,),
            deadline or 0.0,
        )
        self.nodes = [
            Node(address, self.make_client, known_errors) for address in _addresses(name, uri)
        ]
        self._ring: Any = None
        if len(self.nodes) > 1:
            hashing = need("pymemcache.client.rendezvous", "pymemcache", "memcached")
            self._ring = hashing.RendezvousHash([node.name for node in self.nodes])
        self._by_name = {node.name: node for node in self.nodes}

    def make_client(self, address: tuple[str, int] | str) -> Any:
        """A client of pymemcache, not connected yet."""
        return self._client_class(address, **self._client_options)

    def client(self) -> Any:
        """A client of pymemcache for all servers, with the names that programs give."""
        addresses = [node.address for node in self.nodes]
        if len(addresses) == 1:
            return need("pymemcache.client.base", "pymemcache", "memcached").PooledClient(
                addresses[0], **self._client_options
            )
        hashing = need("pymemcache.client.hash", "pymemcache", "memcached")
        return hashing.HashClient(addresses, **self._client_options)

    def of_key(self, key: bytes) -> Node:
        """The server that has a key."""
        if self._ring is None:
            return self.nodes[0]
        return self._by_name[self._ring.get_node(key.decode())]


def _addresses(name: str, uri: str) -> list[tuple[str, int] | str]:
    hosts = Hosts(uri, 11211)
    if hosts.addresses:
        return list(hosts.addresses)
    if hosts.path:
        return [f"/{hosts.path}"]
    raise ConfigurationError(f"{name}: needs servers: host:11211,host:11211")
