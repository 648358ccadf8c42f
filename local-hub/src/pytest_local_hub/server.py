"""The HTTP server: it listens, and closes all its connections when it stops."""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from http.server import BaseHTTPRequestHandler

    from pytest_local_hub.faults import Faults
    from pytest_local_hub.log import Log
    from pytest_local_hub.routing import Route
    from pytest_local_hub.store import Store


class Server(ThreadingHTTPServer):
    """A server on 127.0.0.1, in a thread for each connection.

    Args:
        handler: The class that handles requests.
        store: The repositories that are served.
        routes: The functions that answer requests.
        faults: The faults to cause.
        log: The log of requests.

    Attributes:
        closing: Set when the server stops.
        failures: Errors of the server; a disconnected client does not count.
    """

    daemon_threads = True
    request_queue_size = (
        128  # clients that connect at once; with the default of five, the sixth would wait for a second
    )

    def __init__(
        self,
        handler: type[BaseHTTPRequestHandler],
        store: Store,
        routes: Sequence[Route],
        faults: Faults,
        log: Log,
    ) -> None:
        self.store, self.routes, self.faults, self.log = store, routes, faults, log
        self.closing = threading.Event()
        self.failures: list[BaseException] = []
        self._connections: set[socket.socket] = set()
        self._uploads = tempfile.TemporaryDirectory(prefix="local-hub-")
        super().__init__(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def start(self) -> None:
        """Start to answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and close all connections."""
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._uploads.cleanup()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self.server_address[1]

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def content_url(self) -> str:
        """The address of large files: another host name, as on the real Hub."""
        return f"http://localhost:{self.port}"

    @property
    def uploads(self) -> Path:
        """The folder for uploaded files."""
        return Path(self._uploads.name)

    def opened(self, connection: socket.socket) -> None:
        """Remember a connection, to close it when the server stops."""
        self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - http.server's signature
        """Keep an error, so that the test fails."""
        error = sys.exception()
        if error and not isinstance(
            error, ConnectionError | TimeoutError
        ):  # a client may disconnect at any time
            self.failures.append(error)
