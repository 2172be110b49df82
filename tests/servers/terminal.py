"""A command of Weir on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from pathlib import Path

import pytest


class Screen:
    """A program on a separate terminal."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        if not Path("/dev/ptmx").exists():
            pytest.skip("there are no terminals here: /dev/ptmx is missing")
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm", "COLUMNS": "120", "LINES": "40", **(env or {})})
            os.execv(sys.executable, [sys.executable, "-m", "weir", *arguments])
        size = struct.pack("HHHH", 40, 120, 0, 0)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)
        self.seen = ""

    def read(self, seconds: float) -> str:
        """Wait for output, at most so many seconds; all output until now."""
        ready, _, _ = select.select([self.terminal], [], [], seconds)
        if ready:
            with contextlib.suppress(OSError):
                self.seen += os.read(self.terminal, 65536).decode(errors="replace")
        return self.seen

    def until(self, text: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while text not in self.seen and time.monotonic() < deadline:
            self.read(0.05)
        return text in self.seen

    def end(self, key: bytes = b"\x03") -> int:
        """Press Ctrl-C, and return the exit code."""
        with contextlib.suppress(OSError):
            os.write(self.terminal, key)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.terminal)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)
        raise AssertionError(f"does not end: {self.seen[-2000:]}")
