"""Faults on demand: which request is to fail, and what becomes of its answer."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Kind = Literal[
    "cut",  # the announced length, half of the body, then the connection ends
    "reset",  # the same, but the connection is torn down
    "drop",  # the connection ends before an answer
    "short",  # a consistent answer whose body lacks its second half
    "long",  # a consistent answer with more behind the end of its body
    "corrupt",  # the right size, one byte changed
    "header",  # the right answer with `headers` in place of its own
    "garbage",  # what comes is no HTTP
    "whole",  # Range is ignored
    "slow",  # the right answer, after `seconds`
    "endless",  # the right beginning, then a byte now and then, for ever
    "lost",  # what is asked for is done, but the connection ends without an answer
    "cut upload",  # the connection ends when half of what is sent has come
]
SURPLUS = b"and more"  # of "long"
UNFINISHED = {"cut", "reset", "endless"}  # the body ends before the announced length


@dataclass
class Fault:
    """How to misbehave, and how many more times.

    Args:
        method: The method of the requests that it is for; ``*`` for any.
        pattern: Regular expression, searched in the request's path.
        kind: A status to answer with, or one of ``Kind``.
        times: How many more times.
        seconds: How long ``slow`` takes.
        headers: Of an answer with a status, and of ``header``; None leaves a header out.
        message: Of an answer with a status; ``{token}`` in it becomes the token that was sent.
        late: Whether what was asked for is done before the answer with a status.
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
        """Whether what was asked for is done before it fails."""
        return self.late or self.kind == "lost"

    def altered(self, headers: Mapping[str, str], size: int) -> dict[str, str]:
        """Return the headers that are sent in place of those of the right answer, whose body has ``size`` bytes."""
        length = size // 2 if self.kind == "short" else size + len(SURPLUS) * (self.kind == "long")
        sent = {"Content-Length": str(length), **headers, **(self.headers if self.kind == "header" else {})}
        return {name: value for name, value in sent.items() if value is not None}

    def damaged(self, pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
        """Yield what is sent of a body of ``size`` bytes."""
        half = size // 2
        left = half if self.kind == "short" or self.kind in UNFINISHED else size
        place = half if self.kind == "corrupt" else -1
        for piece in pieces:
            if not left:
                break
            out = piece[:left]
            if 0 <= place < len(out):
                out = out[:place] + bytes([out[place] ^ 0xFF]) + out[place + 1 :]
            place -= len(out)
            left -= len(out)
            yield out
        if self.kind == "long":
            yield SURPLUS


class Faults:
    """The faults that were asked for, in that order; each is used up before the next that fits."""

    def __init__(self) -> None:
        self.all: list[Fault] = []
        self._lock = threading.Lock()

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault that is in force for a request, and count it."""
        with self._lock:
            for fault in self.all:
                if fault.times > 0 and fault.method in {method, "*"} and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None
