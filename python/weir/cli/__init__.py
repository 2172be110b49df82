"""``weir`` on the command line: explain limits, replay logs, watch and control running limiters.

``weir --help`` lists the commands; ``docs/cli.md`` describes them. The commands need click (which
Flask installs); with rich, the output is coloured. ``pip install click rich`` installs both.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code.

    arguments: the arguments after ``weir``; ``None``: those of the process.
    """
    try:
        import weir._own  # noqa: F401
    except ImportError as error:  # another distribution has overwritten files
        sys.stderr.write(f"weir: {error}\n")
        raise SystemExit(2) from None
    try:
        import click  # noqa: F401
    except ImportError:
        sys.stderr.write("weir: the command line needs click: pip install click\n")
        raise SystemExit(2) from None
    from .main import run

    run(arguments)
