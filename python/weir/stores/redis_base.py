"""Common parts of the stores on Redis and Valkey: client libraries, commands, cached denials."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from types import ModuleType
from typing import Any, cast

from .._clock import monotonic
from .._core import (
    EACH,
    HIT,
    REFUND,
    TEST,
    Decision,
    Evaluation,
    Limit,
    RedisCodec,
    RedisCommand,
    join_key,
)
from ..errors import ConfigurationError, StorageError
from ..stores.registry import KeyedStorage, decide_by_parts
from . import base
from .base import need, replaces_flask_limiter, seconds
from .denials import Denials
from .hosts import check_uri, scheme_of, shown

#: No bound: as many connections as concurrent callers. The default of redis-py is 100.
UNBOUNDED = 2**31

logger = logging.getLogger("weir")

EVICTS = (
    "maxmemory-policy is %s: a full server drops counters, and clients get their quota back; "
    "set noeviction"
)

#: The limit that ``check()`` counts, to see whether the server accepts writes.
_CHECK = Limit(2**31, 1, "second", strategy="fixed-window")


def library_of(uri: str) -> ModuleType:
    """The client library: redis-py, or valkey-py for the schemes ``valkey…``."""
    package = "valkey" if uri.startswith("valkey") else "redis"
    return need(package, package, scheme_of(uri))


def client_class(library: ModuleType) -> Any:
    return getattr(library, "Valkey", None) or library.Redis


def no_retries(library: ModuleType) -> Any:
    """Turn off the library's retries, which would exceed the deadline."""
    retry = need(f"{library.__name__}.retry", library.__name__, library.__name__)
    backoff = need(f"{library.__name__}.backoff", library.__name__, library.__name__)
    return retry.Retry(backoff.NoBackoff(), 0)


def default_deadline(library: ModuleType) -> float | None:
    """Seconds that a call may take by default; if Weir replaces ``limits``, as in ``limits``."""
    if not replaces_flask_limiter():
        return base.DEADLINE
    settings = inspect.signature(library.connection.AbstractConnection.__init__).parameters
    timeout = settings["socket_timeout"].default
    return timeout if isinstance(timeout, int | float) else None


def with_deadline(options: dict[str, Any], library: ModuleType, **defaults: Any) -> dict[str, Any]:
    timeout = options.get("socket_timeout", default_deadline(library))
    timeout = seconds(timeout, "socket_timeout")
    return {
        **defaults,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": no_retries(library),
        **options,
    }


class Remembering(KeyedStorage):
    """Base of the Redis stores: commands, cached denials, errors."""

    PEEKS = True

    times_itself = True

    #: Seconds that a call may take; ``None``: no deadline.
    deadline: float | None

    def __init__(
        self,
        uri: str | None,
        key_prefix: str | bytes,
        remember_denials: float,
        options: dict[str, Any],
    ) -> None:
        super().__init__(uri, **options)
        check_uri(uri or "")
        self.name = shown(uri or "redis://")
        prefix = key_prefix if isinstance(key_prefix, bytes) else key_prefix.encode()
        try:
            self._codec = RedisCodec(prefix)
        except ValueError as error:
            raise ConfigurationError(f"key_prefix: {error}") from None
        self._remember = seconds(remember_denials or None, "remember_denials") or 0.0
        self._denials = Denials(self._remember)
        #: Encodes the arguments of :meth:`decide`; see :meth:`decide_command`.
        self.encode = self._codec.decide

    def set_clock(self, seconds: float = 0.0, given: bool = False) -> None:
        """For tests: move the server's clock by ``seconds``; if ``given``, they are its time.

        This affects later calls through this store only. While the time is set, denials are not
        cached.
        """
        self._codec.set_clock(seconds, given)
        self._denials.clear()
        self._denials.seconds = 0.0 if given else self._remember

    def drop_denials(self) -> None:
        """Drop cached denials: the next request of each client is sent to the server."""
        self._denials.clear()

    def decide(
        self,
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        return self.decide_command(self.encode(limits, keys, costs, mode), mode, monotonic())

    def decide_prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, /
    ) -> None:
        check = evaluation.check
        apart = parts & (check.shadows | (check.peeked | check.deferred if mode == EACH else 0))
        if apart and not settling:
            decide_by_parts(self, evaluation, mode, parts, settling)
            return
        started_at = monotonic()
        command = self._codec.prepared(evaluation, mode, parts, settling)
        evaluation.keep(parts, self.decide_command(command, mode, started_at), settling)

    def decide_command(self, command: RedisCommand, mode: int, started_at: float) -> Decision:
        """Decide an encoded request, unless its denial is cached.

        started_at: when the call began, in monotonic seconds; its deadline counts from then.
        """
        denials = self._denials
        if denials.entries and mode <= TEST:
            known = denials.get(command.digest(), started_at)
            if known is not None:
                if denials.must_verify(started_at):
                    known = self._verify(command, known, started_at)
                return known
        decision = cast(Decision, self._request(command, started_at, mode == TEST))
        if self.observe is not None:
            self.observe(monotonic() - started_at)
        if mode in (EACH, REFUND) and denials.entries:
            # Cached denials of these counters may report a limit that does not deny any more.
            denials.remove(names_of(command))
        elif not decision.allowed and mode <= TEST and denials.seconds > 0:
            denials.add(command.digest(), names_of(command), started_at, decision)
        return decision

    def _verify(self, command: RedisCommand, known: Decision, started_at: float) -> Decision:
        """Verify a cached denial with the server, whose counters may have been deleted."""
        try:
            decision = cast(Decision, self._request(command, started_at))
        except StorageError:
            return known
        if decision.allowed:
            self._denials.clear()
        return decision

    def clear(self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /) -> None:
        command = self._codec.clear(limits, keys)
        try:
            self._request(command, monotonic())
        finally:
            self._denials.remove(names_of(command))

    #: The ``maxmemory-policy`` of a server that may drop counters when it is full; "": none.
    evicts_by: str = ""

    def _warn_of_eviction(self, policy: str) -> None:
        if not self.evicts_by:
            self.evicts_by = policy
            logger.warning("%s: %s", self.name, EVICTS % policy)

    def _request(
        self, command: RedisCommand, started_at: float, harmless: bool = False
    ) -> Decision | bool:
        """The server's answer.

        harmless: the command changes nothing, so it may be executed twice.
        """
        raise NotImplementedError

    def check(self) -> bool:
        """Whether the server answers within the deadline and accepts writes; a replica does not."""
        try:
            self._request(self.encode([_CHECK], "check", [1], HIT), monotonic())
            self._request(self._codec.clear([_CHECK], "check"), monotonic())
        except StorageError:
            return False
        return True

    def _pattern(self, own: str = "") -> bytes:
        """The names of all counters, or of those of an application of weir.flask, for SCAN."""
        rest = b"*/" + _literal(join_key(own).encode()) + b"}/*" if own else b"*"
        return _literal(self._codec.prefix) + b":[cfmstl][wb]:{" + rest


def names_of(command: RedisCommand) -> list[bytes]:
    arguments = command.arguments()
    return arguments[1:] if arguments[0] == b"DEL" else arguments[3:-1]


def _literal(text: bytes) -> bytes:
    """A text in a pattern."""
    return re.sub(rb"[*?\[\]\\^-]", rb"\\\g<0>", text)


def is_of(own: str, others: Collection[str]) -> Callable[[bytes | str], bool]:
    """Whether a counter's name is that of an application, and not of one of the others.

    The key of an application without a prefix begins with the client.
    """
    tags = tuple(f"/{join_key(other)}}}/" for other in others if other)

    def decide(name: bytes | str) -> bool:
        text = name.decode(errors="replace") if isinstance(name, bytes) else name
        tag = text.partition(":{")[2].partition("/")[2]
        return not f"/{tag}".startswith(tags)

    return (lambda _: True) if own or not tags else decide


def delete_names(
    client: Any, pattern: bytes, wanted: Callable[[bytes | str], bool]
) -> Iterator[int]:
    names: list[bytes] = []
    for name in client.scan_iter(match=pattern, count=500):
        if not wanted(name):
            continue
        names.append(name)
        if len(names) == 500:
            yield client.unlink(*names)
            names = []
    if names:
        yield client.unlink(*names)
