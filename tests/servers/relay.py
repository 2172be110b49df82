"""Listeners of tests: between a client and its server, or in place of a server."""

from __future__ import annotations

import contextlib
import socket
import threading


class Listener:
    """Accepts connections on a free loopback port and serves each in a thread."""

    def __init__(self) -> None:
        #: The number of accepted connections.
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            self.serve(client)

    def serve(self, client: socket.socket) -> None:
        """Serve one connection; it is closed afterwards."""
        raise NotImplementedError

    @staticmethod
    def hang_up(*sockets: socket.socket) -> None:
        """Close connections, also for threads that are waiting for them."""
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        self.hang_up(self._listener, *self._open)


class Relay(Listener):
    """Forwards connections to a server on this host."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        super().__init__()

    def serve(self, client: socket.socket) -> None:
        server = socket.create_connection(self._server)
        self._open.append(server)
        threading.Thread(target=self.answer, args=(client, server), daemon=True).start()
        self.forward(client, server)

    def forward(self, client: socket.socket, server: socket.socket) -> None:
        """Forward requests until the client or the server closes its connection."""
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        self.hang_up(client, server)

    def answer(self, client: socket.socket, server: socket.socket) -> None:
        """Forward the replies of the server."""
        raise NotImplementedError
