"""Removes control characters and line breaks from log lines, and bounds their length.

A filter on each of Weir's loggers cleans the texts of records, so that the name of a client, an
error text of a server or the name of a view can neither forge a line nor fill the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from ._clock import monotonic
from ._locks import new_lock
from ._text import LINE_MAX, printable

__all__ = ["LOGGERS", "SeldomLine", "clean_loggers", "keys_as_in_flask_limiter", "shows_keys"]

#: The loggers that Weir writes to. (``weir.audit`` writes JSON, whose values it cleans itself.)
LOGGERS = ("weir", "flask-limiter")

#: Seconds between two lines of one kind that a client can cause with each of its requests.
PAUSE = 10.0

#: Errors of a chain (``__cause__``, ``__context__``) that are logged.
_CHAIN_MAX = 8


class _Clean(logging.Filter):
    """Replaces the text of a record that is not fit to print; other records stay as they are."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if len(text) > LINE_MAX or not text.isprintable():
            record.msg, record.args = printable(text, LINE_MAX), None
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            record.exc_text = "\n".join(_traceback(record.exc_info[1]))
        return True


def _traceback(error: BaseException) -> Iterator[str]:
    """The lines of a traceback; an error's own text is one line, cut and escaped."""
    import traceback

    chain = [(error, "")]
    while len(chain) < _CHAIN_MAX:
        last = chain[-1][0]
        if last.__cause__ is not None:
            why = "The above exception was the direct cause of the following exception:"
            chain.append((last.__cause__, why))
        elif last.__context__ is not None and not last.__suppress_context__:
            why = "During handling of the above exception, another exception occurred:"
            chain.append((last.__context__, why))
        else:
            break
    for one, before_next in reversed(chain):
        if one.__traceback__ is not None:
            yield "Traceback (most recent call last):"
            for frame in traceback.format_tb(one.__traceback__):
                yield from frame.rstrip("\n").split("\n")
        text = printable(str(one), LINE_MAX)
        name = type(one).__qualname__
        module = type(one).__module__
        name = name if module in ("builtins", "__main__") else f"{module}.{name}"
        yield f"{name}: {text}" if text else name
        if before_next:
            yield f"\n{before_next}\n"


class SeldomLine:
    """A kind of line that is written once in :data:`PAUSE` seconds, however often it is caused.

    The next line that is written says how many were left out. Threads may share it.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._lock = new_lock()
        self._next_at = float("-inf")
        self._left_out = 0

    def error(self, logger: logging.Logger, text: str, *arguments: object, **how: Any) -> None:
        """Log an error, or count that it was left out. ``how``: as for ``logger.error()``."""
        self._log(logging.ERROR, logger, text, arguments, how)

    def warning(self, logger: logging.Logger, text: str, *arguments: object) -> None:
        """Log a warning, or count that it was left out."""
        self._log(logging.WARNING, logger, text, arguments, {})

    def _log(
        self,
        level: int,
        logger: logging.Logger,
        text: str,
        arguments: tuple[object, ...],
        how: dict[str, Any],
    ) -> None:
        with self._lock:
            now = self.clock()
            if now < self._next_at:
                self._left_out += 1
                return
            self._next_at = now + PAUSE
            left_out, self._left_out = self._left_out, 0
        if left_out:
            text += " (%d more such requests since the last such line)"
            arguments += (left_out,)
        logger.log(level, text, *arguments, **how)


_CLEAN = _Clean()
_shows_keys = False


def keys_as_in_flask_limiter() -> None:
    """Show clients' keys in clear in the log line about a denied request, as Flask-Limiter does.

    Programs that use :mod:`weir.compat` may parse that line.
    """
    global _shows_keys
    _shows_keys = True


def shows_keys() -> bool:
    """Whether keys are logged in clear. Otherwise those that are not addresses are hashed."""
    return _shows_keys


def clean_loggers() -> None:
    """Put the filter on our loggers; does nothing the second time."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_CLEAN)
