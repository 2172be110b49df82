"""Stores: the interface, the base class, and which class opens a URI. See :mod:`weir.storage`."""

from __future__ import annotations

import importlib
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol, TypeAlias, cast, runtime_checkable
from urllib.parse import urlencode

from .._core import EACH, HIT, TEST, Decision, Evaluation, Limit, Peek, Table, deciding
from .._deciding import Keys, checks
from ..counters import Counters, Counts, StorageInterface
from ..errors import ConfigurationError, warn
from ..storage_methods import METHODS, StoreType, honour_own_clear, honour_own_methods, not_replaced

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
    """The methods that a limiter needs; :class:`weir.Table` and :class:`Storage` have them."""

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
    """Register a class for the schemes in its ``STORAGE_SCHEME``, one or several."""
    schemes = cls.__dict__.get("STORAGE_SCHEME") or ()
    for scheme in [schemes] if isinstance(schemes, str) else schemes:
        register(scheme, cls)


class Storage(ABC):
    """Base of stores written in Python. Naming ``STORAGE_SCHEME`` registers the class.

    A store is created by ``cls(uri, **options)``. For an outage, raise
    :class:`weir.errors.StorageError`; the policy of the limiter then applies.
    """

    #: Whether the store itself calls ``observe`` with the seconds of each round trip.
    times_itself: ClassVar[bool] = False
    observe: Callable[[float], None] | None = None

    #: URI schemes for which :func:`storage_from_string` uses this class.
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
        or bytes for all. A counter is identified by ``limit.full_key(key)``, such as
        ``LIMITER/alice/10/1/minute``, and the limit's strategy.
        costs: one for each limit, 0 or more; ``None``: 1 each. A :class:`weir.Peek` is not charged,
        but denies as others do. Only a class that sets ``PEEKS`` receives such costs.
        mode: ``HIT``, ``TEST`` (charge nothing), ``EACH`` (charge what has room even if another
        limit denies) or ``REFUND`` (give back, never above full; always allowed).

        A limit of amount N admits N hits of cost 1 from a new counter. ``retry_after`` is exact:
        the same request passes at that time, unless another request came first. See
        :class:`weir.Verdict`.
        """

    def decide_prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, /
    ) -> None:
        """Decide parts of a prepared check. By default this calls :meth:`decide`.

        evaluation: has limits, keys and costs, and receives the verdicts. parts: mask of the limits
        to decide. settling: charge (``EACH``) or give back (``REFUND``) them regardless of their
        roles, and keep only the verdicts that allow.
        """
        decide_by_parts(self, evaluation, mode, parts, settling)

    @abstractmethod
    def clear(self, limits: Sequence[Limit], keys: Keys, /) -> None:
        """Delete these counters. It is not an error if they do not exist."""

    def reset(self) -> None:
        """Delete all counters. Optional."""
        raise NotImplementedError(f"{type(self).__name__} cannot be reset")

    def check(self) -> bool:
        """Whether the store answers."""
        return True

    def init(self) -> None:  # noqa: B027 (few have anything to do)
        """Create what the store needs on its server (``weir store init``). Optional."""

    def init_text(self) -> str:
        """The commands that :meth:`init` would run on the server."""
        return ""


Storage.register(Table)


class KeyedStorage(StorageInterface, Storage, metaclass=StoreType):
    """Base of the stores that also have the methods of a storage of ``limits``."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        honour_own_clear(cls)
        if honour_own_methods(cls, StorageInterface):
            cls.decide_prepared = Storage.decide_prepared  # type: ignore[method-assign]


def supports_peek(storage: object) -> bool:
    """Whether a store's ``decide()`` accepts costs of the class :class:`weir.Peek`."""
    return bool(getattr(storage, "PEEKS", False) or getattr(storage, "LOOKS", False))


#: ``decide_prepared(evaluation, mode, parts, settling)`` of a store.
DecidePrepared: TypeAlias = "Callable[[Evaluation, int, int, bool], object]"


def prepared_decider(storage: StorageTypes) -> DecidePrepared:
    """The function by which a store of any kind decides parts of a prepared check."""
    if type(storage).decide is Table.decide:
        return lambda evaluation, mode, parts, settling: evaluation.decide_on(
            storage, mode, parts, settling
        )
    own: DecidePrepared | None = getattr(storage, "decide_prepared", None)
    return own or partial(decide_by_parts, storage)


class Decides(Protocol):
    """The one method of a store that decisions need."""

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
    """Decide parts of a prepared check by ``decide()``, in as few calls as their roles need."""
    check = evaluation.check

    def decide(mask: int, mode: int, peeked: int = 0) -> bool:
        indices, limits, keys, costs = evaluation.checks(mask)
        if peeked:
            costs = [Peek(c) if peeked >> i & 1 else c for i, c in zip(indices, costs, strict=True)]
        return evaluation.keep(indices, storage.decide(limits, keys, costs, mode), settling)

    def peek(mask: int) -> bool:
        """Test limits separately: in one test, the costs of one counter are added."""
        indices, limits, keys, _ = evaluation.checks(mask)
        first: dict[tuple[Limit, str], int] = {}
        for i, limit, key in zip(indices, limits, keys, strict=True):
            first.setdefault((limit, key), i)
        once = sum(1 << i for i in first.values())
        allowed = decide(once, TEST)
        return (peek(mask & ~once) and allowed) if mask & ~once else allowed

    if settling or mode not in (HIT, EACH):
        decide(parts, mode)
        return
    shadows = parts & check.shadows
    peeked = parts & (check.peeked | check.deferred)
    charged = parts & ~shadows & ~peeked
    allowed = True
    if peeked and charged and supports_peek(storage) and mode == HIT:
        allowed = decide(peeked | charged, mode, peeked)
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
            allowed = decide(charged, mode if may_charge else TEST) and allowed
    for i in range(shadows.bit_length()):
        if shadows >> i & 1:
            decide(1 << i, HIT if allowed or mode == EACH else TEST)


class TableStorage(StorageInterface, Table, metaclass=StoreType):
    """A table with the methods that a storage of ``limits`` has.

    Tests may replace ``check`` and ``reset`` of an instance; other methods would not be called.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name in METHODS or name == "decide":
            raise AttributeError(not_replaced(name))
        super().__setattr__(name, value)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register_schemes(cls)
        honour_own_clear(cls)
        honour_own_methods(cls, TableStorage)

    @property
    def storage(self) -> Counts:
        """The counters by key: ``storage.storage[key]``."""
        return Counts(Counters(self))

    def reset(self) -> int:  # type: ignore[override]
        """Delete all counters. Return their number."""
        count = Counters(self).count()
        super().reset()
        return count


class MemoryStorage(TableStorage):
    """``memory://``, under its name in ``limits``."""

    @property
    def expirations(self) -> Counts:
        """What tests clear beside ``storage``; the same."""
        return self.storage

    @property
    def events(self) -> Counts:
        """The same."""
        return self.storage

    def __new__(cls, uri: str | None = None, *_: Any, **options: Any) -> MemoryStorage:
        return super().__new__(cls, with_sizes(_without_name(cls._own(uri)), options))

    @classmethod
    def _own(cls, uri: str | None) -> str:
        """The URI; ``memory:`` in place of a scheme that a subclass has defined."""
        scheme, _, rest = (uri or "memory://").partition(":")
        schemes = getattr(cls, "STORAGE_SCHEME", None) or ()
        known = [schemes] if isinstance(schemes, str) else schemes
        return f"{'memory' if scheme in known else scheme}:{rest}"

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **_: Any) -> None:
        self.wrap_exceptions = wrap_exceptions

    def __copy__(self) -> MemoryStorage:
        """The storage itself: in ``limits``, a shallow copy shares its counters, too."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        return vars(self).copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __reduce__(self) -> Any:
        arguments = (type(self), self.uri, zlib.compress(self._save(), 1))
        return load_memory, arguments, self.__getstate__()


#: More than the largest table that can be saved.
_SAVED_MAX = 257 << 20


def load_memory(cls: type[MemoryStorage], uri: str, packed: bytes) -> MemoryStorage:
    """The storage that was pickled.

    Raises :class:`weir.TableError` if it was pickled by another version of Weir, and ``ValueError``
    if the bytes are damaged.
    """
    unpacking = zlib.decompressobj()
    try:
        saved = unpacking.decompress(packed, _SAVED_MAX)
    except zlib.error as error:
        raise ValueError(f"a pickled MemoryStorage is damaged: {error}") from None
    if not unpacking.eof:
        raise ValueError("a pickled MemoryStorage is truncated or too large")
    # Not __init__(), which pickle does not call either.
    return Table.__new__(cls, uri, _saved=saved)


Factory = Callable[..., StorageTypes]

#: The factory of each scheme: a callable, or where to import it from (``"module:name"``).
SCHEMES: dict[str, Factory | str] = {
    "auto": "weir.stores.auto:open_auto",
    "memory": cast("Factory", MemoryStorage),
}


#: The options of tables: their size, and the group that shares them.
SIZES = ("keys", "hits", "rules", "group")


def with_sizes(uri: str, options: dict[str, Any]) -> str:
    """The URI with the options of tables added; others are ignored, as in ``limits``."""
    sizes = {name: options[name] for name in SIZES if options.get(name) is not None}
    if not sizes:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(sizes)}"


_any_options = False


def memory_as_in_limits() -> None:
    """Let ``memory://`` URIs have any options, for :mod:`weir.compat`: ``limits`` ignores them."""
    global _any_options
    _any_options = True


def _without_name(uri: str) -> str:
    """The URI of a table of this process. ``limits`` accepts any text after ``memory:``."""
    if not uri.startswith("memory:"):
        return uri
    _, _, query = uri.partition("?")
    options = query.split("&") if query else []
    if _any_options:
        options = query.partition("#")[0].split("&")
        unknown = [one for one in options if one.partition("=")[0] not in SIZES]
        if any(unknown):
            warn(f"memory://: these options have no effect: {', '.join(filter(None, unknown))}")
        options = [one for one in options if one not in unknown]
    return f"memory://?{'&'.join(options)}" if options else "memory://"


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


for _scheme in ("auto", "shm", "file"):
    SCHEMES[f"async+{_scheme}"] = "weir.aio.storage:LocalStorage"
SCHEMES["async+memory"] = "weir.aio.storage:MemoryStorage"
SCHEMES["async+memcached"] = "weir.aio.storage:MemcachedStorage"
SCHEMES["async+mongodb"] = SCHEMES["async+mongodb+srv"] = "weir.aio.storage:MongoDBStorage"
for _scheme, _place in list(SCHEMES.items()):
    if isinstance(_place, str) and _place.startswith("weir.stores.redis"):
        SCHEMES[f"async+{_scheme}"] = f"weir.aio.storage:{_place.partition(':')[2]}"


def register(scheme: str, factory: Factory | str) -> None:
    """Let ``scheme://…`` URIs be opened by ``factory(uri, **options)``.

    factory: a callable that returns a store, or ``"module:name"``, which is imported when it is
    first needed.
    """
    SCHEMES[scheme] = factory


#: The group of entry points, and the environment variable, that name further stores.
_ENTRY_POINTS, _VARIABLE = "weir.stores", "WEIR_STORES"


def is_known(scheme: str) -> bool:
    """Whether stores of that scheme can be opened.

    A scheme is known if it is registered, if an installed package has an entry point of that name
    in ``weir.stores``, or if a module that ``WEIR_STORES`` names registers it when imported. So
    commands such as ``weir top`` can open the stores of an application.
    """
    if scheme in SCHEMES:
        return True
    plain = scheme.removeprefix("async+")
    if plain != scheme:
        if is_known(plain):  # called in threads
            SCHEMES.setdefault(scheme, "weir.aio.storage:ThreadedStorage")
        return scheme in SCHEMES
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
    """The known schemes, for error texts, without those of ``async+``."""
    names = sorted(name for name in SCHEMES if not name.startswith("async+"))
    return ", ".join(f"{name}://" for name in names)


def storage_from_string(storage_string: str, **options: Any) -> StorageTypes:
    """Open the store that a URI names.

    options: passed to the store. Local stores use ``keys``, ``hits``, ``rules`` and ``group`` and
    ignore others.
    Raises :class:`weir.errors.ConfigurationError` for an unknown scheme,
    :class:`weir.errors.ParseError` for a URI that cannot be read and
    :class:`weir.errors.StorageError` for a store that cannot be opened.

    >>> storage_from_string("memory://", keys=1000).check()
    True
    """
    scheme, uri = _with_scheme(storage_string)
    if not scheme or not is_known(scheme):
        # Without the URI itself, which may contain a password.
        known = known_schemes()
        raise ConfigurationError(
            f"unknown storage scheme {scheme[:40]!r}: one of {known}"
            if scheme
            else f"a storage URI begins with its scheme: one of {known}"
        )
    return _factory_of(scheme)(uri, **options)


def _with_scheme(uri: object) -> tuple[str, str]:
    """The scheme of a URI ("": none), and the URI with the scheme in lowercase.

    As in ``limits``, spaces before the URI are ignored, and ``memory:`` needs no slashes.
    """
    if not isinstance(uri, str):
        raise ConfigurationError(f"a storage URI must be a text, not {type(uri).__name__}")
    scheme, _, rest = uri.lstrip().partition(":")
    scheme = scheme.lower()
    if scheme.removeprefix("async+") == "memory" and uri.strip().lower() != scheme:
        rest = f"//{rest.lstrip('/')}"
    return (scheme, f"{scheme}:{rest}") if rest.startswith("//") else ("", uri)
