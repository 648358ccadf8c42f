"""The log of requests."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 5.0  # for answers under way


@dataclass(frozen=True)
class Request:
    """A request as it was answered; ``bytes_sent`` counts the body alone."""

    method: str
    path: str
    query: str
    host: str
    range: str | None
    token: str | None
    status: int
    bytes_sent: int


class Log:
    """Requests in the order in which they were answered."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._busy = 0
        self._idle = threading.Condition()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Keep those who want to read the log waiting while a request is answered."""
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
        """Return what has been asked so far; waits for answers under way."""
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=PATIENCE_S)
            return list(self._requests)

    def clear(self) -> None:
        """Empty it; waits for answers under way."""
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=PATIENCE_S)
            self._requests.clear()
