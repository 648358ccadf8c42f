"""A GGUF in several parts: written from a whole file, and read as if it were one.

The first part has the metadata of the whole; each has three entries of its own, and its tensors.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from herdbook.errors import CheckpointError
from herdbook.files import atomic_writer
from herdbook.weights.gguf_file import GgufFile, TensorInfo, block_count, header, padded
from herdbook.weights.gguf_header import OF_A_PART, own_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


def write_part(whole: GgufFile, runs: Sequence[Sequence[str]], number: int, path: Path) -> str:
    """Write a part of a file, and return its SHA-256.

    Args:
        whole: The file.
        runs: The names of the tensors of each part.
        number: Which part, from 0.
        path: Its path, which is written atomically.
    """
    tensors = [whole.tensors[name] for name in runs[number]]
    metadata = whole.metadata if number == 0 else {}
    entries = {**metadata, **own_entries(number, len(runs), len(whole.tensors))}
    sha256 = hashlib.sha256()
    with atomic_writer(path) as file:
        for piece in (header(entries, tensors), *_content(whole, tensors)):
            file.write(piece)
            sha256.update(piece)
    return sha256.hexdigest()


def _content(file: GgufFile, tensors: Sequence[TensorInfo]) -> Iterator[bytes]:
    for tensor in tensors:
        step = block_count(tensor)
        for first in range(0, tensor.rows, step):
            yield file.read_rows(tensor, first, min(step, tensor.rows - first)).tobytes()
        yield bytes(padded(tensor.size_bytes) - tensor.size_bytes)


@dataclass(frozen=True)
class GgufParts(GgufFile):
    """Several parts as one file.

    Args:
        parts: The part that contains each tensor, by the tensor's name.
    """

    parts: Mapping[str, GgufFile] = field(default_factory=dict, hash=False)

    def place(self, tensor: TensorInfo) -> tuple[Path, int]:
        """Return the file that contains a tensor, and where it begins there."""
        part = self.parts[tensor.name]
        return part.path, part.tensors[tensor.name].start

    def digest(self) -> str:
        """Return the SHA-256 of the whole file that the parts were made from."""
        tensors = list(self.tensors.values())
        sha256 = hashlib.sha256(header(self.metadata, tensors))
        for piece in _content(self, tensors):
            sha256.update(piece)
        return sha256.hexdigest()


def join(parts: Sequence[GgufFile]) -> GgufFile:
    """Return parts as one file; a single one stays as it is.

    Raises:
        CheckpointError: If they are not all parts of one file, in order.
    """
    if len(parts) == 1:
        return parts[0]
    count = sum(len(part.tensors) for part in parts)
    for number, part in enumerate(parts):
        expected = own_entries(number, len(parts), count)
        found = {key: raw for key, raw in part.metadata.items() if key in OF_A_PART or number}
        if found != expected:
            raise CheckpointError(f"{part.path}: is not part {number + 1} of {len(parts)} of one file")
    holders = {name: part for part in parts for name in part.tensors}
    if len(holders) != count:
        raise CheckpointError(f"{parts[0].path}: a tensor is in two parts")
    metadata = {key: raw for key, raw in parts[0].metadata.items() if key not in OF_A_PART}
    tensors = {name: replace(part.tensors[name], start=-1) for name, part in holders.items()}
    data = sum(padded(tensor.size_bytes) for tensor in tensors.values())
    size = len(header(metadata, tensors.values())) + data
    return GgufParts(parts[0].path, metadata, tensors, size, holders)
