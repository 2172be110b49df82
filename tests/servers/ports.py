"""Free ports, and functions that wait."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from typing import Any

#: Seconds: enough for anything that is not stuck, also on a busy machine.
PATIENCE = 120.0

#: A Unix socket for each returned port: its name reserves the port among the processes of a run.
_claims: list[socket.socket] = []


def wait_for(what: Callable[[], Any], seconds: float = PATIENCE, pause: float = 0.02) -> Any:
    """Calls ``what`` until its result is true, and returns that result. Exceptions are ignored."""
    end = time.monotonic() + seconds
    while True:
        error: Exception | None = None
        try:
            answer = what()
            if answer:
                return answer
        except Exception as raised:
            error = raised
        if time.monotonic() > end:
            raise AssertionError("it did not become true in time") from error
        time.sleep(pause)


def quickest(measure: Callable[[], float], enough: float, times: int = 8) -> float:
    """The shortest of several measurements, once one is shorter than ``enough``.

    On a busy machine a call takes longer, and never shorter.
    """
    shortest = measure()
    for _ in range(times - 1):
        if shortest < enough:
            break
        shortest = min(shortest, measure())
    return shortest


def free_port() -> int:
    """A free loopback port. The port 10000 above it, for the bus of a Cluster, is free, too.

    It is below the ports that the kernel uses for connections, so it stays free until a server
    binds it.
    """
    while True:
        port = random.randrange(11_000, 22_000)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0weir-test-port-{port}")
            with socket.socket() as probe, socket.socket() as above:
                probe.bind(("127.0.0.1", port))
                above.bind(("127.0.0.1", port + 10_000))
        except OSError:
            claim.close()
        else:
            _claims.append(claim)
            return port


def listens(address: tuple[str, int] | str) -> bool:
    """Whether a server listens at a TCP address, or at the path of a Unix socket."""
    kind = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(kind) as client:
        client.settimeout(PATIENCE)
        return client.connect_ex(address) == 0
