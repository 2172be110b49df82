"""Requests in the background."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def hammering(request: Callable[[], object], pause: float = 0.0) -> Iterator[None]:
    """Calls `request` again and again in a thread, with a pause in seconds between the calls."""
    stop = threading.Event()

    def hammer() -> None:
        while not stop.wait(pause):
            request()

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
