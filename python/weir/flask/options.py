"""The options of :class:`~weir.flask.Limiter` and of its limits, each defined once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from typing import Any, TypedDict, TypeVar, cast

from flask.wrappers import Response

from .constants import HeaderNames
from .limits import ApplicationLimit, Limit, MetaLimit, RequestLimit, RouteLimit

F = TypeVar("F", bound=Callable[..., Any])


class LimiterOptions(TypedDict, total=False):
    """The options of a limiter, see :class:`weir.flask.Limiter`; ``None`` means not given."""

    default_limits: Sequence[str | Callable[[], str] | Limit] | None
    default_limits_per_method: bool | None
    default_limits_exempt_when: Callable[[], bool] | None
    default_limits_deduct_when: Callable[[Response], bool] | None
    default_limits_cost: int | Callable[[], int] | None
    application_limits: Sequence[str | Callable[[], str] | ApplicationLimit] | None
    application_limits_per_method: bool | None
    application_limits_exempt_when: Callable[[], bool] | None
    application_limits_deduct_when: Callable[[Response], bool] | None
    application_limits_cost: int | Callable[[], int] | None
    headers_enabled: bool | str | Sequence[str] | None
    header_name_mapping: dict[HeaderNames, str] | None
    strategy: str | None
    storage_uri: str | None
    storage_options: dict[str, Any] | None
    swallow_errors: bool | None
    fail_on_first_breach: bool | None
    on_breach: Callable[[RequestLimit], Response | None] | None
    meta_limits: Sequence[str | Callable[[], str] | MetaLimit] | None
    on_meta_breach: Callable[[RequestLimit], Response | None] | None
    in_memory_fallback: Sequence[str | Callable[[], str] | Limit] | None
    in_memory_fallback_enabled: bool | None
    retry_after: str | None
    key_prefix: str
    request_identifier: Callable[..., str] | None
    strict: bool | None
    shadow: bool | None
    problem_json: bool | None
    on_store_error: str | None
    reveal_keys: bool | None


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


#: The value of each option that is not given.
LIMITER_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(LimiterOptions.__annotations__),
    "key_prefix": "",
}
LIMIT_DEFAULTS: dict[str, Any] = {
    "key_func": None,
    "override_defaults": True,
    "cost": 1,
    **{
        field.name: field.default
        for field in dataclasses.fields(RouteLimit)
        if field.name in LimitOptions.__annotations__
        and field.name not in ("override_defaults", "cost")
    },
}


def complete(given: LimiterOptions) -> LimiterOptions:
    """The options of a limiter, with the defaults of those that were not given."""
    return cast(LimiterOptions, {**LIMITER_DEFAULTS, **given})


def check_names(given: LimitOptions, method: str) -> None:
    """Refuse an option that does not exist.

    :raises TypeError: as Python raises it for an unknown argument of ``method``.
    """
    for name in given:
        if name not in LIMIT_DEFAULTS:
            raise TypeError(f"Limiter.{method}() got an unexpected keyword argument {name!r}")


def limit_fields(given: LimitOptions) -> dict[str, Any]:
    """The options of a limit, with defaults, by the names that :class:`RouteLimit` has for them."""
    fields: dict[str, Any] = {**LIMIT_DEFAULTS, **given}
    fields["key_function"] = fields.pop("key_func")
    return fields


def takes(options: Any, defaults: Mapping[str, Any]) -> Callable[[F], F]:
    """Show the options of a TypedDict in the signature of a function that has ``**options``.

    ``help()``, editors and the manual then list them one by one.
    """

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        fixed = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {p.name for p in fixed}
        keywords = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults[name],
                annotation=getattr(annotation, "__forward_arg__", annotation),
            )
            for name, annotation in options.__annotations__.items()
            if name not in names
        ]
        function.__signature__ = own.replace(parameters=[*fixed, *keywords])  # type: ignore[attr-defined]
        return function

    return decorate
