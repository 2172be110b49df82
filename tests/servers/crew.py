"""Processes that do the same thing at the same time, again and again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

#: A process ends if a task takes longer than this many seconds.
PATIENCE = 300

PROGRAM = """
import faulthandler, json, sys

{source}

for line in iter(sys.stdin.readline, ""):
    faulthandler.dump_traceback_later({patience}, exit=True)
    work = prepare(json.loads(line))
    print(flush=True)
    sys.stdin.readline()
    print(json.dumps(work()), flush=True)
    faulthandler.cancel_dump_traceback_later()
"""


def nothing() -> None:
    pass


class Crew:
    """``source`` defines ``prepare(task)``, which returns a function that does the task.

    It is called before the start, the function at the start. Tasks and results are JSON.
    """

    def __init__(self, source: str, size: int) -> None:
        program = PROGRAM.format(source=source, patience=PATIENCE)
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(size)
        ]

    def run(self, tasks: Sequence[Any], meanwhile: Callable[[], None] = nothing) -> list[Any]:
        """One task for each process. Calls ``meanwhile`` after the start; if it fails, ends all."""
        for process, task in zip(self.processes, tasks, strict=True):
            send(process, json.dumps(task))
        for process in self.processes:
            assert receive(process) == ""
        for process in self.processes:
            send(process, "")
        try:
            meanwhile()
        except BaseException:
            self.end()
            raise
        return [json.loads(receive(process)) for process in self.processes]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def send(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin
    process.stdin.write(line + "\n")
    process.stdin.flush()


def receive(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    assert line, f"the process ended: {process.wait()}"
    return line.rstrip("\n")
