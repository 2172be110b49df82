"""Random applications and requests on Flask-Limiter and on Weir: the same status, body, headers.

Where Weir differs on purpose it is named in docs/differences.md, and either Flask-Limiter is made
to do the same here (``differential/adjusted.py``), or what differs is not compared
(``differential/compare.py``). Both use the names in ``DIFFERENCES``; the last test checks that each
is needed and documented.

A failure prints the seed, the application and the requests. ``WEIR_SEED=N`` begins with another
application than the first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pprint
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask_limiter
import pytest

import weir
import weir.flask
import weir.storage
from clocks import Clock, stop_clock
from differential.adjusted import adjust
from differential.build import build
from differential.compare import compare, send
from differential.describe import Maker
from differential.differences import DIFFERENCES, used

CHUNKS = 24
APPS = 30
SEQUENCES = 3
# A whole run takes about 40 s; WEIR_SEED=N looks at other applications.
FIRST_SEED = int(os.environ.get("WEIR_SEED", "0"))


class Plain(weir.storage.Storage):
    """A store that is not a table, like remote stores; it uses the test's clock."""

    STORAGE_SCHEME = ("plain", "peeking")

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(uri)
        self.table = weir.Table("memory://?keys=4096")
        self.PEEKS = uri.startswith("peeking")

    def decide(self, *arguments: Any) -> weir.Decision:
        return self.table.decide(*arguments)

    def clear(self, *arguments: Any) -> None:
        self.table.clear(*arguments)

    def reset(self) -> None:
        self.table.reset()


#: Where Weir counts: each application on one of them.
STORES = ("memory://", f"shm://differential-{os.getpid()}?keys=8192", "plain://", "peeking://")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Both sides read it. It moves in 64ths of a second, which both represent exactly."""
    return stop_clock(monkeypatch, 0.0)


@pytest.fixture(autouse=True, scope="module")
def remove_shared_table() -> Iterator[None]:
    yield
    with contextlib.suppress(weir.TableError):
        weir.unlink(STORES[1].partition("?")[0])


@pytest.fixture
def quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("flask-limiter", "weir.audit")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.level = logging.CRITICAL + 1
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.level = level


def described(value: Any) -> Any:
    """The description without its unset fields."""
    if isinstance(value, dict):
        return {
            name: described(given)
            for name, given in value.items()
            if given not in (None, [], "") and (given is not False or name == "override_defaults")
        }
    return [described(item) for item in value] if isinstance(value, list) else value


def run(seed: int, clock: Clock) -> int:
    """One application, several sequences of requests; returns how many pairs were compared."""
    maker = Maker(seed)
    spec = maker.app()
    clock.now = (
        float(1_700_000_000 + maker.random.randrange(10**6)) + maker.random.randrange(64) / 64
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = build(flask_limiter, spec)
    store = STORES[seed % len(STORES)]
    ours = build(weir.flask, spec, store)
    ours[1].reset()
    for _ in range(SEQUENCES):
        requests = maker.requests(spec)
        for n, request in enumerate(requests):
            clock.now += request["wait"]
            reference = send(*theirs, request)
            wrong = compare(spec, request, reference, send(*ours, request))
            if wrong or reference.status == 500:
                pytest.fail(
                    f"seed {seed} on {store}, request {n}\n"
                    + "\n".join(wrong)
                    + f"\n{pprint.pformat(described(spec), sort_dicts=False, width=150)}\n"
                    + "\n".join(map(str, requests[: n + 1]))
                )
        theirs[1].reset()
        ours[1].reset()
        clock.now += 10**6
    return SEQUENCES


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_same_as_flask_limiter(
    chunk: int, clock: Clock, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    used["chunks"] += 1
    adjust(monkeypatch)
    first = FIRST_SEED + chunk * APPS
    for seed in range(first, first + APPS):
        run(seed, clock)


def test_there_are_enough_pairs_and_no_idle_differences() -> None:
    assert CHUNKS * APPS * SEQUENCES >= 2000
    text = (Path(__file__).parents[3] / "docs" / "differences.md").read_text()
    for name in DIFFERENCES:
        assert f"`{name}`" in text
        if used["chunks"] == CHUNKS:
            assert used[name], f"{name} never made a difference"
