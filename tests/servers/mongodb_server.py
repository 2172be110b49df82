"""Servers that speak MongoDB's protocol. MongoDB itself is in no package registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.process import Server

ROOT = Path(__file__).parents[2]
JARS = ROOT / "build/mongodb"


class MongoProtocol(Server):
    #: Whether the second of two concurrent updates of a document sees the result of the first.
    atomic: bool

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/limits"

    def answers(self) -> bool:
        pymongo = pytest.importorskip("pymongo")
        with pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=500) as client:
            return bool(client.admin.command("ping")["ok"])


class MongoJavaServer(MongoProtocol):
    """mongo-java-server, in memory. script/setup installs it if Java and Maven are available."""

    program = "java"
    atomic = True

    def command(self) -> list[str]:
        source = ROOT / "tests/mongodb/Server.java"
        options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*"]
        return [self.program, *options, str(source), "127.0.0.1", str(self.port)]


class FerretDB(MongoProtocol):
    """tests/ferretdb describes how to build it. Its updates with a condition are not atomic."""

    program = "ferretdb"
    atomic = False

    def command(self) -> list[str]:
        return [self.program, f"127.0.0.1:{self.port}", str(self.directory)]


def mongo_server(directory: Path) -> MongoProtocol:
    """Starts the one that is installed; skips the test if there is none."""
    kind = MongoJavaServer if (JARS / "stamp").exists() else FerretDB
    return kind(directory).start()
