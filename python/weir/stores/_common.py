"""What the stores on other machines share: addresses that may be shown, errors, the clock."""

from __future__ import annotations

import importlib
import re
import select
import time
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import ConfigurationError, StorageError

#: Seconds that a call may take unless ``socket_timeout`` says otherwise.
DEADLINE = 0.25


def monotonic() -> float:
    """Seconds, by a clock that libraries which move the time of tests leave alone."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def true_time() -> float:
    """Seconds since the epoch as the machine has them, whatever tests do to ``time.time()``."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def need(module: str, package: str, scheme: str) -> ModuleType:
    """Import a client library, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"{scheme}:// needs the package {package}: pip install {package}"
        ) from error


_HOST = r"(\[[\w:.%]*\]|[^/?#:@,\[\]]*)(:\d*)?"

#: ``user:password@host:port,host:port/path?name=value``
_PARTS = re.compile(rf"([^/?#]*@)?{_HOST}(,{_HOST})*(/[\w.-]*/?)?(\?(\w+=[^#]*)?)?")


def shown(uri: str) -> str:
    """The URI without user, password and options: for messages."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"


def check_uri(uri: str) -> None:
    """Refuse what would be taken apart in the wrong places: parts of a password for a host."""
    scheme, _, rest = uri.partition("://")
    if not rest.startswith("/") and not scheme.endswith("+unix") and not _PARTS.fullmatch(rest):
        raise ConfigurationError(
            f"{scheme}://: not of the form {scheme}://user:password@host:port/path?name=value. "
            "Special characters of a password must be percent-encoded, as by "
            "urllib.parse.quote(password, safe='')"
        )


def seconds(value: Any, name: str) -> float | None:
    """A deadline that is one; ``None``: there is none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ConfigurationError(f"{name} must be seconds above 0, or None, not {value!r}")
    return float(value)


def scheme_of(uri: str) -> str:
    return uri.partition("://")[0]


def failure(store: str, error: BaseException | str, text: str = "") -> StorageError:
    """The error to raise when ``store``, an address that may be shown, could not decide.

    text: what to say of ``error`` instead of its own words.
    """
    text = text or str(error) or type(error).__name__
    failed = StorageError(f"{store}: {text}")
    failed.storage_error = error if isinstance(error, Exception) else None
    return failed


def is_readable(sock: Any) -> bool:
    """Whether a socket has something to read at this moment, be it the end."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class Hosts:
    """``scheme://user:password@host:port,host:port/path``, which urllib cannot take apart."""

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
                raise ConfigurationError(f"{shown(uri)}: {host!r} is no host:port") from error
