"""Storages written for ``limits``: the base classes that :mod:`weir.compat` gives for theirs.

A class with ``incr``, ``get``, ``get_expiry``, ``check``, ``reset`` and ``clear`` counts fixed
windows; :class:`MovingWindowSupport` and :class:`SlidingWindowCounterSupport` add the other two
strategies of ``limits``. Its ``STORAGE_SCHEME`` registers it, for Flask applications as well.
"""

from __future__ import annotations

import importlib
from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

from ._core import HIT, Decision, Limit, WeirError
from .errors import StorageError, StoreAwayError
from .storage_methods import StoreType, clear_by_methods, decide_by_methods, wrap_errors
from .stores.base import joined
from .stores.registry import (
    SCHEMES,
    MemoryStorage,
    StorageTypes,
    known_schemes,
    storage_from_string,
)
from .stores.registry import Storage as WeirStorage
from .util import LazyDependency

__all__ = [
    "MovingWindowSupport",
    "SlidingWindowCounterSupport",
    "Storage",
    "StorageRegistry",
    "StorageTypes",
    "TimestampedSlidingWindow",
    "storage_from_string",
]

Keys: TypeAlias = str | bytes | Sequence[str | bytes]


class StorageRegistry(StoreType, ABCMeta):
    """The metaclass of storages: every store of Weir is an instance of :class:`Storage`."""

    def _refuse(cls, name: str) -> None:
        """Methods that are set on the class later are called, too."""

    def __instancecheck__(cls, instance: Any) -> bool:
        if cls.__dict__.get("_stands_for_all", False):
            return isinstance(instance, WeirStorage)
        return super().__instancecheck__(instance)


class Storage(LazyDependency, WeirStorage, metaclass=StorageRegistry):
    """Base of storages that count by the methods of ``limits``."""

    _stands_for_all: ClassVar[bool] = True

    #: Limiters check whether it has the methods that their strategy needs.
    counts_by_methods: ClassVar[bool] = True

    STORAGE_SCHEME: ClassVar[Any] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls._stands_for_all = False
        own_clear = cls.__dict__.get("clear")
        if own_clear is not None and not getattr(own_clear, "__isabstractmethod__", False):

            def clear(self: Any, key: Any, keys: Any = None, /) -> None:
                if keys is None:
                    own_clear(self, key)
                else:
                    clear_by_methods(self, key, keys)

            cls.clear = clear  # type: ignore[method-assign]
        wrap_errors(cls)
        super().__init_subclass__(**kwargs)

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any
    ) -> None:
        LazyDependency.__init__(self)
        WeirStorage.__init__(self, uri, **options)
        self.wrap_exceptions = wrap_exceptions

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """The exceptions that its methods raise while the storage is unavailable."""
        return OSError

    def decide(
        self,
        limits: Sequence[Limit],
        keys: Keys,
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        """Decides like every store, by calling the methods of the class."""
        try:
            return decide_by_methods(self, limits, keys, costs, mode)
        except WeirError:
            raise
        except self.base_exceptions as error:
            raise self.away(error) from error

    def away(self, error: Exception) -> StorageError:
        """The error for a storage that is unavailable."""
        text = str(error) or type(error).__name__
        kind: Any = type(error)
        failed = joined(StoreAwayError, kind)(f"{type(self).__name__}: {text}")
        if isinstance(failed, kind):
            vars(failed).update(vars(error))
        failed.storage_error = error
        return failed

    @abstractmethod
    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to the counter of a key; returns the new value."""

    @abstractmethod
    def get(self, key: str) -> int:
        """The counter of a key."""

    @abstractmethod
    def get_expiry(self, key: str) -> float:
        """When the window of a key ends."""

    @abstractmethod
    def check(self) -> bool:
        """Whether the storage is available."""

    @abstractmethod
    def reset(self) -> int | None:  # type: ignore[override]
        """Delete all counters; returns their number."""

    @abstractmethod
    def clear(self, key: Any, keys: Any = None, /) -> None:
        """Remove the counters of a key."""


class MovingWindowSupport(ABC):
    """What a storage needs for moving windows."""

    @abstractmethod
    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add entries if there is room for all of them; returns whether they were added."""

    @abstractmethod
    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The time of the oldest entry, and the number of entries."""

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        if cls is MovingWindowSupport and callable(getattr(other, "acquire_entry", None)):
            return True
        return NotImplemented


class SlidingWindowCounterSupport(ABC):
    """What a storage needs for sliding window counters."""

    @abstractmethod
    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Add entries if there is room for all of them; returns whether they were added."""

    @abstractmethod
    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Count and seconds left of the previous window, and of the current one."""

    @abstractmethod
    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Remove the counters of a key."""

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        if cls is SlidingWindowCounterSupport and callable(
            getattr(other, "acquire_sliding_window_entry", None)
        ):
            return True
        return NotImplemented


class TimestampedSlidingWindow:
    """Names for a custom storage that stores each window of a key under a separate name."""

    @classmethod
    def sliding_window_keys(cls, key: str, expiry: int, at: float) -> tuple[str, str]:
        """The names of the previous window and of the current one, at the time ``at``."""
        return f"{key}/{int((at - expiry) / expiry)}", f"{key}/{int(at / expiry)}"


def __getattr__(name: str) -> Any:
    """The stores by their classes' names, imported at their first use."""
    if name == "MemoryStorage":
        return MemoryStorage
    for factory in SCHEMES.values():
        if isinstance(factory, str) and factory.startswith("weir.stores."):
            module, _, known = factory.partition(":")
            if known == name:
                return getattr(importlib.import_module(module), name)
        elif getattr(factory, "__name__", None) == name:
            return factory
    if name.startswith("MongoDB"):
        raise AttributeError(f"{name} has no counterpart; there are the stores {known_schemes()}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
