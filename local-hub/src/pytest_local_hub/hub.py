"""The local Hub as tests use it: what it holds, served over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pytest_local_hub import reading, writing
from pytest_local_hub.faults import Fault, Faults
from pytest_local_hub.handler import Handler
from pytest_local_hub.log import Log
from pytest_local_hub.server import Server
from pytest_local_hub.store import Store

if TYPE_CHECKING:
    from pytest_local_hub.faults import Kind
    from pytest_local_hub.log import Request

ROUTES = reading.ROUTES + writing.ROUTES


class LocalHub(Store):
    """A Hub on this machine, as a context manager.

    Large files are served from another host name than the rest, as the real Hub does it, since the client forwards
    the token to the same host only and reads a redirect to another host as the file's description.
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
        """Where large files come from."""
        return self._server.content_url

    @property
    def requests(self) -> list[Request]:
        """What has been asked so far, in the order in which it was answered; waits for answers under way."""
        return self._log.read()

    def forget(self) -> None:
        """Empty the log of requests."""
        self._log.clear()

    @property
    def faults(self) -> list[Fault]:
        """The faults that were asked for, those that are used up too; may be emptied."""
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
        """Misbehave on the next requests of a kind. Faults are used up in the order in which they were asked for.

        Args:
            method: The request's method; ``*`` for any.
            pattern: Regular expression, searched in the request's path.
            kind: A status to answer with, or one of ``Kind``.
            times: How often.
            seconds: How long ``slow`` takes.
            headers: Of an answer with a status, e.g. ``Retry-After``; of ``header`` those to send in place of its own,
                where None leaves one out.
            message: Of an answer with a status; ``{token}`` in it becomes the token that was sent.
            late: Whether what was asked for is done before the answer with a status.
        """
        self.faults.append(Fault(method, pattern, kind, times, seconds, headers or {}, message, late))
