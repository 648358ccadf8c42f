"""The log of requests."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 5.0  # to wait for responses in progress


@dataclass(frozen=True)
class Request:
    """A request and its response; ``bytes_sent`` counts only the body."""

    method: str
    path: str
    query: str
    host: str
    range: str | None
    token: str | None
    status: int
    bytes_sent: int


class Log:
    """Requests in the order of their responses."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._busy = 0
        self._idle = threading.Condition()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Make readers of the log wait while a request is answered."""
        with self._idle:
            self._busy += 1
        try:
            yield
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def add(self, request: Request) -> None:
        """Add a request that was answered."""
        with self._idle:
            self._requests.append(request)

    def read(self) -> list[Request]:
        """Return the requests so far; waits for responses in progress."""
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=PATIENCE_S)
            return list(self._requests)

    def clear(self) -> None:
        """Clear the log; waits for responses in progress."""
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=PATIENCE_S)
            self._requests.clear()
