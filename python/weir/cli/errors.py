"""Exit codes, and the exceptions that end a command with them."""

from __future__ import annotations

from typing import IO, Any

import click

from .._text import printable_lines

#: Done.
FINE = 0
#: Done, with a warning.
WARNED = 1
#: An argument or an input cannot be read.
UNREADABLE = 2
#: The store does not exist, or does not answer.
AWAY = 3
#: This kind of store does not support the command.
UNABLE = 4
#: By Ctrl-C, as shells report it.
INTERRUPTED = 130

EXIT_CODES = """\
\b
Exit codes:
  0    done
  1    done, with a warning: `check` found a limit without effect, `simulate`
       could not read some lines, `reset` or `unlist` found nothing to do, or
       `doctor` found something to change
  2    an argument or an input cannot be read
  3    the store does not exist or does not answer
  4    this kind of store does not support the command
  130  interrupted
"""


class Stop(click.ClickException):
    """Ends the command: a sentence on standard error and an exit code."""

    def show(self, file: IO[Any] | None = None) -> None:
        text = printable_lines(f"weir: {self.format_message()}")
        click.echo(text, file=file, err=file is None)


class Unreadable(Stop):
    """An argument or an input that cannot be read."""

    exit_code = UNREADABLE


class Away(Stop):
    """A store that does not exist, or does not answer."""

    exit_code = AWAY


class Unable(Stop):
    """A command that this kind of store does not support."""

    exit_code = UNABLE
