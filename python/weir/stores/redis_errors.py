"""Errors of Redis and Valkey servers: about the server, or about one key."""

from __future__ import annotations

import re
from types import ModuleType

from .base import failure

#: The prefix of the error of a command in a script, which depends on the server's version.
_WHERE = re.compile(
    r"(-?ERR )?(Error (running|compiling) script \(.*?\): )?"
    r"((@\w+: *)?@?user_script:\s*\d+: )?-?(ERR )?"
)

#: Errors of one counter, or one decision.
_OF_A_KEY = ("WRONGTYPE", "CROSSSLOT")


def is_refused(error: str) -> bool:
    """Whether a server's error is about the key of the request, not about the server.

    >>> is_refused("WRONGTYPE Operation against a key holding the wrong kind of value script: …")
    True
    >>> is_refused("READONLY You can't write against a read only replica script: …")
    False
    """
    text = error[_WHERE.match(error).end() :]  # type: ignore[union-attr]
    if text.startswith("weir: "):  # the text of Weir's script; the client's key follows
        return True
    code = text.partition(" ")[0]
    if code in _OF_A_KEY:
        return True
    if code.isupper() and code.isalpha():
        return False
    # Other errors in the script are caused by the value of the key.
    return "user_script" in error and "killed" not in text


def readable(error: str) -> str:
    """The server's text without the position in the script."""
    return error.partition(" script: ")[0].removeprefix("ERR ")


def answer_failure(name: str, error: str | Exception) -> Exception:
    """The error to raise for an error reply of the server at ``name``, or a library's error."""
    text = str(error)
    return failure(name, error, readable(text), refused=is_refused(text))


def without_clients(error: str) -> str:
    """The addresses and errors of the sentinels, without their settings."""
    return re.sub(r"<\w+\.client\..*?\)>\)> - ", "", error)


def errors_of(library: ModuleType) -> tuple[type[Exception], ...]:
    """Exceptions that a client raises if it cannot reach a server, or a whole Cluster."""
    found = library.exceptions
    base = getattr(found, "ValkeyError", None) or found.RedisError
    cluster = getattr(found, "ValkeyClusterException", None) or found.RedisClusterException
    return OSError, ValueError, base, cluster


def call_failure(
    name: str, error: BaseException, library: ModuleType, deadline: float | None
) -> BaseException:
    """The error to raise for ``error``, which a call to the store at ``name`` has raised.

    An error of a socket becomes the error that the client library would raise for it.
    """
    found = library.exceptions
    if isinstance(error, BlockingIOError | TimeoutError | found.TimeoutError):
        text = f"no answer within {deadline:g} s" if deadline else "timed out"
        return failure(name, error, text, client=found.TimeoutError)
    if isinstance(error, errors_of(library)):
        client = found.ConnectionError if isinstance(error, OSError) else None
        return failure(name, error, without_clients(str(error)), client=client)
    return error
