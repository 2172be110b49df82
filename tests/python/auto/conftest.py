"""What the tests of automatic storages share."""

from __future__ import annotations

import collections
import os
import sys
from collections.abc import Iterator

import pytest

from weir.stores import auto
from weir.stores.auto import Server


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "_warned", False)
    monkeypatch.setattr(auto, "_made", collections.Counter())
    monkeypatch.setattr(auto, "_owners", {})
    monkeypatch.setenv("WEIR_SERVER", "")  # removed in the end, whatever the test sets
    monkeypatch.delitem(sys.modules, "gunicorn.arbiter", raising=False)  # of another test


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """This process is a worker of its parent, as ``server()`` detects it."""
    server = Server(os.getppid(), auto._started(os.getppid()))
    monkeypatch.setattr(auto, "server", lambda: server)
    yield server
    for table in auto.automatic_tables():
        if table.server[:2] == server[:2]:
            table.path.unlink(missing_ok=True)
