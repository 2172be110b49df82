"""The names of ``limits.typing``. Clients of stores are those of any library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
)

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Serializable: TypeAlias = int | str | float
MemcachedClientP: TypeAlias = Any
RedisClientP: TypeAlias = Any
RedisClient: TypeAlias = Any
AsyncRedisClientP: TypeAlias = Any
AsyncRedisClient: TypeAlias = Any
AsyncCoRedisClient: TypeAlias = Any
MongoClient: TypeAlias = Any
MongoDatabase: TypeAlias = Any
MongoCollection: TypeAlias = Any

__all__ = [
    "TYPE_CHECKING",
    "Any",
    "AsyncCoRedisClient",
    "AsyncRedisClient",
    "AsyncRedisClientP",
    "Awaitable",
    "Callable",
    "ClassVar",
    "Counter",
    "Iterable",
    "Literal",
    "MemcachedClientP",
    "MongoClient",
    "MongoCollection",
    "MongoDatabase",
    "NamedTuple",
    "P",
    "ParamSpec",
    "Protocol",
    "R",
    "R_co",
    "RedisClient",
    "RedisClientP",
    "Serializable",
    "TypeAlias",
    "TypeVar",
    "cast",
]
