"""Exit codes, and the exceptions that end a command with them."""

from __future__ import annotations

from typing import IO, Any

import click

#: All is well.
FINE = 0
#: It worked, and there is something to look at.
WARNED = 1
#: An argument or an input cannot be read.
UNREADABLE = 2
#: The store is not there, or does not answer.
AWAY = 3
#: This kind of store cannot do that.
UNABLE = 4
#: By Ctrl-C, as a shell says it.
INTERRUPTED = 130

EXIT_CODES = """\
\b
Exit codes:
  0    done, nothing to remark
  1    done, and there is something to look at: a warning of `check`, lines
       that `simulate` could not read, nothing to `reset` or `unlist`
  2    an argument or an input cannot be read
  3    the store is not there or does not answer
  4    this kind of store cannot do that
  130  interrupted
"""


class Stop(click.ClickException):
    """Ends the command: a sentence on standard error and an exit code."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"weir: {self.format_message()}", file=file, err=file is None)


class Unreadable(Stop):
    """An argument or an input that cannot be read."""

    exit_code = UNREADABLE


class Away(Stop):
    """A store that is not there, or does not answer."""

    exit_code = AWAY


class Unable(Stop):
    """Something that this kind of store cannot do."""

    exit_code = UNABLE
