"""The group of commands; :mod:`.main` adds the commands to it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from .. import __version__
from .._text import LINE_MAX, printable
from .errors import EXIT_CODES, Away, Stop, Unreadable

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@contextlib.contextmanager
def _clean_errors() -> Iterator[None]:
    """Errors of click repeat arguments and names of files, which are escaped here."""
    try:
        yield
    except (Stop, click.exceptions.NoArgsIsHelpError):
        raise  # the first cleans its own text, the second is the help
    except click.ClickException as error:
        for name in ("message", "ui_filename"):
            if hasattr(error, name):
                setattr(error, name, printable(getattr(error, name), LINE_MAX))
        raise


class Commands(click.Group):
    """Ends without an error when the reader of a pipe ends: ``weir … | head``."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _clean_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _clean_errors():
                result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except UnicodeEncodeError as error:  # an argument with bytes of another encoding
            raise Unreadable(f"{printable(error.object)!r} is not UTF-8 text") from None
        except OSError as error:  # a name that is too long, say
            raise Away(printable(error, LINE_MAX)) from None
        return result


@click.group(cls=Commands, context_settings=CONTEXT, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="weir")
@click.option("-s", "--store", metavar="URI", help="The store, for every command; see above.")
@click.pass_context
def cli(context: click.Context, store: str | None) -> None:
    """Explain rate limits, replay logs, watch and control running limiters.

    Commands on a store read its URI from --store (-s) or the environment variable WEIR_STORE:
    shm://name, file:///path, redis://…, valkey://…, postgresql://… or memcached://…. Without a URI,
    they use the table of the server that runs on this host, if there is exactly one. WEIR_STORES
    names the modules of custom stores.
    """
    context.obj = store
