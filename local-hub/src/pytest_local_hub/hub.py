"""The local Hub as tests use it: a store, served over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pytest_local_hub import publishers, reading, writing
from pytest_local_hub.faults import Fault, Faults
from pytest_local_hub.handler import Handler
from pytest_local_hub.log import Log
from pytest_local_hub.server import Server
from pytest_local_hub.store import Store

if TYPE_CHECKING:
    from pytest_local_hub.faults import Kind
    from pytest_local_hub.log import Request

ROUTES = reading.ROUTES + writing.ROUTES + publishers.ROUTES


class LocalHub(Store):
    """A Hub on this machine, as a context manager.

    Large files are served from another host name than the rest, as on the real Hub: the client sends the
    token only to the same host, and reads the file's description from a redirect to another host.
    """

    def __init__(self) -> None:
        super().__init__()
        self._faults = Faults()
        self._log = Log()

    def __enter__(self) -> Self:
        self._server = Server(Handler, self, ROUTES, self._faults, self._log)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        if self._server.failures:
            raise self._server.failures[0]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.port

    @property
    def url(self) -> str:
        """The endpoint, for ``HF_ENDPOINT``."""
        return self._server.url

    @property
    def content_url(self) -> str:
        """The address of large files."""
        return self._server.content_url

    @property
    def requests(self) -> list[Request]:
        """The requests so far, in the order of their responses; waits for responses in progress."""
        return self._log.read()

    def forget(self) -> None:
        """Empty the log of requests."""
        self._log.clear()

    @property
    def faults(self) -> list[Fault]:
        """The requested faults, including used ones; the list may be cleared."""
        return self._faults.all

    def fault(
        self,
        method: str,
        pattern: str,
        kind: int | Kind,
        times: int = 1,
        *,
        seconds: float = 1.0,
        headers: dict[str, str | None] | None = None,
        message: str | None = None,
        late: bool = False,
    ) -> None:
        """Make the next matching requests fail. Faults are used up in the order in which they were requested.

        Args:
            method: The request's method; ``*`` for any.
            pattern: Regular expression, searched in the request's path.
            kind: A status of the response, or one of ``Kind``.
            times: How often it occurs.
            seconds: How long ``slow`` takes.
            headers: Headers of a response with a status, e.g. ``Retry-After``; for ``header`` those to send in place of its
                own, where None leaves one out.
            message: Message of a response with a status; ``{token}`` in it is replaced by the token that was sent.
            late: Whether the request is carried out before the response with a status.
        """
        self.faults.append(Fault(method, pattern, kind, times, seconds, headers or {}, message, late))
