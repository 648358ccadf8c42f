"""Faults on demand: which requests fail, and how their responses are damaged."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Kind = Literal[
    "cut",  # the declared length, half of the body, then the connection ends
    "reset",  # the same, but the connection is torn down
    "drop",  # the connection ends before a response
    "short",  # a consistent response whose body lacks its second half
    "long",  # a consistent response with extra bytes at the end of its body
    "corrupt",  # the right size, one byte changed
    "header",  # the right response with `headers` in place of its own
    "garbage",  # the response is not HTTP
    "whole",  # Range is ignored
    "slow",  # the right response, after `seconds`
    "endless",  # the right beginning, then single bytes forever
    "lost",  # the request is carried out, but the connection ends without a response
    "cut upload",  # the connection ends after half of the uploaded body
]
SURPLUS = b"and more"  # of "long"
UNFINISHED = {"cut", "reset", "endless"}  # the body ends before the declared length


@dataclass
class Fault:
    """A fault, and how many more times it occurs.

    Args:
        method: The method of the affected requests; ``*`` for any.
        pattern: Regular expression, searched in the request's path.
        kind: A status of the response, or one of ``Kind``.
        times: How many more times it occurs.
        seconds: How long ``slow`` takes.
        headers: Headers of a response with a status, and of ``header``; None leaves a header out.
        message: Message of a response with a status; ``{token}`` in it is replaced by the token that was sent.
        late: Whether the request is carried out before the response with a status.
    """

    method: str
    pattern: str
    kind: int | Kind
    times: int = 1
    seconds: float = 1.0
    headers: dict[str, str | None] = field(default_factory=dict)
    message: str | None = None
    late: bool = False

    @property
    def is_after_the_deed(self) -> bool:
        """Whether the request is carried out before it fails."""
        return self.late or self.kind == "lost"

    def altered(self, headers: Mapping[str, str], size: int) -> dict[str, str]:
        """Return the headers to send in place of those of the right response, whose body has ``size`` bytes."""
        length = size // 2 if self.kind == "short" else size + len(SURPLUS) * (self.kind == "long")
        sent = {"Content-Length": str(length), **headers, **(self.headers if self.kind == "header" else {})}
        return {name: value for name, value in sent.items() if value is not None}

    def damaged(self, pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
        """Yield the bytes to send in place of a body of ``size`` bytes."""
        half = size // 2
        remaining = half if self.kind == "short" or self.kind in UNFINISHED else size
        corrupt_at = half if self.kind == "corrupt" else -1
        for piece in pieces:
            if not remaining:
                break
            sent = piece[:remaining]
            if 0 <= corrupt_at < len(sent):
                sent = sent[:corrupt_at] + bytes([sent[corrupt_at] ^ 0xFF]) + sent[corrupt_at + 1 :]
            corrupt_at -= len(sent)
            remaining -= len(sent)
            yield sent
        if self.kind == "long":
            yield SURPLUS


class Faults:
    """The requested faults, in order; a matching fault is used up before the next one."""

    def __init__(self) -> None:
        self.all: list[Fault] = []
        self._lock = threading.Lock()

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault that applies to a request, and count it."""
        with self._lock:
            for fault in self.all:
                if fault.times > 0 and fault.method in {method, "*"} and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None
