"""Errors in the configuration of limits; public as ``weir.flask.errors``."""

from __future__ import annotations

from weir.errors import ConfigurationError as WeirConfigurationError

__all__ = ["ConfigurationError", "UsageError"]


class ConfigurationError(WeirConfigurationError):
    """An error in the configuration of limits. ``code`` is stable, the text may change.

    ======== ======================================================================
    EOPTION  an argument or setting that does not exist, or has an impossible value
    ENOTVIEW a limit on something that is not a view function, blueprint or method
    EKEYFUNC a key function that cannot be called without arguments
    EEMPTY   a key function returned nothing, and the limiter is strict
    ETWICE   two limits count each request twice into one counter
    ESTORE   a storage that cannot be opened
    EVALUE   an invalid value
    ======== ======================================================================
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class UsageError(ConfigurationError, TypeError):
    """A :class:`ConfigurationError` where Python itself would raise :class:`TypeError`."""
