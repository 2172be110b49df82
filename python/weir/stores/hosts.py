"""Addresses of stores: parsing, hiding passwords, and resolving names in the background."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import threading
from urllib.parse import unquote, urlsplit

from ..errors import ConfigurationError
from .base import is_readable

__all__ = ["Hosts", "Resolver", "check_uri", "is_readable", "scheme_of", "shown"]

_HOST = r"(\[[\w:.%]*\]|[^/?#:@,\[\]]*)(:\d*)?"

#: ``user:password@host:port,host:port/path?name=value``
_PARTS = re.compile(rf"([^/?#]*@)?{_HOST}(,{_HOST})*(/[\w.-]*/?)?(\?(\w+=[^#]*)?)?")


def shown(uri: str) -> str:
    """The URI without user, password and options, for messages."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"


def check_uri(uri: str) -> None:
    """Refuse a URI that would be split in the wrong place, with parts of a password as the host."""
    scheme, _, rest = uri.partition("://")
    if not rest.startswith("/") and not scheme.endswith("+unix") and not _PARTS.fullmatch(rest):
        raise ConfigurationError(
            f"{scheme}://: write it as {scheme}://user:password@host:port/path?name=value. "
            "Special characters of a password must be percent-encoded, as by "
            "urllib.parse.quote(password, safe='')"
        )


def scheme_of(uri: str) -> str:
    return uri.partition("://")[0]


class Hosts:
    """``scheme://user:password@host:port,host:port/path``, which urllib cannot parse."""

    def __init__(self, uri: str, port: int) -> None:
        rest = uri.partition("://")[2].partition("?")[0]
        authority, _, self.path = rest.partition("/")
        user_info, _, hosts = authority.rpartition("@")
        user, _, password = user_info.partition(":")
        self.username = unquote(user) or None
        self.password = unquote(password) or None
        self.addresses: list[tuple[str, int]] = []
        for host in filter(None, hosts.split(",")):
            try:
                parts = urlsplit(f"//{host}")
                self.addresses.append((parts.hostname or "localhost", parts.port or port))
            except ValueError as error:
                raise ConfigurationError(f"{shown(uri)}: {host!r} is not host:port") from error


class _LookUp:
    """One look-up in progress, which may take longer than any caller waits."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: OSError | None = None


class Resolver:
    """Resolves host names in background threads and keeps the last good answer.

    If the resolver does not answer, callers wait until their deadline only for a name that was
    never resolved. Otherwise the earlier answer is used while a look-up is in progress.
    """

    #: Seconds to wait for a new answer if there is an earlier one.
    PATIENCE = 0.05

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}
        self._drop_threads()

    def _drop_threads(self) -> None:
        """A child of fork() has no threads of its parent."""
        self._lock = threading.Lock()
        self._pending: dict[str, _LookUp] = {}
        self._pid = os.getpid()

    def addresses(self, host: str, seconds: float | None) -> list[str]:
        """The addresses of ``host``. Raises OSError if it has none, or not in time."""
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            pass
        else:
            return [host]
        if self._pid != os.getpid():
            self._drop_threads()
        with self._lock:
            known = self._known.get(host)
            look_up = self._pending.get(host)
            if look_up is not None and known is not None:
                return known
            if look_up is None:
                look_up = self._pending[host] = _LookUp()
                threading.Thread(
                    target=self._look_up, args=(host, look_up), name="weir-resolver", daemon=True
                ).start()
        if known is not None:
            seconds = self.PATIENCE if seconds is None else min(seconds, self.PATIENCE)
        look_up.done.wait(seconds)
        with self._lock:
            known = self._known.get(host)
        if known is not None:
            return known
        if look_up.done.is_set() and look_up.error is not None:
            raise look_up.error
        raise TimeoutError(f"the name {host} was not resolved in time")

    def _look_up(self, host: str, look_up: _LookUp) -> None:
        found: list[str] = []
        try:
            for _, _, _, _, address in socket.getaddrinfo(host, None, 0, socket.SOCK_STREAM):
                found.append(str(address[0]))
        except OSError as error:
            look_up.error = error
        except UnicodeError as error:  # for an invalid name
            look_up.error = OSError(f"{host}: {error}")
        with self._lock:
            if found:
                self._known[host] = list(dict.fromkeys(found))
            self._pending.pop(host, None)
        look_up.done.set()
