"""A server's process: started, waited for, frozen, stopped."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from servers.ports import PATIENCE, free_port, wait_for


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def launch(
    command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a command in a new process group; its output goes to ``log``.

    ``env`` is added to this process's environment. The kernel kills the command if the tests die.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=_die_with_parent,
            **options,
        )


def wait_until(
    ready: Callable[[], Any], process: subprocess.Popen[bytes], log: Path, seconds: float = PATIENCE
) -> None:
    """Wait until a launched server is ready; fail with its log if it ends or is late."""

    def ready_or_ended() -> bool:
        return process.poll() is not None or bool(ready())

    try:
        wait_for(ready_or_ended, seconds)
    except AssertionError as error:
        raise AssertionError(f"no answer:\n{log.read_text(errors='replace')}") from error
    assert process.poll() is None, f"it ended:\n{log.read_text(errors='replace')}"


def end(
    process: subprocess.Popen[bytes], how: int = signal.SIGTERM, seconds: float = PATIENCE
) -> None:
    """Stop a launched server by a signal, then kill what is left of its process group."""
    process.send_signal(how)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(seconds)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], ready: Callable[[], Any], log: Path, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server during the block, which begins when the server is ready."""
    process = launch(command, log, **options)
    try:
        wait_until(ready, process, log)
        yield process
    finally:
        end(process)


class Server:
    """A process that listens on a port; can be stopped, killed, frozen, and started again."""

    program = ""
    user: str | None = None

    def __init__(self, directory: Path, arguments: Sequence[str] = ()) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.arguments = [*arguments]
        self.process: subprocess.Popen[bytes] | None = None
        if shutil.which(self.program) is None:  # script/setup installs them all
            pytest.skip(f"{self.program} is not installed")

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> Any:
        log = self.directory / "log"
        self.process = launch(self.command(), log, cwd=self.directory, user=self.user)
        wait_until(self.answers, self.process, log)
        return self

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        end(self.process, how)
        self.process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The process is stopped: the kernel accepts connections, but nothing is answered."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{self.pid}/stat")
        wait_for(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
            wait_for(self.answers)
