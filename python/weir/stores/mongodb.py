"""MongoDB: ``mongodb://user:password@host:27017/database``, with pymongo.

Each counter is a document, which is changed only if it is still as it was read. A decision over
several limits changes one document after the other, in the order of their names. If another process
has changed one of them meanwhile, the charges are given back and the decision is repeated. So no
request is admitted beyond a limit and no charge is left over, but in between other requests may be
denied although there is room.

The time is the server's, read twice a minute. A TTL index removes expired documents. The options of
the URI are MongoDB's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from random import random
from typing import Any

from .._clock import monotonic
from .._core import EACH, HIT, REFUND, Decision, Limit, StateRequest
from .._log import SeldomLine
from ..errors import StorageError
from ..stores.registry import Keys, checks, deciding
from .base import DEADLINE, failure, need, seconds
from .hosts import check_uri
from .state import Change, Conflict, StateStorage
from .tenants import KNOWN_TTL, OwnPrefixes

__all__ = ["MongoDBStorage"]

logger = logging.getLogger("weir")
_uncharged = SeldomLine()

#: Seconds after which the server's time is read again.
_ASK_TIME = 30.0

#: Seconds after their expiry for which documents are kept.
_GRACE = 60

#: Error codes that are about one document: WriteConflict, which is tried again; and values that are
#: too large, or refused by a rule of the collection.
_CONFLICT, _OF_A_KEY = 112, (10334, 17280, 17419, 121)

#: Error codes of servers without TTL indexes, such as FerretDB. There, writers remove a few expired
#: documents.
_NOT_IMPLEMENTED, _BATCH = (115, 238), 4

_NO_SUCH_COMMAND = 59

#: Documents that one command of a reset deletes.
_RESET_BATCH = 1000

_LATEST = datetime(9999, 1, 1, tzinfo=timezone.utc)


class MongoDBStorage(StateStorage):
    """Counters in a collection of a database.

    :param uri: ``mongodb://…`` or ``mongodb+srv://…`` as defined by MongoDB
    :param key_prefix: the first part of all names
    :param remember_denials: seconds for which a denial may be repeated from memory; 0: never
    :param socket_timeout: the deadline of a command in seconds
    :param collection: its name
    :param options: for ``pymongo.MongoClient``
    """

    def __init__(
        self,
        uri: str = "mongodb://127.0.0.1:27017/weir",
        key_prefix: str | bytes = "weir",
        remember_denials: float = 60.0,
        socket_timeout: float | None = DEADLINE,
        collection: str = "weir_states",
        wrap_exceptions: bool = True,
        **options: Any,
    ) -> None:
        check_uri(uri)
        super().__init__(uri, key_prefix, remember_denials, **options)
        self._pymongo = need("pymongo", "pymongo", "mongodb")
        self._errors = need("pymongo.errors", "pymongo", "mongodb")
        self.outage = (OSError, self._errors.PyMongoError)  # type: ignore[misc]
        self.deadline = seconds(socket_timeout, "socket_timeout")
        self._name = collection
        self._client: Any = None
        self._states: Any = None
        self._opening = threading.Lock()
        self._current = threading.local()
        self._ahead, self._ahead_until = 0.0, 0.0
        self._sweeps = False
        self._prefixes = OwnPrefixes(self._prefix.decode())

    # -- the server

    def after_fork(self) -> None:
        self._client = self._states = None
        self._opening = threading.Lock()

    def _collection(self) -> Any:
        self.notice_fork()
        with self._opening:
            if self._states is None:
                limits = {} if self.deadline is None else {"timeoutMS": int(self.deadline * 1000)}
                client = self._pymongo.MongoClient(
                    self.uri, appname="weir", tz_aware=True, **{**limits, **self.options}
                )
                try:
                    states = self._prepare(client)
                except BaseException:
                    client.close()
                    raise
                self._client, self._states = client, states
            return self._states

    def _prepare(self, client: Any) -> Any:
        """The collection, with its index."""
        options = {"w": "majority"} if client.options.replica_set_name else {"w": 1}
        states = client.get_default_database(default="weir").get_collection(
            self._name,
            write_concern=self._pymongo.WriteConcern(**options),
            read_preference=self._pymongo.ReadPreference.PRIMARY,
        )
        try:
            states.create_index("expires_at", expireAfterSeconds=_GRACE)
        except self._errors.OperationFailure as error:
            if error.code not in _NOT_IMPLEMENTED:
                raise
            states.create_index("expires_at")
            self._sweeps = True
        return states

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """The collection, and the documents that were read from it."""
        yield self._collection(), {}

    def read(self, transaction: Any, names: Sequence[str]) -> Mapping[str, bytes]:
        states, there = transaction
        for document in states.find({"_id": {"$in": list(names)}}, {"value": 1}):
            value = document.get("value")
            if not isinstance(value, bytes):
                text = f"{document['_id']} holds something that is not a counter"
                raise failure(self.name, text, refused=True)
            there[document["_id"]] = bytes(value)
        found: dict[str, bytes] = there
        return found

    def now(self, transaction: Any) -> float:
        now = monotonic()
        if now >= self._ahead_until:
            theirs = self._their_time()
            self._ahead = theirs - (now + monotonic()) / 2
            self._ahead_until = now + _ASK_TIME
        return monotonic() + self._ahead

    def _their_time(self) -> float:
        try:
            answer = self._client.admin.command("hello")
        except self._errors.OperationFailure as error:
            if error.code != _NO_SUCH_COMMAND:
                raise
            answer = self._client.admin.command("isMaster")  # before MongoDB 4.4.2
        seconds: float = answer["localTime"].timestamp()
        return seconds

    def write(self, transaction: Any, changes: Sequence[Change]) -> None:
        """Write all changes, or none and raise :class:`Conflict`."""
        states, there = transaction
        done: list[Change] = []
        try:
            for change in changes:
                self._swap(states, change.name, there.get(change.name), change)
                done.append(change)
        except BaseException:
            for change in reversed(done):
                self._take_back(states, change, there.get(change.name))
            raise
        if self._sweeps and any(change.name not in there for change in changes):
            self._sweep(states)

    def _sweep(self, states: Any) -> None:
        """Remove a few expired documents."""
        old = {"$lt": datetime.fromtimestamp(monotonic() + self._ahead - _GRACE, timezone.utc)}
        found = states.find({"expires_at": old}, {"_id": 1}).limit(_BATCH)
        names = [document["_id"] for document in found]
        if names:
            states.delete_many({"_id": {"$in": names}, "expires_at": old})

    def _swap(self, states: Any, name: str, was: bytes | None, change: Change) -> None:
        """Apply ``change`` if the document is still as it was read."""
        try:
            if change.value is None:
                done = was is None or states.delete_one({"_id": name, "value": was}).deleted_count
            else:
                moment = min(change.expires_at, _LATEST.timestamp())
                state = {
                    "value": change.value,
                    "expires_at": datetime.fromtimestamp(moment, timezone.utc),
                }
                if was is None:
                    states.insert_one({"_id": name, **state})
                    return
                found = states.update_one({"_id": name, "value": was}, {"$set": state})
                done = found.matched_count
        except self._errors.DuplicateKeyError:
            done = 0
        except self._errors.OperationFailure as error:
            if error.code != _CONFLICT:
                raise
            done = 0
        if not done:
            raise Conflict

    def _take_back(self, states: Any, change: Change, was: bytes | None) -> None:
        """Undo one change. If the document has changed since, give back the charge instead."""
        try:
            try:
                self._swap(states, change.name, change.value, change._replace(value=was))
            except Conflict:
                for limit, key, cost in getattr(self._current, "charges", ()):
                    if self.make_request([limit], key, None, HIT).names[0] == change.name:
                        super().attempt(self.make_request([limit], key, [cost], REFUND))
        except Exception as error:
            if not isinstance(self.failed(error), StorageError):
                raise
            _uncharged.warning(
                logger, "%s; a charged limit could not be given back", self.failed(error)
            )

    # -- decisions

    def decide(
        self,
        limits: Sequence[Limit],
        keys: Keys,
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        if mode in (EACH, REFUND) and len(limits) > 1:
            return self._one_by_one(limits, keys, costs, mode)
        self._current.charges = []
        if mode == HIT and len(limits) > 1:
            requested = checks(limits, keys, costs)
            self._current.charges = [one for one in requested if type(one[2]) is int]
        return super().decide(limits, keys, costs, mode)

    def _one_by_one(
        self, limits: Sequence[Limit], keys: Keys, costs: Sequence[int] | None, mode: int
    ) -> Decision:
        """Decide limits one by one, in modes in which they do not depend on each other."""
        self.make_request(limits, keys, costs, mode)  # raises for invalid arguments
        decisions = [
            super(MongoDBStorage, self).decide([limit], key, [cost], mode)
            for limit, key, cost in checks(limits, keys, costs)
        ]
        verdicts = [decision[0] for decision in decisions]
        return Decision(verdicts, deciding(limits, verdicts), decisions[-1].now)

    def attempt(self, request: StateRequest) -> Decision:
        tries = 0

        def step() -> Decision:
            nonlocal tries
            tries += 1
            self._prefixes.note(self._write_notes)
            if tries > 3:
                time.sleep(random() * 0.001 * min(tries, 16))
            return self._step(request)

        return self._again(step)

    def failed(self, error: BaseException) -> BaseException:
        if isinstance(error, self._errors.OperationFailure) and error.code in _OF_A_KEY:
            return failure(self.name, error, refused=True)
        return super().failed(error)

    # -- the rest

    def note_prefix(self, own: str) -> None:
        """An application of this process has the ``key_prefix`` ``own``."""
        self._prefixes.add(own)

    def _write_notes(self, names: list[str]) -> None:
        until = datetime.now(timezone.utc) + timedelta(seconds=KNOWN_TTL)
        for name in names:
            note = {"$set": {"value": b"", "expires_at": until}}
            self._collection().update_one({"_id": name}, note, upsert=True)

    def reset(self) -> None:
        """Delete all counters with this prefix."""
        with self.translating_errors():
            self._collection().delete_many({"_id": self._names})
        self._denials.clear()

    def reset_of(self, own: str, _: object) -> None:
        """Delete the counters of one application of weir.flask, by its ``key_prefix``.

        Without one: those of no application that has one.
        """
        prefixes = self._prefixes
        with self.translating_errors():
            states = self._collection()
            notes = {"$gte": prefixes.first, "$lt": prefixes.end}
            parts = prefixes.parts(note["_id"] for note in states.find({"_id": notes}, {"_id": 1}))
            if not own and not parts:
                self.reset()
                return
            kept, only = {*parts, ""}, prefixes.part_of(own) if own else None
            wanted = []
            for document in states.find({"_id": self._names}, {"_id": 1}):
                part = prefixes.part(document["_id"])
                if part == only if own else part not in kept:
                    wanted.append(document["_id"])
            for i in range(0, len(wanted), _RESET_BATCH):
                states.delete_many({"_id": {"$in": wanted[i : i + _RESET_BATCH]}})
        self._denials.clear()

    @property
    def _names(self) -> dict[str, str]:
        """The range of the names of counters."""
        prefix = self._prefix.decode()
        return {"$gte": f"{prefix}:", "$lt": f"{prefix};"}

    def close(self) -> None:
        """Close all connections."""
        with self._opening:
            client, self._client, self._states = self._client, None, None
        if client is not None:
            client.close()
