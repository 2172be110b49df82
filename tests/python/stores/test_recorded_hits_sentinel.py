"""Processes record each admitted hit while Sentinels switch: see servers/recorded_hits.py."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from servers.recorded_hits import Run, four_workers, third

pytestmark = pytest.mark.slow


@pytest.fixture
def sentinels(make_sentinels: Callable[[], Any]) -> Iterator[Any]:
    sentinels = make_sentinels()
    yield sentinels
    sentinels.stop()


def test_a_master_is_killed(run: Run, sentinels: Any) -> None:
    """What was not replicated yet may be admitted once more by the new master."""
    four_workers(run, sentinels.uri)
    third()
    sentinels.master.kill()
    run.finish()
    run.check(2)


def test_a_master_is_frozen_and_woken(run: Run, sentinels: Any, wait_for: Any) -> None:
    """One process knows only the old master, which counts until it learns that it is none."""
    for _ in range(3):
        run.add(sentinels.uri)
    run.add(sentinels.master.uri)
    run.start()
    third()
    with contextlib.ExitStack() as stack:
        stack.enter_context(sentinels.master.frozen())
        wait_for(lambda: sentinels.master_port() == sentinels.replica.port)
    run.finish()
    run.check(2)
