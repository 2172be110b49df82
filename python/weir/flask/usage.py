"""Names of Flask-Limiter's class that programs use, and errors for those without a counterpart."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Any

from weir.storage import StorageTypes

from .config_errors import UsageError
from .settings import GONE_ARGUMENTS

if TYPE_CHECKING:
    from weir._core import RateLimiter

#: Methods of Flask-Limiter's class that public programs replace, and that have no counterpart.
NOT_CALLED = frozenset(
    {
        "_check_request_limit",
        "_evaluate_limits",
        "_inject_headers",
        *(
            f"_Limiter__{name}"
            for name in (
                "check_request_limit",
                "check_conditional_deductions",
                "evaluate_limits",
                "check_all_limits_exempt",
                "release_context",
            )
        ),
    }
)


class KnownNames:
    """Undocumented names of Flask-Limiter's class."""

    logger: logging.Logger
    storage: Any
    limiter: Any
    _options: Any
    _state: Any
    _states: Sized
    _enabled: bool
    _missing_reported: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in cls.__dict__:
            if name in NOT_CALLED:
                raise UsageError(
                    "EOPTION",
                    f"{cls.__name__}.{name}() would never be called: Weir decides in the core. Use"
                    " request_filter(), exempt_when=, deduct_when=, on_breach= or key_func=",
                )

    @property
    def _storage(self) -> StorageTypes:
        storage: StorageTypes = self.storage
        return storage

    @property
    def _limiter(self) -> RateLimiter:
        limiter: RateLimiter = self.limiter
        return limiter

    @property
    def _in_memory_fallback_enabled(self) -> bool:
        return bool(self._state.fallback_enabled)

    @property
    def _in_memory_fallback(self) -> list[Any]:
        return list(self._state.fallback_limits)

    # They cannot be set: arguments and settings are read when an application is added.

    @property
    def _key_prefix(self) -> str:
        return str(self._setting("key_prefix"))

    @property
    def _storage_uri(self) -> str | None:
        return self._options["storage_uri"]  # type: ignore[no-any-return]

    @property
    def _storage_options(self) -> dict[str, Any]:
        return dict(self._setting("storage_options") or {})

    @property
    def _strategy(self) -> str | None:
        return self._setting("strategy")  # type: ignore[no-any-return]

    @property
    def _swallow_errors(self) -> bool | None:
        return self._setting("swallow_errors")  # type: ignore[no-any-return]

    @property
    def _headers_enabled(self) -> bool:
        if not self._states:
            return bool(self._options["headers_enabled"])
        return bool(self._state.headers.kinds)

    def _setting(self, name: str) -> Any:
        """An argument of the limiter; once it has an application, what is in effect."""
        return getattr(self._state, name) if self._states else self._options[name]

    def report_missing_application(self, name: str) -> None:
        """Log once that a limited view was called although the limiter has no application.

        :raises UsageError: ``EOPTION``, if the limiter is strict.
        """
        if self._states or not self._enabled:
            return
        text = (
            f"the limits of {name}() are not in force: the limiter was never given an application;"
            " call limiter.init_app(app)"
        )
        if self._options["strict"]:
            raise UsageError("EOPTION", text)
        if not self._missing_reported:
            self._missing_reported = True
            self.logger.error("EOPTION: %s", text)


def no_key_function() -> str:
    """The key function for ``key_func=True``, with which each limit must have its own."""
    raise UsageError("EKEYFUNC", "key_func=True: this limit must have its own key_func")


def unknown_argument(what: str, name: str, function: Callable[..., Any]) -> UsageError:
    if name in GONE_ARGUMENTS:
        return UsageError("EOPTION", f"{what}() has no argument {name}: {GONE_ARGUMENTS[name]}")
    known = [
        p for p, v in inspect.signature(function).parameters.items() if v.kind is v.KEYWORD_ONLY
    ]
    near = difflib.get_close_matches(name, known, 1, cutoff=0.8)
    hint = f"; did you mean {near[0]}?" if near else ""
    return UsageError("EOPTION", f"{what}() has no argument {name}{hint}")
