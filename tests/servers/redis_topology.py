"""Several servers of Redis or Valkey: sentinels, clusters."""

from __future__ import annotations

import subprocess
from pathlib import Path

from servers.ports import wait_for
from servers.redis_server import RedisServer, ValkeyServer


class Sentinels:
    """A master, a replica, and three sentinels."""

    def __init__(
        self, directory: Path, kind: type[RedisServer] = RedisServer, down_after: int = 400
    ) -> None:
        """down_after: milliseconds of silence after which a master is replaced."""
        self.scheme = "valkey" if kind is ValkeyServer else "redis"
        self.master = kind(directory / "master").start()
        self.replica = kind(
            directory / "replica", ["--replicaof", "127.0.0.1", str(self.master.port)]
        ).start()
        self.sentinels: list[RedisServer] = []
        for i in range(3):
            sentinel = kind(directory / f"sentinel{i}")
            settings = sentinel.directory / "sentinel.conf"
            settings.write_text(
                f"port {sentinel.port}\nbind 127.0.0.1\n"
                f"sentinel monitor shop 127.0.0.1 {self.master.port} 2\n"
                f"sentinel down-after-milliseconds shop {down_after}\n"
                "sentinel failover-timeout shop 2000\n"
            )
            command = [kind.program, str(settings), "--sentinel"]
            sentinel.command = lambda command=command: command  # type: ignore[method-assign,misc]
            self.sentinels.append(sentinel.start())
        wait_for(self.ready)

    def ready(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                state = client.sentinel_master("shop")
            if state["num-other-sentinels"] != 2 or state["num-slaves"] != 1:
                return False
        with self.replica.client() as client:
            return client.info("replication")["master_link_status"] == "up"

    def master_port(self) -> int:
        with self.sentinels[0].client() as client:
            return int(client.sentinel_get_master_addr_by_name("shop")[1])

    def all_name(self, server: RedisServer) -> bool:
        """Whether each sentinel lists this server as the master."""
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                if client.sentinel_master("shop")["port"] != server.port:
                    return False
        return True

    @property
    def uri(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"{self.scheme}+sentinel://{hosts}/shop"

    def servers(self) -> list[RedisServer]:
        return [server for server in (self.master, self.replica) if server.process]

    def stop(self) -> None:
        for server in [*self.sentinels, self.replica, self.master]:
            server.stop()


class Cluster:
    """Three nodes that share the slots."""

    def __init__(
        self, directory: Path, kind: type[RedisServer] = RedisServer, down_after: int = 1000
    ) -> None:
        """down_after: milliseconds of silence after which a node counts as failed."""
        self.scheme = "valkey" if kind is ValkeyServer else "redis"
        self.nodes = [
            kind(
                directory / f"node{i}",
                [
                    *("--cluster-enabled", "yes", "--cluster-node-timeout", str(down_after)),
                    *("--cluster-config-file", "nodes.conf"),
                    *("--cluster-require-full-coverage", "no"),
                ],
            ).start()
            for i in range(3)
        ]
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        subprocess.run(
            ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"],
            check=True,
            capture_output=True,
        )
        wait_for(self.ready)

    def ready(self) -> bool:
        for node in self.nodes:
            with node.client() as client:
                info = client.execute_command("CLUSTER INFO")
            if info["cluster_state"] != "ok" or info["cluster_known_nodes"] != "3":
                return False
        return True

    @property
    def uri(self) -> str:
        return f"{self.scheme}+cluster://" + ",".join(
            f"127.0.0.1:{node.port}" for node in self.nodes
        )

    def servers(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.process]

    def node_of(self, slot: int) -> RedisServer:
        with self.nodes[0].client() as client:
            slots = client.execute_command("CLUSTER SLOTS")
        port = next(master[1] for first, last, master, *_ in slots if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
