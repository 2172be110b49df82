"""A server that speaks MongoDB's protocol."""

from __future__ import annotations

import pytest

from servers.process import Server


class FerretDB(Server):
    """Speaks MongoDB's protocol; tests/ferretdb tells how it is built. Skipped where it is not."""

    program = "ferretdb"

    def command(self) -> list[str]:
        return [self.program, f"127.0.0.1:{self.port}", str(self.directory)]

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/limits"

    def answers(self) -> bool:
        pymongo = pytest.importorskip("pymongo")
        with pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=500) as client:
            return bool(client.admin.command("ping")["ok"])
