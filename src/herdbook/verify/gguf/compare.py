"""A GGUF's header, read by ranges, beside what the table derives."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from herdbook.errors import CheckpointError
from herdbook.verify.gguf.table import CONVERTER, May, Unknown, derive, origin_of
from herdbook.weights.checkpoint import MAX_HEADER_BYTES
from herdbook.weights.gguf_header import Kind, encode, scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.release.subject import Subject
    from herdbook.verify.gguf.table import Model

WINDOW_BYTES = 1 << 20
ABSENT = "no such key"


class HeaderReader:
    """The beginning of a file, read on demand, up to the size that a header may have."""

    def __init__(self, subject: Subject, name: str) -> None:
        self.subject, self.name = subject, name
        self.size = subject.files[name].size_bytes
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
        return f"has the key {different.key}, which follows from nothing that is proven"
    if different.origin == CONVERTER:
        return f"{different.key} is not written for such a model"
    return f"{different.key} is not what follows from {different.origin.replace('`', '')}"


def _shown(expected: bytes | None, found: bytes | None) -> tuple[str, str]:
    """Return two encoded values for people; of two lists, what differs first."""
    values = [ABSENT if raw is None else _decoded(raw) for raw in (expected, found)]
    if all(isinstance(value, list) for value in values):
        ours, theirs = values
        place = next(
            (number for number, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
            min(len(ours), len(theirs)),
        )
        return tuple(  # type: ignore[return-value]  # two texts
            f"{len(value):,} values; number {place}: {str(value[place])[:80] if place < len(value) else 'none'}"
            for value in values
        )
    return tuple(  # type: ignore[return-value]
        f"{len(value):,} values" if isinstance(value, list) else str(value)[:200] for value in values
    )


def _decoded(raw: bytes) -> Any:
    """Return a value; of lists of lists, only what they are."""
    kind = int.from_bytes(raw[:4], "little")
    if kind != Kind.ARRAY:
        return scalar({"": raw}, "")
    return list(_items(raw))


def _items(raw: bytes) -> Iterator[Any]:
    inner, size = struct.unpack_from("<IQ", raw, 4)
    at = 16
    for _ in range(size):
        if inner == Kind.STRING:
            (length,) = struct.unpack_from("<Q", raw, at)
            yield raw[at + 8 : at + 8 + length].decode("utf-8", "replace")
            at += 8 + length
        elif inner == Kind.ARRAY:
            yield "a list"
        else:
            width = (len(raw) - 16) // size
            yield scalar({"": struct.pack("<I", inner) + raw[at : at + width]}, "")
            at += width
