"""What the words of a description stand for: key functions, callbacks, limits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flask


def header(name: str, default: str = "") -> str:
    return flask.request.headers.get(name, default)


def address() -> str:
    return flask.request.remote_addr or ""


def answer(limit: Any) -> flask.Response:
    return flask.make_response(f"{limit.limit} {limit.breached} {limit.shared}", 429)


BREACH: dict[str, Callable[[Any], Any]] = {"response": answer, "nothing": lambda limit: None}

KEYS: dict[str, Callable[[], str]] = {
    "address": address,
    "header": lambda: header("X-Key", "nobody"),
    "empty": lambda: header("X-Key"),
    "none": lambda: header("X-Key") or None,  # type: ignore[dict-item, return-value]
}
DEDUCT: dict[str, Callable[[flask.Response], bool]] = {
    "ok": lambda response: response.status_code == 200,
    "refused": lambda response: response.status_code >= 400,
    "always": lambda response: True,
}


def exempt_when() -> bool:
    return bool(header("X-Exempt"))


def cost() -> int:
    return int(header("X-Cost", "1"))


def called_scope(endpoint: str) -> str:
    return endpoint[-1:] + header("X-Key")


def identifier() -> str:
    return f"{flask.request.endpoint or ''}!"


def resolve(value: Any) -> Any:
    named = {
        "exempt_when": exempt_when,
        "header": cost,
        "identifier": identifier,
        **DEDUCT,
    }
    return named.get(value, value) if isinstance(value, str) else value


def make(package: Any, value: Any) -> Any:
    """A limit as it is given: a text, or an object of the package's."""
    if not isinstance(value, dict):
        return value
    options = {name: given for name, given in value.items() if given is not None}
    options["key_function"] = KEYS.get(options.get("key_function", ""))
    for name in ("exempt_when", "deduct_when", "cost"):
        options[name] = resolve(options.get(name))
    options["on_breach"] = BREACH.get(options.get("on_breach", ""))
    if options.get("scope") == "called":
        options["scope"] = called_scope
    if "meta_limits" in options:
        options["meta_limits"] = [make(package, meta) for meta in options["meta_limits"]]
    kind = getattr(package, options.pop("kind"))
    if kind is package.MetaLimit:
        del options["deduct_when"]
    return kind(**options)


def decorate(package: Any, limiter: Any, limit: dict[str, Any]) -> Any:
    text: Any = limit["text"]
    if limit["dynamic"] == "constant":
        text = functools.partial(str, text)
    elif limit["dynamic"] == "by header":
        text = functools.partial(lambda text: header("X-Limit", text), text)
    options: dict[str, Any] = {
        "key_func": KEYS.get(limit["key"]),
        "per_method": limit["per_method"],
        "methods": limit["methods"],
        "error_message": (lambda: "called")
        if limit["error_message"] == "called"
        else limit["error_message"],
        "exempt_when": exempt_when if limit["exempt_when"] else None,
        "override_defaults": limit["override_defaults"],
        "deduct_when": DEDUCT.get(limit["deduct_when"]),
        "cost": resolve(limit["cost"]),
        "meta_limits": [make(package, limit["meta"])] if limit["meta"] else None,
        "on_breach": BREACH.get(limit["on_breach"]),
    }
    if limit["shared"]:
        scope = called_scope if limit["shared"] == "called" else limit["shared"]
        return limiter.shared_limit(text, scope, **options)
    scope = called_scope if limit["scope"] == "called" else limit["scope"]
    return limiter.limit(text, scope=scope, **options)
