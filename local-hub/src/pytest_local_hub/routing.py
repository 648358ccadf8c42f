"""Map requests to the functions that answer them, and responses other than the requested one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Abbreviations in route patterns. Their groups become arguments of the function that answers.
PARTS = {
    "api": "/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)",
    "page": "/(?:(?P<kind>datasets)/)?(?P<name>[^/]+/[^/]+)",
    "rev": "(?P<rev>[^/]+)",
    "ref": "(?P<ref>[^/]+)",
    "path": "(?P<path>.+)",
    "oid": "(?P<oid>[0-9a-f]{64})",
}


class Answer(Exception):  # noqa: N818 - not an error: it unwinds to where responses are sent
    """A response other than the requested one."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        body: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.body = status, body or {"error": message}
        self.headers = {
            **({} if body else {"X-Error-Message": message}),
            **({"X-Error-Code": code} if code else {}),
            **(headers or {}),
        }


class Route(NamedTuple):
    """Requests of one kind.

    Args:
        method: Their method; ``HEAD`` is answered like ``GET``.
        pattern: The pattern of their path.
        answer: The function that answers; called with the handler, and with the pattern's groups by name.
    """

    method: str
    pattern: re.Pattern[str]
    answer: Callable[..., None]


def route(method: str, pattern: str, answer: Callable[..., None]) -> Route:
    """Return a route. Names in braces in the pattern are those of ``PARTS``.

    ``{api}`` matches ``/api/models/owner/name``, and the same of data sets; ``{page}`` matches ``/owner/name``. Both give
    ``kind`` and ``name``.
    """
    for name, part in PARTS.items():
        pattern = pattern.replace("{" + name + "}", part)
    return Route(method, re.compile(pattern), answer)


def find(
    routes: Iterable[Route], method: str, path: str
) -> tuple[Callable[..., None], dict[str, str]] | None:
    """Return the function that answers a request, and its arguments; None if no route matches."""
    method = "GET" if method == "HEAD" else method
    for route_ in routes:
        match = route_.pattern.fullmatch(path)
        if match and route_.method == method:
            return route_.answer, {
                name: unquote(value) for name, value in match.groupdict(default="").items()
            }
    return None
