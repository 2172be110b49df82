"""The suite of weir.testing on Weir's own stores."""

from __future__ import annotations

from typing import Any

import pytest

from weir.storage import storage_from_string
from weir.testing import StoreConformance


class TestStores(StoreConformance):
    @pytest.fixture(autouse=True, params=["redis", "memcached", "postgresql"])
    def _servers(self, servers: Any, request: pytest.FixtureRequest) -> None:
        self.scheme: str = request.param
        self.atomic = request.param != "memcached"
        self.uri = getattr(servers, self.scheme).uri

    def open_store(self) -> Any:
        options = {"create": True} if self.scheme == "postgresql" else {}
        return storage_from_string(self.uri, socket_timeout=20.0, **options)
