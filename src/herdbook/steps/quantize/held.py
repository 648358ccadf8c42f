"""Encoded tensors that other files of the same model hold already: copied, they need not be encoded again.

Any finished file of the plan counts, whether this one waited for it or not. What is copied is compared with the digest in the
record of the file that it is copied from, so that the bytes of a file are the same wherever they come from.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from herdbook import jsonio, limits
from herdbook.errors import CheckpointError, DigestMismatchError
from herdbook.quantization.types import TYPES, encoding
from herdbook.weights.gguf_file import PIECE_BYTES, TensorInfo, parse_gguf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from herdbook.plan import Plan, Quantized

ADVICE = "Delete it and its record, and run the build again."
ADVICE_OF_RECORD = "Delete it and its file, and run the build again."


@dataclass(frozen=True)
class HeldTensor:
    """A tensor in a finished file.

    Args:
        path: The file.
        file: The same, open: a build that replaces it does not take it away.
        info: The tensor's place in it.
        sha256: The digest of its bytes, by the file's record.
    """

    path: Path
    file: BinaryIO
    info: TensorInfo
    sha256: str

    def pieces(self, tensor: TensorInfo) -> Iterator[bytes]:
        """Yield its bytes.

        Args:
            tensor: What it has to be.

        Raises:
            CheckpointError: If the file has it in another shape or type, or ends inside it.
        """
        if (self.info.shape, self.info.type) != (tensor.shape, tensor.type):
            raise CheckpointError(f"{self.path}: {tensor.name} is not as its record states. {ADVICE}")
        self.file.seek(self.info.start)
        left = self.info.size_bytes
        while left:
            piece = self.file.read(min(left, PIECE_BYTES))
            if not piece:
                raise CheckpointError(f"{self.path}: is cut off inside tensor {tensor.name}. {ADVICE}")
            left -= len(piece)
            yield piece

    def check(self, sha256: str) -> None:
        """Compare the digest of what was read with the record. Raises DigestMismatchError if it differs."""
        if sha256 != self.sha256:
            raise DigestMismatchError(f"{self.path}: tensor {self.info.name}", self.sha256, sha256, ADVICE)


@contextmanager
def held_tensors(plan: Plan, item: Quantized, types: Mapping[str, str]) -> Iterator[dict[str, HeldTensor]]:
    """Give the tensors of a file that other files hold as they are to be in this one, by name; full width is not worth it.

    Args:
        plan: The plan.
        item: The file.
        types: The type of each of its tensors.

    Raises:
        CheckpointError: If one of the other files or its record is damaged.
    """
    found: dict[str, HeldTensor] = {}
    files: list[BinaryIO] = []
    first = plan.siblings[item.id]
    rest = [other for other in plan.quantized if other not in first and other.id != item.id]
    try:
        for other in (*first, *rest):
            missing = {name: kind for name, kind in types.items() if name not in found}
            path, record = plan.layout.quantized(other), plan.layout.quantized_record(other)
            try:
                digests = dict(_alike(record, item, other, missing))
                if not digests:
                    continue
                files.append(path.open("rb"))
            except FileNotFoundError:  # not made yet, or about to be made again
                continue
            tensors = _tensors(files[-1], path)
            for name, sha256 in digests.items():
                if name not in tensors:
                    raise CheckpointError(f"{path}: lacks the tensor {name} of its record. {ADVICE}")
                found[name] = HeldTensor(path, files[-1], tensors[name], sha256)
        yield found
    finally:
        for file in files:
            file.close()


def _alike(
    record: Path, item: Quantized, other: Quantized, types: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield those of some tensors whose bytes are the same in another file, with their digests, by its record."""
    mine, theirs = (one.imatrix.key if one.imatrix else None for one in (item, other))
    for entry in _entries(record):
        kind = types.get(entry["name"])
        if kind is None or kind != entry["type"] or TYPES[kind].is_full_width:
            continue
        if encoding(kind, mine) == encoding(kind, theirs):
            yield entry["name"], entry["sha256"]


def _entries(record: Path) -> list[dict[str, str]]:
    """Return what a record states about each tensor. Raises CheckpointError if it does not."""
    try:
        entries: Any = jsonio.load_object(record.read_bytes(), limits.DOCUMENT).get("tensors")
    except ValueError as error:
        raise CheckpointError(f"{record}: is damaged: {error}. {ADVICE_OF_RECORD}") from error
    texts = ("name", "type", "sha256")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(text), str) for text in texts)
        for entry in entries
    ):
        raise CheckpointError(f"{record}: is no record of a quantized file. {ADVICE_OF_RECORD}")
    return entries


def _tensors(file: BinaryIO, path: Path) -> dict[str, TensorInfo]:
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse_gguf(data, path).tensors
    except ValueError as error:  # mmap of an empty file
        raise CheckpointError(f"{path}: is not a GGUF: {error}") from error
