"""Memcached."""

from __future__ import annotations

import ctypes
import socket

from servers.process import Server


class Memcached(Server):
    program = "memcached"

    def command(self) -> list[str]:
        return [
            "memcached",
            *("-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-m", "64"),
            *(("-u", "root") if ctypes.CDLL(None).getuid() == 0 else ()),
            *self.arguments,
        ]

    def send(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            connection.sendall(command + b"\r\n")
            lists = command.split()[0] in (b"stats", b"get", b"lru_crawler")
            answer = b""
            while not answer.endswith(b"END\r\n" if lists else b"\r\n"):
                part = connection.recv(65536)
                assert part, answer
                answer += part
            return answer

    def answers(self) -> bool:
        return self.send(b"version").startswith(b"VERSION")

    def seconds(self) -> int:
        """The server's own clock, by which values expire. It ticks once a second."""
        lines = self.send(b"stats").split(b"\r\n")
        return next(int(line.split()[2]) for line in lines if line.startswith(b"STAT time "))

    @property
    def uri(self) -> str:
        return f"memcached://127.0.0.1:{self.port}"
