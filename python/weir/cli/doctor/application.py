"""What ``weir doctor`` finds in an application: its limiters, stores, proxies and limits."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...errors import WeirError
from .. import bounds
from ..commands.check import warnings_of
from ..words import shown, some
from .finding import (
    BAD,
    FINE,
    TEXT_MAX,
    WARN,
    Arguments,
    Finding,
    error_line,
    examine_store,
    one_line,
)

#: Findings about limits; more of them are counted, not shown.
_LIMITS_MAX = 20


def _load(name: str) -> Any:
    """The application."""
    from flask.cli import ScriptInfo

    if "" not in sys.path:
        sys.path.insert(0, "")
    return ScriptInfo(app_import_path=name).load_app()


def _why_not_loaded(error: BaseException) -> str:
    """An error on one line; of one whose text is a traceback, its last line."""
    found = error_line(error)
    if ": Traceback (most recent call last): " not in found:
        return found
    return one_line(str(error).strip().rpartition("\n")[2], 2 * TEXT_MAX)


def check_application(arguments: Arguments) -> Iterator[Finding]:
    """The limiters of an application: store, client, proxies, limits."""
    if not arguments.app:
        fix = "weir doctor --app module:app, or set FLASK_APP"
        yield Finding("application", FINE, "not checked: none was given", fix)
        return
    if importlib.util.find_spec("flask") is None:
        yield Finding("application", BAD, "Flask is not installed", "pip install Flask")
        return
    try:
        app = _load(arguments.app)
    except (Exception, SystemExit) as error:
        text = f"{shown(arguments.app)} cannot be loaded: {_why_not_loaded(error)}"
        fix = f"correct it until `flask --app {shown(arguments.app)} routes` works"
        yield Finding("application", BAD, text, fix)
        return
    states = app.extensions.get("weir")
    if states is None:
        theirs = app.extensions.get("limiter")
        fix = "import Limiter from weir.flask" if theirs else "create a weir.flask.Limiter for it"
        text = "is limited by Flask-Limiter" if theirs else "has no limiter"
        yield Finding("application", WARN, f"{shown(app.name)} {text}", fix)
    elif not states:
        yield _switched_off(app)
    if states is not None:
        yield from _check_settings(app)
    for limiter, state in (states or {}).items():
        yield from _check_limiter(app, limiter, state)


def _check_settings(app: Any) -> Iterator[Finding]:
    """Settings that Weir does not have. Wrong values are errors when the application is loaded."""
    fix = "correct its name; RATELIMIT_ALLOW_UNKNOWN allows names of the application"
    from ...flask.settings import Reader

    for message in Reader(app.config).unknown():
        yield Finding("settings", WARN, one_line(message), fix)


def _switched_off(app: Any) -> Finding:
    text = f"{shown(app.name)} has a limiter that is switched off"
    return Finding("application", WARN, text, "set RATELIMIT_ENABLED, or enabled=, to True")


def _check_limiter(app: Any, limiter: Any, state: Any) -> Iterator[Finding]:
    if limiter.enabled:
        yield Finding("application", FINE, f"{shown(app.name)} has a limiter")
    else:
        yield _switched_off(app)
    uri = limiter_uri(state)
    if uri.startswith("auto:"):
        text = "auto://: depends on the server, see the lines auto:// above"
        yield Finding("its store", FINE, text)
    elif uri.startswith("memory:"):
        fix = "omit storage_uri (auto://), or name a shared store"
        yield Finding("its store", WARN, "memory://: each worker counts separately", fix)
    else:
        yield examine_store(uri, "its store")
    yield from _check_proxies(app, state)
    try:
        yield from _check_limits(app, state)
    except (WeirError, ValueError) as error:
        yield Finding("limits", BAD, one_line(error), "correct this limit")


def limiter_uri(state: Any) -> str:
    """The URI of the store that a limiter counts in."""
    owner = getattr(state, "store", state)
    uri = getattr(owner, "storage_uri", None) or getattr(state, "storage_uri", None)
    return str(uri or "auto://")


# ------------------------------------------------------------------------------------------ proxies


def _layers(app: Any) -> list[str]:
    """The names of the WSGI layers around an application, from the outside."""
    layers: list[str] = []
    layer = app.wsgi_app
    while layer is not None and len(layers) < 32:
        layers.append(type(layer).__name__)
        layer = getattr(layer, "app", None) or getattr(layer, "wsgi_app", None)
    return layers


def _check_proxies(app: Any, state: Any) -> Iterator[Finding]:
    key = getattr(state, "key_func", None)
    name = str(getattr(key, "__qualname__", type(key).__name__))
    if "ProxyFix" in _layers(app):
        yield Finding("proxies", FINE, f"ProxyFix; the client is what {shown(name)} returns")
    elif name.startswith("trusted_proxies"):
        yield Finding("proxies", FINE, "trusted_proxies() of weir.flask.util")
    elif name == "get_remote_address":
        fix = "behind a proxy, use trusted_proxies(...) or ProxyFix, or all clients count as one"
        yield Finding(
            "proxies", FINE, "no proxy is trusted; the client is the address of the connection", fix
        )
    else:
        yield Finding("proxies", FINE, f"the client is what {shown(name)} returns")


# ------------------------------------------------------------------------------------------- limits


class _Place(NamedTuple):
    """Limits that are decided together.

    limits: each with its source: "application", "default", "meta", "route", "blueprint".
    unread: whether there are others, whose text a function returns. reported: the sources of the
    limits that this place is about; the others are only why a limit never denies.
    """

    name: str
    limits: list[tuple[str, Any]]
    unread: bool
    reported: tuple[str, ...]


def _check_limits(app: Any, state: Any) -> Iterator[Finding]:
    found: list[str] = []
    number, unread = 0, False
    for place in _places(app, state):
        unread = unread or place.unread
        number += sum(source in place.reported for source, _ in place.limits)
        found += [f"{place.name}: {text}" for text in _remarks(place)]
    for text in found[:_LIMITS_MAX]:
        yield Finding("limits", WARN, text, "remove it, or correct it")
    if len(found) > _LIMITS_MAX:
        text = f"another {some(len(found) - _LIMITS_MAX, 'limit')} can never deny a request"
        yield Finding("limits", WARN, text, "correct those above, then run this again")
    if not found:
        text = f"{some(number, 'limit')} examined; each can deny requests"
        text += "; limits that functions return were not examined" if unread else ""
        yield Finding("limits", FINE, text)


def _places(app: Any, state: Any) -> Iterator[_Place]:
    """The limits of the application, the defaults, and those of each route."""
    shared, unread = _expanded(state, "application", state.application_limits)
    yield _Place("application limits", shared, unread, ("application",))
    limits, unread = _expanded(state, "default", state.default_limits)
    yield _Place("default limits", shared + limits, unread, ("default",))
    limits, unread = _expanded(state, "meta", state.meta_limits)
    yield _Place("meta limits", limits, unread, ("meta",))
    for rule in sorted(app.url_map.iter_rules(), key=str):
        if rule.endpoint.rpartition(".")[2] != "static":
            function = app.view_functions.get(rule.endpoint)
            resolver = state.resolve(rule.endpoint, rule.endpoint, None, function)
            limits, unread = _described(resolver)
            if resolver.errors:
                raise ValueError("; ".join(resolver.errors))
            name = f"route {shown(rule.endpoint)}"
            yield _Place(name, shared + limits, unread, ("route", "blueprint"))


def _expanded(state: Any, source: str, groups: Sequence[Any]) -> tuple[list[tuple[str, Any]], bool]:
    """The limits of these definitions with a fixed text, and whether there are others."""
    fixed = [group for group in groups if not callable(group.limit_provider)]
    limits = [
        (source, limit)
        for group in fixed
        for limit in group.expand(group.limit_provider, state.key_func, (), state.strategy)
    ]
    return limits, len(fixed) < len(groups)


def _described(resolver: Any) -> tuple[list[tuple[str, Any]], bool]:
    """The limits of a route that have a fixed text, and whether there are others."""
    from ...flask.resolve import UncalledError

    unread = False
    while True:
        try:
            return list(resolver.describe()), unread
        except UncalledError as need:
            unread = True
            resolver.texts[id(need.group.limit_provider)] = ""


def _asks(limit: Any) -> tuple[object, ...]:
    return limit.key_func, limit.cost, limit.reserve


def _counts_alike(limit: Any) -> tuple[object, ...]:
    """Limits for which this is equal count the same requests of the same clients."""
    methods = limit.methods and tuple(sorted(limit.methods))
    when = limit.exempt_when, limit.deduct_when
    return (*_asks(limit), limit.scope, limit.per_method, methods, *when)


def _counts_all(limit: Any) -> bool:
    """Whether a limit counts every request, so that others may never deny because of it."""
    conditions = (limit.exempt_when, limit.deduct_when, limit.methods, limit.shadow)
    return not any(conditions) and not limit.per_method


def _remarks(place: _Place) -> Iterator[str]:
    """What to change about the limits of one place."""
    groups: dict[tuple[object, ...], list[tuple[str, Any]]] = {}
    for source, limit in place.limits:
        if not limit.shadow:
            groups.setdefault(_counts_alike(limit), []).append((source, limit))
    for group in groups.values():
        first = group[0][1]
        if callable(first.cost):
            continue  # the cost is known only during a request
        for source, limit in group:
            most = bounds.largest_cost(limit.limit)
            if source in place.reported and 0 < most < limit.cost:
                yield (
                    f'"{limit.limit}" denies every request: each costs {limit.cost}, '
                    f"and the limit admits at most {most}"
                )
        guards = [
            (source, limit)
            for source, limit in place.limits
            if source == "application" and _counts_all(limit) and _asks(limit) == _asks(first)
        ]
        together = guards + [one for one in group if one not in guards]
        for remark in warnings_of([limit.limit for _, limit in together]):
            if together[remark.place][0] in place.reported:
                yield remark.text
