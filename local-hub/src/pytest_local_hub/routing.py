"""Which function answers which request, and answers other than the one that was asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# What stands for what in a route's pattern. Where it has groups, these become arguments of the function that answers.
PARTS = {
    "api": "/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)",
    "page": "/(?:(?P<kind>datasets)/)?(?P<name>[^/]+/[^/]+)",
    "rev": "(?P<rev>[^/]+)",
    "ref": "(?P<ref>[^/]+)",
    "path": "(?P<path>.+)",
    "oid": "(?P<oid>[0-9a-f]{64})",
}


class Answer(Exception):  # noqa: N818 - not an error of ours: it unwinds to where answers are sent
    """An answer other than the one that was asked for."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {
            "X-Error-Message": message,
            **({"X-Error-Code": code} if code else {}),
            **(headers or {}),
        }


class Route(NamedTuple):
    """Requests of one kind.

    Args:
        method: Their method; ``HEAD`` is answered as ``GET`` is.
        pattern: What their path must match.
        answer: Answers them; called with the handler, and with the pattern's groups by name.
    """

    method: str
    pattern: re.Pattern[str]
    answer: Callable[..., None]


def route(method: str, pattern: str, answer: Callable[..., None]) -> Route:
    """Return a route. What stands in braces in the pattern is one of ``PARTS``.

    ``{api}`` stands for ``/api/models/owner/name`` and its likes, ``{page}`` for ``/owner/name``: both give ``kind`` and
    ``name``.
    """
    for name, part in PARTS.items():
        pattern = pattern.replace("{" + name + "}", part)
    return Route(method, re.compile(pattern), answer)


def find(
    routes: Iterable[Route], method: str, path: str
) -> tuple[Callable[..., None], dict[str, str]] | None:
    """Return what answers a request, and its arguments; None if nothing does."""
    method = "GET" if method == "HEAD" else method
    for one in routes:
        match = one.pattern.fullmatch(path)
        if match and one.method == method:
            return one.answer, {name: unquote(value) for name, value in match.groupdict(default="").items()}
    return None
