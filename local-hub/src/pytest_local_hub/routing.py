"""Which function answers which request, and answers that are refusals."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

KEEPER = "keeper"  # the account that may do everything
ROUTES: list[tuple[str, re.Pattern, Callable]] = []


class Answer(Exception):  # noqa: N818 - not an error of ours: it unwinds to where answers are sent
    """An answer other than the one that was asked for."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {
            "X-Error-Message": message,
            **({"X-Error-Code": code} if code else {}),
            **(headers or {}),
        }


def route(method: str, pattern: str) -> Callable[[Callable], Callable]:
    """Register a function as the answer to a route. What stands in braces becomes its arguments.

    ``{api}`` stands for ``/api/models/owner/name`` and its likes, ``{page}`` for ``/owner/name``: both give ``kind`` and
    ``id``.
    """
    parts = {
        "api": "/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)",
        "page": "/(?:(?P<kind>datasets)/)?(?P<id>[^/]+/[^/]+)",
    }
    for name, part in parts.items():
        pattern = pattern.replace("{" + name + "}", part)
    for name, part in (("rev", "[^/]+"), ("path", ".+"), ("oid", "[0-9a-f]{64}"), ("name", "[^/]+")):
        pattern = pattern.replace("{" + name + "}", f"(?P<{name}>{part})")

    def register(handle: Callable) -> Callable:
        ROUTES.append((method, re.compile(pattern), handle))
        return handle

    return register
