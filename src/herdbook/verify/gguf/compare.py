"""A GGUF's header, read by ranges, beside what the table derives."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from herdbook.errors import CheckpointError
from herdbook.verify.gguf.model import May, Unknown
from herdbook.verify.gguf.table import FROM_CONVERTER, derive, origin_of
from herdbook.weights.checkpoint import MAX_HEADER_BYTES
from herdbook.weights.gguf_header import SCALARS, Kind, count, encode, scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.release.subject import Subject
    from herdbook.verify.gguf.model import Model

WINDOW_BYTES = 1 << 20
ABSENT = "no such key"


class HeaderReader:
    """The beginning of a file, read on demand, up to the size that a header may have."""

    def __init__(self, subject: Subject, name: str) -> None:
        self.subject, self.name = subject, name
        self.size = subject.entry(name).size_bytes
        self.head = b""

    def __len__(self) -> int:
        """Return the file's size."""
        return self.size

    def __getitem__(self, piece: slice) -> bytes:
        """Return a piece of the header. Raises CheckpointError beyond the size that a header may have."""
        if piece.stop > MAX_HEADER_BYTES:
            raise CheckpointError(f"{self.name}: its header declares more than {MAX_HEADER_BYTES} bytes")
        if piece.stop > len(self.head):
            stop = min(self.size, max(piece.stop, 2 * len(self.head), WINDOW_BYTES))
            self.head += self.subject.read_range(self.name, len(self.head), stop)
        return self.head[piece]


@dataclass(frozen=True)
class Difference:
    """An entry that is not what it follows from.

    Args:
        key: Its key.
        origin: What it follows from; None if the table has no such key.
        expected: The value that follows.
        found: The value in the file.
    """

    key: str
    origin: str | None
    expected: str
    found: str


@dataclass
class Comparison:
    """A header beside what the table derives.

    Args:
        equal: The keys that are as they follow.
        different: The others.
        unknown: The keys that the file has and that do not follow from what is at hand.
    """

    equal: list[str] = field(default_factory=list)
    different: list[Difference] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def compare(model: Model, metadata: Mapping[str, bytes]) -> Comparison:
    """Compare a header with what follows from a model. Raises as ``table.derive``, OverflowError and struct.error too."""
    derived = derive(model)
    result = Comparison()
    for key in sorted(derived.keys() | metadata.keys()):
        value, raw = derived.get(key), metadata.get(key)
        origin = origin_of(key)
        if isinstance(value, Unknown):
            if raw is not None:
                result.unknown.append(key)
            continue
        if isinstance(value, May):
            if raw is None:
                continue
            value = value.value
        expected = None if value is None else encode(value)
        if raw == expected:
            result.equal.append(key)
        else:
            result.different.append(Difference(key, origin, *_shown(expected, raw)))
    return result


def lines_of(different: Difference) -> str:
    """Return what is wrong with an entry, for people."""
    if different.origin is None:
        return f"has the key {different.key}, which does not follow from anything proven"
    if different.origin == FROM_CONVERTER:
        return f"{different.key} is not written for such a model"
    return f"{different.key} is not what follows from {different.origin.replace('`', '')}"


def _shown(expected: bytes | None, found: bytes | None) -> tuple[str, str]:
    """Return two encoded values for people; of two lists, what differs first."""
    if not (expected and found and _is_list(expected) and _is_list(found)):
        return _described(expected), _described(found)
    pairs = enumerate(zip_longest(_items(expected), _items(found), fillvalue="none"))
    number, pair = next(
        ((at, pair) for at, pair in pairs if pair[0] != pair[1]), (0, ("", "of another type"))
    )
    ours, theirs = (
        f"{_described(raw)}; number {number}: {str(value)[:80]}"
        for raw, value in zip((expected, found), pair, strict=True)
    )
    return ours, theirs


def _is_list(raw: bytes) -> bool:
    return int.from_bytes(raw[:4], "little") == Kind.ARRAY


def _described(raw: bytes | None) -> str:
    if raw is None:
        return ABSENT
    if _is_list(raw):
        return f"{count({'': raw}, ''):,} values"
    return str(scalar({"": raw}, ""))[:200]


def _items(raw: bytes) -> Iterator[Any]:
    """Yield the elements of a list, as they are needed; of lists of lists, nothing."""
    inner = int.from_bytes(raw[4:8], "little")
    if inner == Kind.STRING:
        at = 16
        while at < len(raw):
            end = at + 8 + int.from_bytes(raw[at : at + 8], "little")
            yield raw[at + 8 : end].decode("utf-8", "replace")
            at = end
    elif inner != Kind.ARRAY:
        yield from (value for (value,) in struct.iter_unpack(f"<{SCALARS[inner]}", memoryview(raw)[16:]))
