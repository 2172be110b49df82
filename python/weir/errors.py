"""What can go wrong. "Denied" is not among it: that is a verdict."""

from __future__ import annotations

import warnings

from ._core import ParseError, StorageError, TableError, WeirError

__all__ = [
    "ConfigurationError",
    "ParseError",
    "StorageError",
    "TableError",
    "WeirError",
    "WeirWarning",
]


class ConfigurationError(WeirError, ValueError):
    """A storage, strategy or option that does not exist."""


class WeirWarning(UserWarning):
    """Something works, but probably not as meant; the text says what to write instead."""


def warn(message: str, *, stacklevel: int = 2) -> None:
    """Issue a :class:`WeirWarning` that points at the caller's caller."""
    warnings.warn(message, WeirWarning, stacklevel=stacklevel + 1)
