"""What this process has received from the Hub. Apart from `hub`, so that who reads only folders loads no client."""

from __future__ import annotations

from threading import Lock


class Traffic:
    """What this process has received from the Hub, except for the files that ``download`` wrote to the cache.

    Attributes:
        received_bytes: Bytes of answers' bodies.
        requests: Number of requests; one that is redirected to another host counts once.
    """

    def __init__(self) -> None:
        self.received_bytes = self.requests = 0
        self._lock = Lock()

    def count(self, received_bytes: int, requests: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            self.received_bytes += received_bytes
            self.requests += requests


TRAFFIC = Traffic()
