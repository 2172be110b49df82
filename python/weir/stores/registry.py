"""Stores: the interface, the base class, and which class opens a URI. See :mod:`weir.storage`."""

from __future__ import annotations

import functools
import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol, TypeAlias, cast, runtime_checkable
from urllib.parse import urlencode

from .._core import EACH, HIT, TEST, Decision, Evaluation, Limit, Peek, Table
from .._deciding import Keys, checks, deciding
from ..counters import Counters, Counts, StorageInterface
from ..errors import ConfigurationError, warn
from ..storage_methods import METHODS, StoreType, honour_own_methods, not_replaced

__all__ = [
    "SCHEMES",
    "Keys",
    "MemoryStorage",
    "Storage",
    "StorageTypes",
    "checks",
    "deciding",
    "register",
    "storage_from_string",
]


@runtime_checkable
class StorageTypes(Protocol):
    """What a limiter needs of its store; :class:`weir.Table` and :class:`Storage` have it."""

    def decide(
        self,
        limits: Sequence[Limit],
        keys: Keys,
        costs: Sequence[int] | None = None,
        mode: int = ...,
        /,
    ) -> Decision: ...

    def clear(self, limits: Sequence[Limit], keys: Keys, /) -> None: ...

    def reset(self) -> None: ...

    def check(self) -> bool: ...


def register_schemes(cls: Any) -> None:
    """Register what a class says that it opens: one scheme, or several."""
    schemes = cls.__dict__.get("STORAGE_SCHEME") or ()
    for scheme in [schemes] if isinstance(schemes, str) else schemes:
        register(scheme, cls)


class Storage(ABC):
    """Base of stores written in Python. Naming ``STORAGE_SCHEME`` registers the class.

    A store is made by ``cls(uri, **options)``. Errors that mean "the store is away" should be
    raised as :class:`weir.errors.StorageError`; what a limiter does then is its policy.
    """

    #: Whether ``observe`` is called with the seconds that each trip to the store took.
    times_itself: ClassVar[bool] = False
    observe: Callable[[float], None] | None = None

    #: Schemes of the URIs that :func:`storage_from_string` gives to this class.
    STORAGE_SCHEME: ClassVar[Sequence[str]] = ()

    #: Whether :meth:`decide` accepts costs of the class :class:`weir.Peek`. ``LOOKS`` is its
    #: earlier name.
    PEEKS: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register_schemes(cls)

    def __init__(self, uri: str | None = None, **options: Any) -> None:
        self.uri = uri
        self.options = options

    @abstractmethod
    def decide(
        self,
        limits: Sequence[Limit],
        keys: Keys,
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        """Decide all limits at once, all or nothing.

        limits: 1 to 32. Each has its strategy set, or ``None`` for a fixed window.
        keys: one for each limit, its identifiers joined as by :func:`weir.join_key`; or one str
        or bytes for all. What counts for limit and key is named uniquely by
        ``limit.full_key(key)`` and the limit's strategy: ``LIMITER/alice/10/1/minute``.
        costs: one for each limit, 0 or more; ``None``: 1 each. A :class:`weir.Peek` is not charged,
        but denies as others do. Only a class that sets ``PEEKS`` receives such costs.
        mode: ``HIT``, ``TEST`` (charge nothing), ``EACH`` (charge what has room even if another
        limit denies) or ``REFUND`` (give back, never above full; always allowed).

        A limit of amount N admits N hits of cost 1 from a fresh counter. ``retry_after`` is a
        promise: the same request passes then, if no other request came between. See
        :class:`weir.Verdict`.
        """

    def decide_prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, /
    ) -> None:
        """Decide parts of a prepared check; by :meth:`decide`, unless a class knows a better way.

        evaluation: knows limits, keys and costs, and is given the verdicts. parts: mask of the
        limits that take part. settling: charge (``EACH``) or give back (``REFUND``) them whatever
        their roles, and keep only the verdicts that allow.
        """
        decide_by_parts(self, evaluation, mode, parts, settling)

    @abstractmethod
    def clear(self, limits: Sequence[Limit], keys: Keys, /) -> None:
        """Forget these counters. Forgetting what is not there is no error."""

    def reset(self) -> None:
        """Forget every counter. Optional."""
        raise NotImplementedError(f"{type(self).__name__} cannot be reset")

    def check(self) -> bool:
        """Whether the store can be asked."""
        return True

    def init(self) -> None:  # noqa: B027 (few have anything to do)
        """Create what the store needs on its server: ``weir store init``. Most need nothing."""

    def init_text(self) -> str:
        """What :meth:`init` would run there, for those who run it themselves."""
        return ""


Storage.register(Table)


class KeyedStorage(StorageInterface, Storage, metaclass=StoreType):
    """Base of the stores that also have the methods of a storage of ``limits``."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        clear: Any = cls.clear
        if not getattr(clear, "takes_key", False):

            @functools.wraps(clear)
            def clear_any(self: Any, limits: Any, keys: Any = None, /) -> None:
                if keys is None and isinstance(limits, str):
                    self.clear_key(limits)
                else:
                    clear(self, limits, keys)

            clear_any.takes_key = True  # type: ignore[attr-defined]
            cls.clear = clear_any  # type: ignore[method-assign]
        if honour_own_methods(cls, StorageInterface):
            cls.decide_prepared = Storage.decide_prepared  # type: ignore[method-assign]


def supports_peek(storage: object) -> bool:
    """Whether a store's ``decide()`` accepts costs of the class :class:`weir.Peek`."""
    return bool(getattr(storage, "PEEKS", False) or getattr(storage, "LOOKS", False))


#: ``decide_prepared(evaluation, mode, parts, settling)`` of a store.
DecidePrepared: TypeAlias = "Callable[[Evaluation, int, int, bool], object]"


def prepared_decider(storage: StorageTypes) -> DecidePrepared:
    """How a store of any kind decides parts of a prepared check."""
    if type(storage).decide is Table.decide:
        return lambda evaluation, mode, parts, settling: evaluation.decide_on(
            storage, mode, parts, settling
        )
    own: DecidePrepared | None = getattr(storage, "decide_prepared", None)
    return own or partial(decide_by_parts, storage)


class Decides(Protocol):
    """A store, of which only decisions are asked."""

    def decide(
        self,
        limits: Sequence[Limit],
        keys: Keys,
        costs: Sequence[int] | None = None,
        mode: int = ...,
        /,
    ) -> Decision: ...


def decide_by_parts(
    storage: Decides, evaluation: Evaluation, mode: int, parts: int, settling: bool
) -> None:
    """The same by ``storage.decide()``, in as few calls as the roles of the limits need."""
    check = evaluation.check

    def ask(mask: int, mode: int, peeked: int = 0) -> bool:
        indices, limits, keys, costs = evaluation.checks(mask)
        if peeked:
            costs = [Peek(c) if peeked >> i & 1 else c for i, c in zip(indices, costs, strict=True)]
        return evaluation.keep(indices, storage.decide(limits, keys, costs, mode), settling)

    def peek(mask: int) -> bool:
        """Each limit by itself, but in one call: a test adds up what one counter is asked for."""
        indices, limits, keys, _ = evaluation.checks(mask)
        first: dict[tuple[Limit, str], int] = {}
        for i, limit, key in zip(indices, limits, keys, strict=True):
            first.setdefault((limit, key), i)
        once = sum(1 << i for i in first.values())
        allowed = ask(once, TEST)
        return (peek(mask & ~once) and allowed) if mask & ~once else allowed

    if settling or mode not in (HIT, EACH):
        ask(parts, mode)
        return
    shadows = parts & check.shadows
    peeked = parts & (check.peeked | check.deferred)
    charged = parts & ~shadows & ~peeked
    allowed = True
    if peeked and charged and supports_peek(storage) and mode == HIT:
        allowed = ask(peeked | charged, mode, peeked)
    else:
        may_charge = True
        for mask, holds_back in (
            (peeked & check.peeked, True),
            (peeked & check.deferred, mode == HIT),
        ):
            if mask and not peek(mask):
                allowed = False
                may_charge = may_charge and not holds_back
        if charged:
            allowed = ask(charged, mode if may_charge else TEST) and allowed
    for i in range(shadows.bit_length()):
        if shadows >> i & 1:
            ask(1 << i, HIT if allowed or mode == EACH else TEST)


class TableStorage(StorageInterface, Table, metaclass=StoreType):
    """A table with the methods that a storage of ``limits`` has.

    Tests may replace ``check`` or ``reset`` of an instance, and not what would not be called.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name in METHODS or name == "decide":
            raise AttributeError(not_replaced(name))
        super().__setattr__(name, value)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register_schemes(cls)
        honour_own_methods(cls, TableStorage)

    @property
    def storage(self) -> Counts:
        """The counters by their keys, as ``storage.storage[key]``."""
        return Counts(Counters(self))

    def reset(self) -> int:  # type: ignore[override]
        """Forget every counter; how many there were."""
        count = self.info()["keys"]
        super().reset()
        return count


class MemoryStorage(TableStorage):
    """``memory://`` by the name that ``limits`` gives it."""

    @property
    def expirations(self) -> Counts:
        """What tests clear beside ``storage``; the same."""
        return self.storage

    @property
    def events(self) -> Counts:
        """The same."""
        return self.storage

    def __new__(cls, uri: str | None = None, *_: Any, **options: Any) -> MemoryStorage:
        return super().__new__(cls, with_sizes(uri or "memory://", options))

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **_: Any) -> None:
        self.wrap_exceptions = wrap_exceptions

    def __reduce__(self) -> Any:
        warn("a MemoryStorage is pickled without its counters: the copy begins anew")
        return type(self), (self.uri,), {"wrap_exceptions": self.wrap_exceptions}


Factory = Callable[..., StorageTypes]

#: Who makes the stores of a scheme: a callable, or where to import one from (``"module:name"``).
SCHEMES: dict[str, Factory | str] = {
    "auto": "weir.stores.auto:open_auto",
    "memory": cast("Factory", MemoryStorage),
}


#: What tables can be told: their size, and the group that shares them.
SIZES = ("keys", "hits", "rules", "group")


def with_sizes(uri: str, options: dict[str, Any]) -> str:
    """The URI with the options that tables know; others are ignored, as ``limits`` does."""
    sizes = {name: options[name] for name in SIZES if options.get(name) is not None}
    if not sizes:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(sizes)}"


def _open_table(uri: str, **options: Any) -> Table:
    return TableStorage(with_sizes(uri, options))


SCHEMES["shm"] = _open_table
SCHEMES["file"] = _open_table

SCHEMES["memcached"] = "weir.stores.memcached:MemcachedStorage"
SCHEMES["mongodb"] = SCHEMES["mongodb+srv"] = "weir.stores.mongodb:MongoDBStorage"
SCHEMES["postgresql"] = SCHEMES["postgres"] = "weir.stores.postgresql:PostgreSQLStorage"
for _server in ("redis", "valkey"):
    SCHEMES[_server] = "weir.stores.redis:RedisStorage"
    SCHEMES[f"{_server}s"] = "weir.stores.redis:RedisStorage"
    SCHEMES[f"{_server}+unix"] = "weir.stores.redis:RedisStorage"
    SCHEMES[f"{_server}+sentinel"] = "weir.stores.redis:RedisSentinelStorage"
    SCHEMES[f"{_server}+cluster"] = "weir.stores.redis_cluster:RedisClusterStorage"


for _scheme in ("memory", "auto", "shm", "file"):
    SCHEMES[f"async+{_scheme}"] = "weir.aio.storage:LocalStorage"
for _scheme, _place in list(SCHEMES.items()):
    if isinstance(_place, str) and _place.startswith("weir.stores.redis"):
        SCHEMES[f"async+{_scheme}"] = f"weir.aio.storage:{_place.partition(':')[2]}"
for _scheme in ("memcached", "postgresql", "postgres", "mongodb", "mongodb+srv"):
    SCHEMES[f"async+{_scheme}"] = "weir.aio.storage:ThreadedStorage"


def register(scheme: str, factory: Factory | str) -> None:
    """Let ``scheme://…`` URIs be opened by ``factory(uri, **options)``.

    factory: a callable that returns a store, or its place as ``"module:name"``, imported when first
    needed.
    """
    SCHEMES[scheme] = factory


#: Names of the entry points of packages, and of the environment variable, that bring stores.
_ENTRY_POINTS, _VARIABLE = "weir.stores", "WEIR_STORES"


def is_known(scheme: str) -> bool:
    """Whether stores of that scheme can be opened.

    Beside those that were registered: entry points ``weir.stores`` of installed packages, whose
    names are schemes, and the modules that ``WEIR_STORES`` names, which register theirs as they are
    imported. So commands such as ``weir top`` know the stores of an application.
    """
    if scheme in SCHEMES:
        return True
    for point in entry_points(group=_ENTRY_POINTS):
        if point.name == scheme:
            register(scheme, point.value)
            return True
    for module in filter(None, os.environ.get(_VARIABLE, "").split(",")):
        try:
            importlib.import_module(module.strip())
        except ImportError as error:
            raise ConfigurationError(f"{_VARIABLE}: {module.strip()}: {error}") from error
    return scheme in SCHEMES


def _factory_of(scheme: str) -> Factory:
    factory = SCHEMES[scheme]
    if isinstance(factory, str):
        module, _, name = factory.partition(":")
        factory = cast(Factory, getattr(importlib.import_module(module), name))
        SCHEMES[scheme] = factory
    return factory


def known_schemes() -> str:
    """The schemes there are, for errors; those with ``async+`` are not repeated."""
    names = sorted(name for name in SCHEMES if not name.startswith("async+"))
    return ", ".join(f"{name}://" for name in names)


def storage_from_string(storage_string: str, **options: Any) -> StorageTypes:
    """Open the store that a URI names.

    options: handed on to the store. Local ones know ``keys``, ``hits``, ``rules`` and ``group``
    and ignore the rest.
    Raises :class:`weir.errors.ConfigurationError` for an unknown scheme,
    :class:`weir.errors.ParseError` for a URI that cannot be read and
    :class:`weir.errors.StorageError` for a store that cannot be opened.

    >>> storage_from_string("memory://", keys=1000).check()
    True
    """
    scheme = storage_string.partition("://")[0]
    if scheme == storage_string or not is_known(scheme):
        # Not the URI itself: it may hold a password.
        known = known_schemes()
        raise ConfigurationError(
            f"unknown storage scheme {scheme[:40]!r}: one of {known}"
            if scheme != storage_string
            else f"a storage URI begins with its scheme: one of {known}"
        )
    return _factory_of(scheme)(storage_string, **options)
