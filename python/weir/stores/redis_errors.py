"""What a Redis or Valkey server's errors say: of the store, or of one key."""

from __future__ import annotations

import re
from types import ModuleType

from .base import failure

#: What stands before the error of a command in a script, by the server's version.
_WHERE = re.compile(
    r"(-?ERR )?(Error (running|compiling) script \(.*?\): )?"
    r"((@\w+: *)?@?user_script:\s*\d+: )?-?(ERR )?"
)

#: Errors of one counter, or one decision.
_OF_A_KEY = ("WRONGTYPE", "CROSSSLOT")


def is_refused(error: str) -> bool:
    """Whether a server's error is about the key that was asked about, not about the server.

    >>> is_refused("WRONGTYPE Operation against a key holding the wrong kind of value script: …")
    True
    >>> is_refused("READONLY You can't write against a read only replica script: …")
    False
    """
    text = error[_WHERE.match(error).end() :]  # type: ignore[union-attr]
    if text.startswith("weir: "):  # our script's own words; what follows has the client's key
        return True
    code = text.partition(" ")[0]
    if code in _OF_A_KEY:
        return True
    if code.isupper() and code.isalpha():
        return False
    # What else goes wrong within the script, goes wrong because of what the key holds.
    return "user_script" in error and "killed" not in text


def readable(error: str) -> str:
    """The server's text without where in the script it was raised."""
    return error.partition(" script: ")[0].removeprefix("ERR ")


def answer_failure(name: str, error: str) -> Exception:
    """The error to raise for what the server at ``name`` has answered."""
    return failure(name, readable(error), refused=is_refused(error))


def without_clients(error: str) -> str:
    """Who was asked and what came of it, without the settings of each."""
    return re.sub(r"<\w+\.client\..*?\)>\)> - ", "", error)


def errors_of(library: ModuleType) -> tuple[type[Exception], ...]:
    """What a client that could not ask raises. Those of a whole Cluster are none of the base's."""
    found = library.exceptions
    base = getattr(found, "ValkeyError", None) or found.RedisError
    cluster = getattr(found, "ValkeyClusterException", None) or found.RedisClusterException
    return OSError, ValueError, base, cluster


def call_failure(
    name: str, error: BaseException, library: ModuleType, deadline: float | None
) -> BaseException:
    """What to raise for ``error``, that a call to the store at ``name`` has raised.

    An error of a socket is the error that the client library would make of it.
    """
    found = library.exceptions
    if isinstance(error, BlockingIOError | TimeoutError | found.TimeoutError):
        text = f"no answer within {deadline:g} s" if deadline else "timed out"
        return failure(name, error, text, client=found.TimeoutError)
    if isinstance(error, errors_of(library)):
        client = found.ConnectionError if isinstance(error, OSError) else None
        return failure(name, error, without_clients(str(error)), client=client)
    return error
