"""Redis Cluster: the map of slots, and decisions over several slots.

The map of slots is read from the node that answers first, and again in the background after a call
was redirected. No lock is held while a call waits, so callers of a Cluster that does not answer
wait only for their own deadlines.
"""

from __future__ import annotations

import inspect
import logging
import os
import random
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

from .._clock import monotonic
from .._core import HIT, REFUND, TEST, Decision, Evaluation, Limit, RedisCommand, Verdict
from .._log import SeldomLine
from ..errors import ConfigurationError, StorageError
from ..stores.registry import decide_by_parts, deciding
from .base import failure, left_until, need, raise_translated
from .hosts import Hosts, Resolver, scheme_of
from .redis_base import (
    UNBOUNDED,
    Remembering,
    client_class,
    is_of,
    library_of,
    no_retries,
    with_deadline,
)
from .redis_errors import answer_failure, call_failure, errors_of
from .redis_server import Answer, Server, prepare_pool, within

__all__ = ["RedisClusterStorage"]

logger = logging.getLogger("weir")
_uncharged = SeldomLine()

Address = tuple[str, int]

#: Redirections that are followed without a pause. Nodes that do not agree on the owner of a slot,
#: as at the end of a migration, are sent again after a pause, until the deadline.
_HOPS = 3
_PAUSE = 0.01

#: Seconds between two reads of the map of slots.
_FRESH = 0.5

#: Nodes that are queried for the map at the same time.
_NODES_QUERIED = 3


class _SplitError(Exception):
    """The keys of a slot that is being moved are on two nodes: decide limits one by one."""


class _Topology:
    """The map of slots to servers, as reported by the nodes."""

    def __init__(self, startup: Sequence[Address], make: Any) -> None:
        self._startup = list(startup)
        self._make = make
        self.reset()

    def reset(self) -> None:
        """In a child of fork(): do not use the parent's connections and threads."""
        self.servers: dict[Address, Server] = {}
        self.slots: dict[int, Address] = {}
        self._lock = threading.Lock()
        self._loading: threading.Event | None = None
        self._loaded_at = -_FRESH
        self._error: BaseException | None = None
        self.pid = os.getpid()

    def server(self, address: Address) -> Server:
        server = self.servers.get(address)
        if server is None:
            with self._lock:
                server = self.servers.get(address)
                if server is None:
                    server = self.servers[address] = self._make(address)
        return server

    def load(self, end: float | None, seconds: float | None) -> None:
        """Read the map again, unless it was read just now, and wait for it until ``end``."""
        with self._lock:
            if self.slots and monotonic() < self._loaded_at + _FRESH:
                return
            loading = self._loading
            if loading is None:
                loading = self._loading = threading.Event()
                threading.Thread(
                    target=self._load, args=(loading, seconds), name="weir-slots", daemon=True
                ).start()
        loading.wait(None if end is None else max(0.0, end - monotonic()))
        if not self.slots:
            if loading.is_set() and self._error is not None:
                raise self._error
            raise TimeoutError("no node of the Cluster answers in time")

    def load_soon(self, seconds: float | None) -> None:
        """Read the map in the background."""
        with suppress(Exception):
            self.load(monotonic(), seconds)

    def _load(self, loading: threading.Event, seconds: float | None) -> None:
        known = list(self.servers)
        random.shuffle(known)
        addresses = list(dict.fromkeys([*known[:_NODES_QUERIED], *self._startup]))[
            : 2 * _NODES_QUERIED
        ]
        found = threading.Event()
        left = [len(addresses)]

        def load_from(address: Address) -> None:
            try:
                slots = self.server(address).run(partial(_slots, address))
                with self._lock:
                    if not found.is_set() and slots:
                        self.slots = slots
                        self._loaded_at = monotonic()
                        found.set()
            except BaseException as error:
                self._error = error
            with self._lock:
                left[0] -= 1
                if left[0] == 0:
                    found.set()

        for address in addresses:
            threading.Thread(
                target=load_from, args=(address,), name="weir-slots", daemon=True
            ).start()
        found.wait(seconds)
        with self._lock:
            self._loading = None
        loading.set()


def _slots(source: Address, connection: Any) -> dict[int, Address]:
    """The address of the master of each slot that is served."""
    connection.send_command("CLUSTER", "SLOTS")
    slots: dict[int, Address] = {}
    for first, last, master, *_ in connection.read_response():
        host = master[0].decode() if isinstance(master[0], bytes) else master[0]
        address = (host or source[0], int(master[1]))
        slots.update(dict.fromkeys(range(int(first), int(last) + 1), address))
    return slots


def _address(node: Any) -> Address:
    """One of ``startup_nodes``: a ClusterNode, a dict, or a pair."""
    if isinstance(node, dict):
        return str(node["host"]), int(node["port"])
    if isinstance(node, tuple | list):
        return str(node[0]), int(node[1])
    return str(node.host), int(node.port)


class RedisClusterStorage(Remembering):
    """A Cluster. The limits of one client share a slot and are decided in one round trip.

    Limits of several slots are charged one slot after the other, in ascending order, and given back
    if a later slot denies or cannot be reached.

    :param startup_nodes: nodes besides those of the URI
    """

    def __init__(
        self,
        uri: str,
        key_prefix: str | bytes = "weir",
        remember_denials: float = 60.0,
        wrap_exceptions: bool = True,
        startup_nodes: Sequence[Any] = (),
        **options: Any,
    ) -> None:
        super().__init__(uri, key_prefix, remember_denials, options)
        self._library = library_of(uri)
        self._errors = errors_of(self._library)
        self._hosts = Hosts(uri, 6379)
        try:
            nodes = [*self._hosts.addresses, *map(_address, startup_nodes or ())]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                "startup_nodes must be nodes of the client library, or (host, port)"
            ) from error
        if not nodes:
            raise ConfigurationError(f"{self.name}: needs nodes: host:6379,host:6379")
        if not self._hosts.addresses:
            self.name += ",".join(f"{host}:{port}" for host, port in nodes)
        self._nodes = nodes
        self._resolver = Resolver()
        self._node_options = self._options_of_nodes(options)
        self.deadline = self._node_options["socket_timeout"]
        self._topology = _Topology(nodes, self._make_server)
        self._cluster: Any = None
        self._make_server(nodes[0])  # an error for unknown options

    def _options_of_nodes(self, options: dict[str, Any]) -> dict[str, Any]:
        known = inspect.signature(client_class(self._library).__init__).parameters
        return {
            "username": self._hosts.username,
            "password": self._hosts.password,
            **{
                name: value
                for name, value in with_deadline(options, self._library).items()
                if name in known
            },
            "max_connections": UNBOUNDED,
            "retry": no_retries(self._library),
        }

    def _make_server(self, address: Address) -> Server:
        host, port = self.options.get("address_remap", lambda address: address)(address)
        try:
            client = client_class(self._library)(host=host, port=port, **self._node_options)
            pool = client.connection_pool
            prepare_pool(self._library, pool, self._resolver)
            pool.connection_class(**pool.connection_kwargs)  # does not connect
        except (TypeError, self._library.exceptions.RedisError) as error:
            raise ConfigurationError(f"{self.name}: {error}") from None
        return Server(pool, on_eviction_policy=self._warn_of_eviction)

    @property
    def client(self) -> Any:
        """The client of redis-py or valkey-py, connected. Raises the errors of that library."""
        if self._cluster is None:
            self._cluster = within(self.deadline, self._open_client)
        return self._cluster

    @property
    def storage(self) -> Any:
        """The same by the name that ``limits`` has for it."""
        return self.client

    def _open_client(self) -> Any:
        name = self._library.__name__
        cluster = need(f"{name}.cluster", name, scheme_of(self.name))
        kind = getattr(cluster, "ValkeyCluster", None) or cluster.RedisCluster
        options = {
            "username": self._hosts.username,
            "password": self._hosts.password,
            "cluster_error_retry_attempts": 1,
            **with_deadline(self.options, self._library, max_connections=UNBOUNDED),
        }
        retry = options.pop("retry")
        if "retry" in self.options or name == "redis":
            options["retry"] = retry
            options.pop("cluster_error_retry_attempts")
        nodes = [cluster.ClusterNode(*address) for address in self._nodes]
        return kind(startup_nodes=nodes, **options)

    # -- calls

    def _request(
        self, command: RedisCommand, started_at: float, harmless: bool = False
    ) -> Decision | bool:
        deadline = self.deadline
        end = None if deadline is None else started_at + deadline
        try:
            answer = self._request_slot(command, end, harmless)
        except self._errors as error:
            raise_translated(call_failure(self.name, error, self._library, deadline), error)
        if isinstance(answer, str):
            if answer.startswith("TRYAGAIN"):
                raise _SplitError(answer)
            raise answer_failure(self.name, answer)
        if answer is False:
            raise failure(self.name, "the server does not keep the script")
        return answer

    def _request_slot(self, command: RedisCommand, end: float | None, harmless: bool) -> Answer:
        """Send the command to the node of its slot, and follow redirections."""
        topology = self._topology
        if topology.pid != os.getpid():
            topology.reset()
            self._cluster = None
        slot = command.slot()
        if slot not in topology.slots:
            topology.load(end, self.deadline)
        address = topology.slots.get(slot)
        answer: Answer = "CLUSTERDOWN no node serves the slot"
        for hop in count():
            if address is None:
                break
            if hop > _HOPS:
                time.sleep(_PAUSE if end is None else min(_PAUSE, left_until(end) or 0.0))
            try:
                answer = topology.server(address).request(command, left_until(end), end, harmless)
            except (
                ConnectionRefusedError,
                ConnectionAbortedError,
                self._library.exceptions.ConnectionError,
            ) as error:
                # The command was not sent in full; the slot may have moved to another node.
                topology.load(end, self.deadline)
                elsewhere = topology.slots.get(slot)
                if hop > 0 or elsewhere in (address, None):
                    raise error
                address = elsewhere
                continue
            except BaseException:
                topology.load_soon(self.deadline)
                raise
            if not isinstance(answer, str):
                return answer
            followed = self._follow(command, answer, slot, address, end)
            if not isinstance(followed, tuple):
                return followed
            address = followed
        return answer

    def _follow(
        self, command: RedisCommand, answer: str, slot: int, source: Address, end: float | None
    ) -> Answer | Address:
        """The node that an error redirects to, or the reply of that node."""
        topology = self._topology
        code, _, rest = answer.partition(" ")
        if code in ("MOVED", "ASK"):
            host, _, port = rest.partition(" ")[2].rpartition(":")
            address = (host or source[0], int(port))
            if code == "ASK":
                return topology.server(address).request_migrating(command, end)
            topology.slots[slot] = address
            topology.load_soon(self.deadline)
            return address
        if code in ("READONLY", "CLUSTERDOWN", "LOADING", "MASTERDOWN"):
            topology.load_soon(self.deadline)
        return answer

    # -- decisions

    def decide(
        self,
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        started_at = monotonic()
        slots = self._codec.slots(limits, keys)
        apart = set(slots)
        if len(apart) == 1:
            command = self.encode(limits, keys, costs, mode)
            try:
                return self.decide_command(command, mode, started_at)
            except _SplitError as error:
                if len(limits) == 1:
                    raise failure(self.name, str(error), refused=True) from None
            places = [[i] for i in range(len(limits))]
        else:
            places = [[i for i, its in enumerate(slots) if its == slot] for slot in sorted(apart)]
        parts = [_Part(self, its, limits, keys, costs, started_at) for its in places]
        if mode == HIT:
            self._hit_all(parts)
        else:
            for part in parts:
                part.decide(mode)
        verdicts: list[Any] = [None] * len(limits)
        for part in parts:
            for i, verdict in zip(part.places, part.verdicts, strict=True):
                verdicts[i] = verdict
        return Decision(verdicts, deciding(limits, verdicts), parts[0].now)

    def decide_prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, /
    ) -> None:
        decide_by_parts(self, evaluation, mode, parts, settling)

    def _hit_all(self, parts: list[_Part]) -> None:
        """Charge one part after the other; if one denies or fails, give back the charges."""
        for n, part in enumerate(parts):
            try:
                allowed = part.decide(HIT)
            except BaseException:
                if self.deadline is None or monotonic() < part.started_at + self.deadline:
                    _give_back(parts[:n])
                else:  # the deadline of the call has passed
                    threading.Thread(target=_give_back, args=(parts[:n],), daemon=True).start()
                raise
            if not allowed:
                _give_back(parts[:n])
                for later in parts[n + 1 :]:
                    later.decide(TEST)
                return

    def clear(self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /) -> None:
        for i, limit in enumerate(limits):
            super().clear([limit], [_key_at(keys, i)])

    def reset(self) -> int:  # type: ignore[override]
        """Delete all counters with this prefix, some hundred at a time. Return their number."""
        return self.reset_of("", ())

    def reset_of(self, own: str, others: Collection[str]) -> int:
        """Delete the counters of one application; see :meth:`RedisStorage.reset_of`."""
        self._denials.clear()
        count, wanted = 0, is_of(own, others)
        try:
            for node in self.client.get_primaries():
                client = getattr(node, f"{self._library.__name__}_connection")
                for name in client.scan_iter(match=self._pattern(own), count=500):
                    count += client.unlink(name) if wanted(name) else 0
        except self._errors as error:
            raise failure(self.name, error) from error
        return count

    def close(self) -> None:
        """Close all connections."""
        for server in list(self._topology.servers.values()):
            server.close()
        if self._cluster is not None:
            self._cluster.close()


def _give_back(parts: list[_Part]) -> None:
    for part in reversed(parts):
        try:
            part.decide(REFUND, monotonic())
        except StorageError as error:
            _uncharged.warning(
                logger, "%s; %d charged limits could not be given back", error, len(part.places)
            )


class _Part:
    """The limits of a decision that share a slot."""

    def __init__(
        self,
        storage: RedisClusterStorage,
        places: list[int],
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        costs: Sequence[int] | None,
        started_at: float,
    ) -> None:
        self._storage = storage
        self.places = places
        self._limits = [limits[i] for i in places]
        self._keys = [_key_at(keys, i) for i in places]
        self._costs = None if costs is None else [costs[i] for i in places]
        self.started_at = started_at
        self.verdicts: Sequence[Verdict] = ()
        self.now = 0.0

    def decide(self, mode: int, started_at: float | None = None) -> bool:
        """started_at: when the call began, in monotonic seconds, if later than the others."""
        storage = self._storage
        command = storage.encode(self._limits, self._keys, self._costs, mode)
        decision = storage.decide_command(
            command, mode, self.started_at if started_at is None else started_at
        )
        self.verdicts = decision[:]
        self.now = decision.now
        return decision.allowed


def _key_at(keys: str | bytes | Sequence[str | bytes], i: int) -> str | bytes:
    return keys if isinstance(keys, str | bytes) else keys[i]
