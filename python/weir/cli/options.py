"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ..strategies import STRATEGIES
from .discover import tables
from .words import parse_duration

if TYPE_CHECKING:
    _ParamType = click.ParamType[float]
else:
    _ParamType = click.ParamType

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

#: Where the context has the value of --prefix.
PREFIX = "weir.prefix"

strategy_choice = click.Choice(list(STRATEGIES))

tz_option = click.option(
    "--tz", metavar="ZONE", help="Time zone of calendar-window: Europe/Berlin, +05:30."
)


def _complete(context: Any, option: Any, begun: str) -> list[CompletionItem]:
    """The stores of this host, for completion in the shell."""
    return [
        CompletionItem(found.uri, help=found.command or None)
        for found in tables()
        if found.uri.startswith(begun)
    ]


def _keep(context: click.Context, _: Any, value: str | None) -> str | None:
    context.meta[PREFIX] = value
    return value


def store_options(command: Command) -> Command:
    """--store, --prefix and --json."""
    command = click.option(
        "--prefix", metavar="NAME", expose_value=False, callback=_keep,
        help="Only the application with this key_prefix, if several share a store.",
    )(command)  # fmt: skip
    option = click.option(
        "-s", "--store", "store_uri", metavar="URI", help="The store.", shell_complete=_complete
    )
    return option(json_option(command))


def limit_options(command: Command) -> Command:
    """The options that choose limits: --limit, --strategy, --tz and --scope."""
    for option in (
        click.option("--scope", metavar="TEXT", help="With --limit: the key after the client."),
        tz_option,
        click.option(
            "--strategy", type=strategy_choice, help="With --limit: the strategy of these limits."
        ),
        click.option(
            "--limit", "limits", metavar="LIMITS",
            help="Use these limits instead of those that weir.flask has registered.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


class Duration(_ParamType):
    """``90s``, ``15m``, ``1h``, ``7d`` or ``forever``; in seconds, infinite for ``forever``."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        try:
            return seconds_of(value) if isinstance(value, str) else float(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def seconds_of(text: str) -> float:
    """A duration in seconds, infinite for ``forever``; raises ValueError."""
    seconds = parse_duration(text)
    return float("inf") if seconds is None else seconds
