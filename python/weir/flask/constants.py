"""Names of settings, headers and exemptions."""

from __future__ import annotations

import enum


class ConfigVars:
    """The settings read from ``app.config``.

    An argument of :class:`~weir.flask.Limiter` takes precedence over the setting, with three
    exceptions as in Flask-Limiter: ``RATELIMIT_ENABLED`` takes precedence over ``enabled``, entries
    of ``RATELIMIT_STORAGE_OPTIONS`` over those of ``storage_options``, and the effective values of
    ``RATELIMIT_ENABLED`` and ``RATELIMIT_STRATEGY`` are written back to the configuration.
    """

    ENABLED = "RATELIMIT_ENABLED"
    KEY_FUNC = "RATELIMIT_KEY_FUNC"
    KEY_PREFIX = "RATELIMIT_KEY_PREFIX"
    FAIL_ON_FIRST_BREACH = "RATELIMIT_FAIL_ON_FIRST_BREACH"
    ON_BREACH = "RATELIMIT_ON_BREACH_CALLBACK"
    SWALLOW_ERRORS = "RATELIMIT_SWALLOW_ERRORS"
    APPLICATION_LIMITS = "RATELIMIT_APPLICATION"
    APPLICATION_LIMITS_PER_METHOD = "RATELIMIT_APPLICATION_PER_METHOD"
    APPLICATION_LIMITS_EXEMPT_WHEN = "RATELIMIT_APPLICATION_EXEMPT_WHEN"
    APPLICATION_LIMITS_DEDUCT_WHEN = "RATELIMIT_APPLICATION_DEDUCT_WHEN"
    APPLICATION_LIMITS_COST = "RATELIMIT_APPLICATION_COST"
    DEFAULT_LIMITS = "RATELIMIT_DEFAULT"
    DEFAULT_LIMITS_PER_METHOD = "RATELIMIT_DEFAULTS_PER_METHOD"
    DEFAULT_LIMITS_EXEMPT_WHEN = "RATELIMIT_DEFAULTS_EXEMPT_WHEN"
    DEFAULT_LIMITS_DEDUCT_WHEN = "RATELIMIT_DEFAULTS_DEDUCT_WHEN"
    DEFAULT_LIMITS_COST = "RATELIMIT_DEFAULTS_COST"
    REQUEST_IDENTIFIER = "RATELIMIT_REQUEST_IDENTIFIER"
    STRATEGY = "RATELIMIT_STRATEGY"
    STORAGE_URI = "RATELIMIT_STORAGE_URI"
    STORAGE_OPTIONS = "RATELIMIT_STORAGE_OPTIONS"
    HEADERS_ENABLED = "RATELIMIT_HEADERS_ENABLED"
    HEADER_LIMIT = "RATELIMIT_HEADER_LIMIT"
    HEADER_REMAINING = "RATELIMIT_HEADER_REMAINING"
    HEADER_RESET = "RATELIMIT_HEADER_RESET"
    HEADER_RETRY_AFTER = "RATELIMIT_HEADER_RETRY_AFTER"
    HEADER_RETRY_AFTER_VALUE = "RATELIMIT_HEADER_RETRY_AFTER_VALUE"
    IN_MEMORY_FALLBACK = "RATELIMIT_IN_MEMORY_FALLBACK"
    IN_MEMORY_FALLBACK_ENABLED = "RATELIMIT_IN_MEMORY_FALLBACK_ENABLED"
    META_LIMITS = "RATELIMIT_META"
    ON_META_BREACH = "RATELIMIT_ON_META_BREACH_CALLBACK"

    # Settings that only Weir has.
    STRICT = "RATELIMIT_STRICT"
    SHADOW = "RATELIMIT_SHADOW"
    PROBLEM_JSON = "RATELIMIT_PROBLEM_JSON"
    ON_STORE_ERROR = "RATELIMIT_ON_STORE_ERROR"
    REVEAL_KEYS = "RATELIMIT_REVEAL_KEYS"
    IPV6_PREFIX = "RATELIMIT_IPV6_PREFIX"
    ALLOW_UNKNOWN = "RATELIMIT_ALLOW_UNKNOWN"

    @classmethod
    def known(cls) -> frozenset[str]:
        """The names of all settings."""
        return frozenset(
            value for name, value in vars(cls).items() if name.isupper() and isinstance(value, str)
        )


class HeaderNames(enum.Enum):
    """The headers that can be renamed. The values are their default names."""

    #: When the limit resets, in seconds since the Unix epoch.
    RESET = "X-RateLimit-Reset"
    #: How many requests are left.
    REMAINING = "X-RateLimit-Remaining"
    #: How many requests the limit allows.
    LIMIT = "X-RateLimit-Limit"
    #: How long to wait, in seconds or as an HTTP date.
    RETRY_AFTER = "Retry-After"


#: The name of :class:`HeaderNames` in older versions of Flask-Limiter.
HEADERS = HeaderNames


class ExemptionScope(enum.Flag):
    """The limits that :meth:`~weir.flask.Limiter.exempt` exempts from."""

    NONE = 0
    #: From the limits of the application.
    APPLICATION = enum.auto()
    #: From being refused because of a meta limit.
    META = enum.auto()
    #: From the default limits.
    DEFAULT = enum.auto()
    #: Blueprints: the same for every blueprint nested below.
    DESCENDENTS = enum.auto()
    #: Blueprints: from the limits of the blueprints above.
    ANCESTORS = enum.auto()


#: The default of ``limiter.exempt(view)``.
EXEMPT_BY_DEFAULT = ExemptionScope.APPLICATION | ExemptionScope.DEFAULT | ExemptionScope.META

#: During an outage, the store is tried again after 1, 2, 4, ... 2 ** MAX_BACKEND_CHECKS seconds.
#: The name is part of Flask-Limiter's module.
MAX_BACKEND_CHECKS = 5
