"""``flask limiter``: what is configured, which limits apply where, and how much of each is used.

The commands see the counters of the running workers if these are shared: with ``shm://``, ``file://``
or a remote storage, and with ``auto://`` if the server runs in the same directory.

``flask weir`` is the same command under a name that Flask-Limiter does not use. If Flask-Limiter is
installed as well, both register ``flask limiter``, and Flask uses the one it finds last. This
module makes that its own command, which passes applications that only Flask-Limiter limits on to
it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from flask import Flask, current_app
from flask.cli import with_appcontext
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Rule

from weir._core import Table as LocalTable
from weir._core import join_key
from weir._text import LINE_MAX, hide_password, printable
from weir.errors import StorageError
from weir.stores import auto
from weir.stores.base import replaces_flask_limiter

from .check import Entry
from .constants import ConfigVars, ExemptionScope, HeaderNames
from .limits import Limit, RuntimeLimit, iterate
from .resolve import UncalledError

try:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.markup import escape as _escape
    from rich.pretty import Pretty
    from rich.prompt import Confirm
    from rich.table import Table
    from rich.theme import Theme
    from rich.tree import Tree
except ImportError:  # reported when a command is called
    Console = None  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from .limiter import Limiter
    from .state import AppState

STYLES = {
    "ok": "bold green",
    "bad": "bold red",
    "route": "yellow",
    "blueprint": "bold red",
    "default": "magenta",
    "callable": "cyan",
    "method": "bold green",
    "option": "bold yellow",
    "group": "bold blue",
}


@click.group(help="Show and reset rate limits")
def cli() -> None:
    """Commands of the limiter."""
    if Console is None:
        raise click.ClickException("these commands need rich: pip install rich")


#: The commands of Flask-Limiter, if it is installed.
_theirs: click.Group | None = None


def __getattr__(name: str) -> Any:
    # Flask calls this when it collects commands. Importing this module changes nothing.
    if name == "limiter":
        _take_the_name()
        return cli
    raise AttributeError(name)


def _take_the_name() -> None:
    """Make ``flask limiter`` :data:`cli`, in whatever order Flask finds the two commands."""
    global _theirs
    if _theirs is not None or importlib.util.find_spec("flask_limiter") is None:
        return
    try:
        commands: Any = importlib.import_module("flask_limiter.commands")
    except Exception:  # errors of other packages are ignored here
        return
    theirs = getattr(commands, "cli", None)
    if isinstance(theirs, click.Group) and theirs is not cli:
        _theirs = theirs
        commands.cli = cli


def ours_or_theirs(command: Callable[..., None]) -> Callable[..., None]:
    """Runs Flask-Limiter's command for an application that only Flask-Limiter limits."""

    @functools.wraps(command)
    def choose(**options: Any) -> None:
        name = click.get_current_context().info_name or ""
        extensions = current_app.extensions
        theirs = _theirs.commands.get(name) if _theirs is not None else None
        if theirs is None or extensions.get("weir") or not extensions.get("limiter"):
            command(**options)
            return
        if "yes" in options:
            options["y"] = options.pop("yes")
        callback: Any = theirs.callback
        callback(**options)

    return choose


def escape(text: str) -> str:
    """The text on one line, with nothing that a terminal or rich would obey."""
    return _escape(printable(text, LINE_MAX))


def console() -> Console:
    return Console(theme=Theme(STYLES))


def states() -> list[AppState]:
    """The limiters of the application, each with the storage of the running server."""
    found: dict[Limiter, AppState] = current_app.extensions.get("weir", {})
    if not found:
        text = f"{current_app.name} has no limiter"
        if replaces_flask_limiter():  # the text that programs search for
            text = f"No Flask-Limiter extension installed on {current_app}: {text}"
        console().print(f"[bad]{escape(text)}[/bad]")
    for state in found.values():
        follow_server(state)
    return list(found.values())


def follow_server(state: AppState) -> None:
    """With ``auto://``: open the table of the server that runs in this directory."""
    if state.auto_number is None or auto.server() is not None:
        return
    here = []
    for found in auto.automatic_tables():
        with contextlib.suppress(OSError):
            if found.runs and Path(f"/proc/{found.server.pid}/cwd").samefile("."):
                here.append(found)
    mark = auto.digest_of(state.app, *state.identity())
    running = [found.name for found in here if found.application == mark]
    if len(running) == 1:
        try:
            table = LocalTable(f"shm://{running[0]}", namespace=state.auto_number, _observes=True)
        except StorageError as error:  # the server has ended meanwhile, say
            console().print(f"[bad]{escape(str(error))}[/bad]")
        else:
            state.use_storage(table)
    elif running:
        console().print(f"[bad]{len(running)} servers run here; showing none of them[/bad]")


def name_of(function: Any) -> Any:
    """The name of a function; any other value unchanged."""
    if not callable(function):
        return Pretty(function)
    name = getattr(function, "__qualname__", None) or repr(function)
    module = getattr(function, "__module__", "?")
    return f"[callable]{escape(f'{module}.{name}')}()[/callable]"


# ------------------------------------------------------------------------------------- config


@cli.command(help="Show the configuration")
@with_appcontext
@ours_or_theirs
def config() -> None:
    """Show the configuration."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    with app.test_request_context():  # limits may read the request
        for state in states():
            console().print(configuration(state))


def configuration(state: AppState) -> Table:
    table = Table(title="Limiter")
    for column in ("What", "Setting", "Value"):
        table.add_column(column)
    key_func = name_of(state.key_func)
    table.add_row("Enabled", ConfigVars.ENABLED, Pretty(state.enabled))
    table.add_row("Key function", ConfigVars.KEY_FUNC, key_func)
    table.add_row("Key prefix", ConfigVars.KEY_PREFIX, Pretty(state.key_prefix))
    table.add_row("Strategy", ConfigVars.STRATEGY, state.strategy)
    table.add_row("Storage", ConfigVars.STORAGE_URI, escape(hide_password(state.storage_uri)))
    table.add_row(None, ConfigVars.STORAGE_OPTIONS, Pretty(sorted(state.storage_options)))
    healthy = state.storage.check()
    table.add_row(
        None, "Status", "[ok]OK[/ok]" if healthy else "[bad]Error: the store does not answer[/bad]"
    )
    table.add_row(None, ConfigVars.ON_STORE_ERROR, state.store.on_store_error)
    for title, setting, groups, options in (
        ("Application limits", "APPLICATION", state.application_limits, state.application_options),
        ("Default limits", "DEFAULT", state.default_limits, state.default_options),
    ):
        texts = [describe(limit) for limit in expand(state, groups)]
        table.add_row(title, f"RATELIMIT_{setting}", "\n".join(texts) or Pretty([]))
        if texts:
            plural = "DEFAULTS" if setting == "DEFAULT" else setting
            for name, value in options.items():
                table.add_row(None, f"RATELIMIT_{plural}_{name.upper()}", name_of(value))
    metas = [describe(limit) for limit in expand(state, state.meta_limits)]
    table.add_row("Meta limits", ConfigVars.META_LIMITS, "\n".join(metas) or Pretty([]))
    headers = state.headers
    kinds = ", ".join(sorted(headers.kinds))
    table.add_row("Headers", ConfigVars.HEADERS_ENABLED, kinds or Pretty(False))
    if kinds:
        table.add_row(None, ConfigVars.HEADER_LIMIT, escape(headers.mapping[HeaderNames.LIMIT]))
        table.add_row(
            None, ConfigVars.HEADER_REMAINING, escape(headers.mapping[HeaderNames.REMAINING])
        )
        table.add_row(None, ConfigVars.HEADER_RESET, escape(headers.mapping[HeaderNames.RESET]))
        table.add_row(
            None, ConfigVars.HEADER_RETRY_AFTER, escape(headers.mapping[HeaderNames.RETRY_AFTER])
        )
        value = "http-date" if headers.http_date else "delta-seconds"
        table.add_row(None, ConfigVars.HEADER_RETRY_AFTER_VALUE, value)
    first = Pretty(state.fail_on_first_breach)
    table.add_row("On a breach", ConfigVars.FAIL_ON_FIRST_BREACH, first)
    table.add_row(None, ConfigVars.ON_BREACH, name_of(state.on_breach))
    table.add_row(None, ConfigVars.ON_META_BREACH, name_of(state.on_meta_breach))
    return table


# ------------------------------------------------------------------------------------- limits


@cli.command(help="List the limits of each route")
@click.option("--endpoint", help="only this endpoint")
@click.option("--path", help="only the endpoint at this path")
@click.option("--method", help="the HTTP method, for --path and for limits per method")
@click.option("--key", help="show what remains of each limit for this key")
@click.option("--watch/--no-watch", default=False, help="update the output until Ctrl-C")
@with_appcontext
@ours_or_theirs
def limits(
    endpoint: str | None, path: str | None, method: str | None, key: str | None, watch: bool
) -> None:
    """List the limits of each route."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    with app.test_request_context():
        found = states()
        only = find_endpoint(app, endpoint, path, method)

        def show() -> Group:
            return Group(
                *(tree for state in found for tree in trees(app, state, only, method, key))
            )

        screen = console()
        if not watch:
            screen.print(show())
            return
        live = Live(show(), console=screen, screen=screen.is_terminal, auto_refresh=False)
        with live, contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(0.5)
                live.update(show(), refresh=True)


def find_endpoint(
    app: Flask, endpoint: str | None, path: str | None, method: str | None
) -> str | None:
    """The requested endpoint; ``None`` for all."""
    if endpoint is not None:
        if endpoint not in app.view_functions:
            raise click.ClickException(f"endpoint {printable(endpoint)} not found")
        return endpoint
    if path is None:
        return None
    parts = urlsplit(path)
    try:
        found: str = app.url_map.bind("localhost").match(
            parts.path, method=method, query_args=parts.query
        )[0]
    except NotFound:
        raise click.ClickException(
            f"{printable(path)} could not be matched to an endpoint"
        ) from None
    except MethodNotAllowed:
        text = f"{(method or 'GET').upper()}: {path}"
        raise click.ClickException(
            f"{printable(text)} could not be matched to an endpoint"
        ) from None
    return found


def trees(
    app: Flask, state: AppState, only: str | None, method: str | None, key: str | None
) -> Iterator[Tree]:
    """A tree for each blueprint, with its routes and their limits."""
    if only is None:
        for title, groups in (
            ("Meta limits", state.meta_limits),
            ("Application limits", state.application_limits),
        ):
            tree = Tree(f"[group]{title}[/group]")
            for limit in expand(state, groups):
                tree.add(line(state, "default", limit, "", method, key))
            if tree.children:
                yield tree
    routes: dict[str, Tree] = {}
    for rule, applying, exempt in rules(app, state, only):
        blueprint = rule.endpoint.rpartition(".")[0] or app.name
        parent = routes.setdefault(blueprint, Tree(f"[group]{escape(blueprint)}[/group]"))
        node = parent.add(escape(f"{rule.endpoint}: {rule}"))
        for source, limit in applying:
            for one in methods_of(rule, limit, method):
                node.add(line(state, source, limit, rule.endpoint, one, key))
        if not applying and exempt:
            node.add("[bad]Exempt[/bad]")
    yield from routes.values()


def methods_of(rule: Rule, limit: RuntimeLimit, method: str | None) -> list[str | None]:
    if not limit.per_method or method or not rule.methods:
        return [method]
    return [*sorted(rule.methods)]


def rules(
    app: Flask, state: AppState, only: str | None
) -> Iterator[tuple[Rule, list[tuple[str, RuntimeLimit]], ExemptionScope]]:
    """Each URL rule, its limits and their origin, and its exemptions."""
    for rule in sorted(app.url_map.iter_rules(only), key=str):
        if rule.endpoint.rpartition(".")[2] == "static":
            continue
        function = app.view_functions.get(rule.endpoint)
        resolver = state.resolve(rule.endpoint, rule.endpoint, None, function)
        while True:
            try:
                applying = list(resolver.describe())
                break
            except UncalledError as need:
                provider: Any = need.group.limit_provider
                resolver.texts[id(provider)] = provider()
        for error in resolver.errors:
            state.log_error(error)
        yield rule, applying, resolver.exemption


def expand(state: AppState, groups: list[Any]) -> list[RuntimeLimit]:
    return [limit for group in groups for limit in iterate(group, state.key_func)]


def named(limit: RuntimeLimit) -> str:
    """``2 per 1 minute``"""
    text = str(limit.limit)
    return f"{text} ({limit.limit.strategy})" if limit.limit.strategy else text


def describe(limit: RuntimeLimit) -> str:
    """``2 per 1 minute {deduct_when: app.failed()}``"""
    options = [
        f"{name}: {name_of(function)}"
        for name, function in (
            ("deduct_when", limit.deduct_when),
            ("exempt_when", limit.exempt_when),
        )
        if function is not None
    ]
    options += [name for name in ("reserve", "shadow") if getattr(limit, name)]
    text = named(limit)
    return f"{text} [option]{{{', '.join(options)}}}[/option]" if options else text


def line(
    state: AppState,
    source: str,
    limit: RuntimeLimit,
    endpoint: str,
    method: str | None,
    key: str | None,
) -> str:
    text = f"[{source}]{describe(limit)}[/{source}]"
    if limit.per_method and method:
        text += f" [method]({method})[/method]"
    if key is None:
        return text
    bound, counter = counter_of(state, limit, endpoint, method, key)
    try:
        if not state.storage.check():
            return f"{text}: [bad]Storage not available[/bad]"
        limiter = state.rate_limiter()
        allowed = limiter.test(bound, *counter)
        remaining = limiter.get_window_stats(bound, *counter)[1]
    except Exception as error:
        return f"{text}: [bad]{escape(str(error))}[/bad]"
    word = "[ok]Pass[/ok]" if allowed else "[bad]Fail[/bad]"
    return f"{text}: {word} ({remaining} out of {bound.burst or bound.amount} remaining)"


def counter_of(
    state: AppState, limit: RuntimeLimit, endpoint: str, method: str | None, key: str
) -> tuple[Any, list[str]]:
    """The text that identifies the counter of ``key`` in the storage."""
    scope = limit.scope(endpoint) if callable(limit.scope) else limit.scope
    joined = limit.join_scope(endpoint, scope, method or "GET")
    parts = [state.key_prefix, key, joined] if state.key_prefix else [key, joined]
    return Entry(limit, state.strategy, endpoint, method).bound, parts


# -------------------------------------------------------------------------------------- clear


@cli.command(help="Clear the counters of a key")
@click.option("--endpoint", help="only this endpoint")
@click.option("--path", help="only the endpoint at this path")
@click.option("--method", help="the HTTP method, for --path and for limits per method")
@click.option("--key", required=True, help="the key to clear, such as an address")
@click.option("-y", "yes", is_flag=True, help="do not ask for confirmation")
@with_appcontext
@ours_or_theirs
def clear(endpoint: str | None, path: str | None, method: str | None, key: str, yes: bool) -> None:
    """Reset the counters of a key."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    with app.test_request_context():
        found = states()
        only = find_endpoint(app, endpoint, path, method)
        if not yes:
            for state in found:
                console().print(*trees(app, state, only, method, key), sep="\n")
            if not Confirm.ask(f"Clear these counters of {escape(key)}?", console=console()):
                return
        for state in found:
            cleared: dict[str, list[str]] = {}
            shared: list[Limit] = [*state.meta_limits, *state.application_limits]
            if only is None:
                for limit in expand(state, shared):
                    for one in [method] if method or not limit.per_method else HTTP_METHODS:
                        clear_limit(state, limit, "", one, key)
                    cleared.setdefault("Application and meta limits", []).append(named(limit))
            for rule, applying, _ in rules(app, state, only):
                for _, limit in applying:
                    for one in methods_of(rule, limit, method):
                        clear_limit(state, limit, rule.endpoint, one, key)
                    cleared.setdefault(rule.endpoint, []).append(named(limit))
            for name, texts in cleared.items():
                tree = Tree(escape(name))
                for text in texts:
                    tree.add(f"{text}: [ok]Cleared[/ok]")
                console().print(tree)


HTTP_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def clear_limit(
    state: AppState, limit: RuntimeLimit, endpoint: str, method: str | None, key: str
) -> None:
    bound, counter = counter_of(state, limit, endpoint, method, key)
    (state.instrumented or state.storage).clear([bound], [join_key(*counter)])


if __name__ == "__main__":
    cli()
