"""The arguments of :class:`~weir.flask.Limiter` and of its methods."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import Any, TypedDict, TypeVar

from flask.wrappers import Response

from .limits import ApplicationLimit, Limit, MetaLimit, RequestLimit

F = TypeVar("F", bound=Callable[..., Any])


def takes_options_of(other: Callable[..., Any]) -> Callable[[F], F]:
    """Let a function with ``**options`` say that it takes the keyword arguments of another."""

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        positional = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {p.name for p in positional}
        keywords = [
            p
            for p in inspect.signature(other).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in names
        ]
        signature = own.replace(parameters=[*positional, *keywords])
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return decorate


@dataclasses.dataclass
class Options:
    """The arguments of :class:`~weir.flask.Limiter`, as given: ``None`` means not given."""

    default_limits: Sequence[str | Callable[[], str] | Limit] | None = None
    default_limits_per_method: bool | None = None
    default_limits_exempt_when: Callable[[], bool] | None = None
    default_limits_deduct_when: Callable[[Response], bool] | None = None
    default_limits_cost: int | Callable[[], int] | None = None
    application_limits: Sequence[str | Callable[[], str] | ApplicationLimit] | None = None
    application_limits_per_method: bool | None = None
    application_limits_exempt_when: Callable[[], bool] | None = None
    application_limits_deduct_when: Callable[[Response], bool] | None = None
    application_limits_cost: int | Callable[[], int] | None = None
    headers_enabled: bool | str | Sequence[str] | None = None
    header_name_mapping: dict[Any, str] | None = None
    strategy: str | None = None
    storage_uri: str | None = None
    storage_options: dict[str, Any] | None = None
    swallow_errors: bool | None = None
    fail_on_first_breach: bool | None = None
    on_breach: Callable[[RequestLimit], Response | None] | None = None
    meta_limits: Sequence[str | Callable[[], str] | MetaLimit] | None = None
    on_meta_breach: Callable[[RequestLimit], Response | None] | None = None
    in_memory_fallback: Sequence[str | Callable[[], str] | Limit] | None = None
    in_memory_fallback_enabled: bool | None = None
    retry_after: str | None = None
    key_prefix: str = ""
    request_identifier: Callable[..., str] | None = None
    strict: bool | None = None
    shadow: bool | None = None
    problem_json: bool | None = None
    on_store_error: str | None = None
    reveal_keys: bool | None = None


class LimitOptions(TypedDict, total=False):
    """The options of a limit on a route, see :meth:`weir.flask.Limiter.limit`."""

    key_func: Callable[[], str] | None
    per_method: bool
    methods: Sequence[str] | None
    error_message: str | Callable[[], str] | None
    exempt_when: Callable[[], bool] | None
    override_defaults: bool
    deduct_when: Callable[[Response], bool] | None
    on_breach: Callable[[RequestLimit], Response | None] | None
    cost: int | Callable[[], int]
    meta_limits: Sequence[str | Callable[[], str] | MetaLimit] | None
    strategy: str | None
    burst: int | None
    max_delay: float | None
    tz: str | tzinfo | None
    reserve: bool
    shadow: bool
