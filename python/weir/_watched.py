"""A store on another machine, with a board on this one.

What a table tells beside its counters (how often each limit denied, the heaviest clients, rules
about clients) a remote store does not. So beside it there is a small local table that the workers
of this server share, as with ``auto://``. Before the store is asked, the board's rules are; what
the store said is noted there; and how long it took, and what went wrong.

On Redis and Valkey a thread sees to it once a second, in one of the workers, that the other hosts
know of the board, and that the board knows of rules that were set elsewhere (:mod:`weir.boards`).
It never makes a request wait: the store's deadline is for each of its commands, and nobody waits
for the thread. On Memcached, which has no lists of names, boards and rules are each host's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import threading
import weakref
from collections.abc import Sequence
from typing import Any, cast

from ._auto import open_board
from ._core import EACH, HIT, REFUND, Decision, Evaluation, Limit, Peek, Table, client_form
from ._storage import Keys, Storage, StorageTypes, prepared_decider
from .boards import RULES_MAX, Boards, apply_rules, snapshot
from .errors import ConfigurationError, StorageError
from .observe.stats import StoreMeters
from .stores._common import monotonic, shown

__all__ = ["Watched", "board_for", "board_of", "name_of"]

logger = logging.getLogger("weir")

#: Keys of the table that is a board only.
_BOARD = f"auto://?keys=16384&rules={RULES_MAX}"

#: The meter of a board that tells its workers to forget the denials that they remember.
FORGET = "denials forgotten"

#: Seconds between two looks at what other hosts say.
_BEAT = 1.0

#: Without a request for so long, a process stops looking.
_ASLEEP = 60.0

#: Not counted and known to no rule, since it begins with "!".
_CLAIM = Limit(1, 1, "second", strategy="fixed-window", namespace="!claim")


def board_for(storage: StorageTypes, *, counts: bool = False) -> Table:
    """The table beside ``storage``, a store that is no table.

    counts: whether limits are counted in it while the store is away. Otherwise it is a small one,
    and private to this process if there is no room to share.
    """
    name = name_of(storage)
    if counts:
        return open_board(f"auto://?rules={RULES_MAX}", name, counts=True)
    try:
        return open_board(_BOARD, name, counts=False)
    except StorageError as error:
        logger.warning("each process counts and blocks on its own: %s", error)
        return Table(_BOARD.replace("auto:", "memory:"))


def name_of(storage: object) -> str:
    """A store's name, without user and password."""
    name = getattr(storage, "name", None) or getattr(storage, "uri", None)
    return shown(name) if isinstance(name, str) else type(storage).__name__


def note(
    board: Table,
    limits: Sequence[Limit],
    keys: Keys,
    costs: Sequence[int] | None,
    said: Decision,
    mode: int = HIT,
) -> None:
    """Note what was said of these limits, but not that a look let it pass."""
    if costs is not None and Peek in map(type, costs):
        told = [i for i, cost in enumerate(costs) if type(cost) is not Peek or not said[i].allowed]
        if not told:
            return
        if not isinstance(keys, str | bytes):
            keys = [keys[i] for i in told]
        limits = [limits[i] for i in told]
        said = Decision([said[i] for i in told], 0, said.now)
    if mode != EACH or said.allowed:
        board.record(limits, keys, said)
        return
    # Those that have let it pass were charged, whatever the others say.
    for i, limit in enumerate(limits):
        key = keys if isinstance(keys, str | bytes) else keys[i]
        board.record([limit], key, Decision([said[i]], 0, said.now))


def note_prepared(evaluation: Evaluation, mode: int, parts: int, settling: bool) -> None:
    """Note on the board what was said of parts of a prepared check."""
    if mode != HIT and mode != EACH:
        return
    shadows = 0 if settling else parts & evaluation.check.shadows
    evaluation.record(parts & ~shadows, False, settling)
    if not shadows:
        return
    for i in range(shadows.bit_length()):
        if shadows >> i & 1 and not evaluation.verdict(i).allowed:
            evaluation.record(1 << i, True)


def counted_form(board: Table, client: str) -> str:
    """An IPv6 address as the network that is counted, if an application has noted which that is."""
    prefix = board.ipv6_prefix
    return client if prefix is None or not isinstance(client, str) else client_form(client, prefix)


class Watched(Storage):
    """``storage``, whose decisions are noted on ``board``, whose rules hold for it.

    :param storage: a store that is no table
    :param board: a table that all processes of this server share
    """

    def __init__(self, storage: StorageTypes, board: Table) -> None:
        super().__init__(getattr(storage, "uri", None))
        self.storage = storage
        self.LOOKS = getattr(storage, "LOOKS", False)
        self.board = board
        self.name = name_of(storage)
        self.meters = StoreMeters(board, self.name)
        self._ask = storage.decide
        self._ask_prepared = prepared_decider(storage)
        self._ruled = board.ruled
        self._next_beat = 0.0
        self._forgotten = 0
        self._timed = False
        if isinstance(storage, Storage) and storage.times_itself:
            storage.observe = self.meters.answered
            self._timed = True
        self.beat: Beat | None = None
        with contextlib.suppress(ConfigurationError):
            self.beat = Beat(board, Boards(storage), self.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["storage"], name)

    def decide(
        self,
        limits: Sequence[Limit],
        keys: Keys,
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        decision = None
        if mode != REFUND:
            decision = self._ruled(limits, keys)
        if decision is None:
            began = 0.0 if self._timed else monotonic()
            try:
                decision = self._ask(limits, keys, costs, mode)
            except (StorageError, OSError) as error:
                self.meters.failed(error)
                raise
            if began:
                self.meters.answered(monotonic() - began)
        if mode in (HIT, EACH):
            note(self.board, limits, keys, costs, decision, mode)
        self._tick(decision.now)
        return decision

    def decide_prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, /
    ) -> None:
        if mode == REFUND or not evaluation.rule_match(parts):
            began = 0.0 if self._timed else monotonic()
            try:
                self._ask_prepared(evaluation, mode, parts, settling)
            except (StorageError, OSError) as error:
                self.meters.failed(error)
                raise
            if began:
                self.meters.answered(monotonic() - began)
        note_prepared(evaluation, mode, parts, settling)
        self._tick(evaluation.now)

    def _tick(self, now: float) -> None:
        """Once a second, see to what hosts tell each other."""
        if now >= self._next_beat or now < self._next_beat - 2:
            self._next_beat = now + _BEAT
            self._forget_denials()
            if self.beat is not None:
                self.beat.wake()

    def _forget_denials(self) -> None:
        """Somebody has reset a client: what is remembered of it holds no more."""
        asked = self.board.meter(FORGET)
        if asked != self._forgotten:
            self._forgotten = asked
            forget = getattr(self.storage, "forget_denials", None)
            if forget is not None:
                forget()

    def without_prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, decide: Any
    ) -> None:
        """Decide by ``decide(evaluation, mode, parts, settling)`` while the store is away."""
        if mode == REFUND or not evaluation.rule_match(parts):
            decide(evaluation, mode, parts, settling)
        note_prepared(evaluation, mode, parts, settling)

    def without(
        self, limits: Sequence[Limit], keys: Keys, mode: int, decision: Decision
    ) -> Decision:
        """What ``decision``, made while the store is away, becomes by the rules of the board."""
        if mode == REFUND:
            return decision
        ruled = self._ruled(limits, keys)
        if mode in (HIT, EACH):
            note(self.board, limits, keys, None, ruled or decision, mode)
        return ruled or decision

    def clear(self, limits: Sequence[Limit], keys: Keys, /) -> None:
        self.storage.clear(limits, keys)

    def reset(self) -> Any:
        return self.storage.reset()

    def check(self) -> bool:
        return self.storage.check()

    # -- rules

    def block(self, client: str, until: float | None = None) -> None:
        """Deny everything to ``client``: on all hosts of a Redis, else on this one."""
        self._set_rule(client, "block", until)

    def allow(self, client: str, until: float | None = None) -> None:
        """Let ``client`` through, whatever the limits say."""
        self._set_rule(client, "allow", until)

    def _set_rule(self, client: str, kind: str, until: float | None) -> None:
        client = counted_form(self.board, client)
        if self.beat is not None:
            self.beat.boards.set_rule(client, kind, until)
        (self.board.block if kind == "block" else self.board.allow)(client, until)

    def unlist(self, client: str) -> bool:
        """Take back the rule about ``client``; whether there was one."""
        # The shared one first, as in setting: a server that is away leaves both as they are.
        client = counted_form(self.board, client)
        removed = self.beat is not None and self.beat.boards.remove_rule(client)
        return self.board.unlist(client) or removed


class Beat:
    """Sees once a second to what this host and others tell each other, in a thread.

    All workers of a host try; the first in each second does it.
    """

    def __init__(self, board: Table, boards: Boards, name: str) -> None:
        self.board = board
        self.boards = boards
        self._name = name
        self._reset()
        _beats.add(self)

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._pause = threading.Event()
        self._awake_until = 0.0
        self._rules: str | None = None
        self._forgets = ""
        self._cleaned = monotonic()
        self._failed = False

    @property
    def host(self) -> str:
        """What this host's board is known by: all workers of a server say the same."""
        uri = self.board.uri
        own = f"{socket.gethostname()} {uri}"
        if uri.startswith("memory:"):
            own += f" {os.getpid()}"
        return hashlib.blake2b(own.encode(), digest_size=8).hexdigest()

    def wake(self) -> None:
        """There are requests."""
        self._awake_until = monotonic() + _ASLEEP
        if self._thread is None:
            with self._condition:
                if self._thread is None:
                    self._pause = threading.Event()
                    self._thread = threading.Thread(
                        target=_run,
                        args=(weakref.ref(self), self._pause),
                        name="weir.board",
                        daemon=True,
                    )
                    try:
                        self._thread.start()
                    except RuntimeError:  # no threads here, or not any more
                        self._thread = None

    def stop(self) -> None:
        """Look no more until there are requests again; what was begun is done when this returns."""
        with self._condition:
            self._awake_until = 0.0
            thread = self._thread
            self._pause.set()
        if thread is not None:
            thread.join()

    def once(self, force: bool = False) -> None:
        """Look and tell, if no other worker has in this second. Never raises."""
        try:
            claimed = self.board.decide([_CLAIM], self._name, None, HIT).allowed
            if claimed or force:
                self._sync()
                self.boards.publish(self.host, {"name": socket.gethostname(), **self._snapshot()})
        except Exception as error:
            if not self._failed:
                self._failed = True
                logger.warning("hosts cannot see each other: %s", error)
        else:
            self._failed = self._failed and not claimed

    def _snapshot(self) -> dict[str, Any]:
        return snapshot(self.board)

    def _sync(self) -> None:
        version = self.boards.rules_version()
        if version != self._rules:
            apply_rules(self.board, self.boards.rules())
            self._rules = version
        forgets = self.boards.forgets()
        if forgets and forgets != self._forgets:
            self._forgets = forgets
            self.board.meter(FORGET, 1)
        if monotonic() - self._cleaned > 60:
            self._cleaned = monotonic()
            self.boards.clean()


def _run(reference: weakref.ref[Beat], pause: threading.Event) -> None:
    while True:
        beat = reference()
        if beat is None:
            return
        with beat._condition:
            if monotonic() > beat._awake_until:
                beat._thread = None
                return
        beat.once()
        del beat
        pause.wait(_BEAT)


_beats: weakref.WeakSet[Beat] = weakref.WeakSet()


def _after_fork() -> None:
    for beat in list(_beats):
        beat._reset()


os.register_at_fork(after_in_child=_after_fork)


def board_of(storage: object) -> Table | None:
    """The table that tells of a store: the store itself, or the one beside it."""
    if isinstance(storage, Table):
        return storage
    return cast("Table | None", getattr(storage, "board", None))
