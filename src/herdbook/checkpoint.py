"""Safetensors files as byte ranges, and the records beside them. No torch: bytes in, bytes out, digests on the way.

A shard is written tensor by tensor from whatever makes its bytes; SHA-256 of the file and of every tensor is computed
while writing, never by a second read. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from herdbook.errors import CheckpointError, DigestMismatchError
from herdbook.files import CHUNK_BYTES, atomic_writer, write_json
from herdbook.lock import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

MAX_HEADER_BYTES = 100_000_000  # as the reference reader allows
INDEX_NAME = "model.safetensors.index.json"


@dataclass(frozen=True)
class Span:
    """Where a tensor lies in a file: ``start`` and ``end`` are offsets in bytes from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def parse_header(head: bytes, file_bytes: int, what: str) -> dict[str, Span]:
    """Parse the start of a safetensors file and check it against the file's size.

    Args:
        head: The file's first bytes: eight bytes of header length and the header (more does no harm).
        file_bytes: Size of the whole file in bytes.
        what: How errors call the file.

    Returns:
        Spans by tensor name, in the order of the header.

    Raises:
        CheckpointError: If it is no safetensors file, is cut off, or its header contradicts itself.
    """
    if len(head) < 8 or file_bytes < 8:
        raise CheckpointError(f"{what}: is no safetensors file: {file_bytes} bytes are too few for a header")
    length = int.from_bytes(head[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{what}: is no safetensors file: its header claims {length} bytes")
    if 8 + length > file_bytes:
        raise CheckpointError(f"{what}: is cut off inside its header. Fetch or build it again.")
    try:
        header = json.loads(head[8 : 8 + length])
        header.pop("__metadata__", None)
        spans = {}
        for name, item in header.items():
            start, end = item["data_offsets"]
            spans[name] = Span(
                name, item["dtype"], tuple(item["shape"]), 8 + length + start, 8 + length + end
            )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{what}: its safetensors header is damaged: {error!r}") from error
    position = 8 + length
    for span in sorted(spans.values(), key=lambda span: (span.start, span.end)):
        if span.dtype not in ITEM_BYTES:
            raise CheckpointError(f"{what}: tensor {span.name}: dtype {span.dtype} is not supported")
        if any(not isinstance(extent, int) or extent < 0 for extent in span.shape):
            raise CheckpointError(f"{what}: tensor {span.name}: shape {list(span.shape)} is damaged")
        size = math.prod(span.shape) * ITEM_BYTES[span.dtype]
        if span.start != position or span.end - span.start != size:
            raise CheckpointError(
                f"{what}: tensor {span.name}: its byte range does not fit its {span.dtype} shape {list(span.shape)}"
            )
        position = span.end
    if position != file_bytes:
        word = "is cut off" if position > file_bytes else "has bytes after its last tensor"
        raise CheckpointError(
            f"{what}: {word}: {position} bytes expected, {file_bytes} found. Fetch or build it again."
        )
    return spans


def read_header(path: Path) -> dict[str, Span]:
    """Read where each tensor lies in a safetensors file. Raises as ``parse_header``; a missing file is named too."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            length = min(int.from_bytes(head, "little"), MAX_HEADER_BYTES)
            return parse_header(head + file.read(length), path.stat().st_size, str(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing. Build it again.") from error


def read_span(path: Path, span: Span) -> bytes:
    """Return one tensor's bytes (little-endian, row by row)."""
    with path.open("rb") as file:
        file.seek(span.start)
        data = file.read(span.end - span.start)
    if len(data) != span.end - span.start:
        raise CheckpointError(f"{path}: is cut off inside tensor {span.name}. Fetch or build it again.")
    return data


def stream_span(path: Path, span: Span) -> Iterator[bytes]:
    """Yield one tensor's bytes in pieces of a few MB."""
    remaining = span.end - span.start
    with path.open("rb") as file:
        file.seek(span.start)
        while remaining:
            piece = file.read(min(CHUNK_BYTES, remaining))
            if not piece:
                raise CheckpointError(
                    f"{path}: is cut off inside tensor {span.name}. Fetch or build it again."
                )
            remaining -= len(piece)
            yield piece


@dataclass(frozen=True)
class Produced:
    """One tensor on its way into a shard.

    Args:
        name: Its name in the shard.
        dtype: Its dtype, by the code of safetensors.
        shape: Its shape.
        chunks: Makes its bytes, in order, when its turn comes.
        made: What was done, for the record; filled by the time the last chunk has come.
        expected: The SHA-256 that the bytes must have, if that is known before.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[bytes]]
    made: dict[str, Any] = field(default_factory=dict)
    expected: str | None = None


def write_shard(
    path: Path, record_path: Path, tensors: Iterable[Produced], about: dict[str, Any]
) -> dict[str, Any]:
    """Write a shard and its record.

    Tensors stand in the order of their names, offsets without gaps, header padded with spaces to eight bytes, so that
    the same tensors give the same file whoever made them.

    Args:
        path: Where the shard shall be.
        record_path: Where its record shall be; written after the shard.
        tensors: What goes into it, in any order.
        about: What else the record shall say (operation, key, ...).

    Returns:
        The record.

    Raises:
        CheckpointError: If a tensor's chunks do not fill its shape.
        DigestMismatchError: If a tensor's bytes are not those that were expected.
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in ordered:
        size = math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + size],
        }
        position += size
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    whole = hashlib.sha256()
    entries: dict[str, Any] = {}
    with atomic_writer(path) as file:

        def put(data: bytes) -> None:
            whole.update(data)
            file.write(data)

        put(len(head).to_bytes(8, "little") + head)
        for tensor in ordered:
            one = hashlib.sha256()
            written = 0
            for chunk in tensor.chunks():
                one.update(chunk)
                put(chunk)
                written += len(chunk)
            start, end = header[tensor.name]["data_offsets"]
            if written != end - start:
                raise CheckpointError(
                    f"{path}: tensor {tensor.name}: {end - start} bytes expected, {written} made"
                )
            found = one.hexdigest()
            if tensor.expected not in {None, found}:
                raise DigestMismatchError(
                    f"tensor {tensor.name} on its way into {path.name}",
                    str(tensor.expected),
                    found,
                    "A file that it is made from was damaged after it had been checked; delete that file and run again.",
                )
            entries[tensor.name] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "sha256": found,
                **tensor.made,
            }
    record = {
        **about,
        "file": {"size_bytes": 8 + len(head) + position, "sha256": whole.hexdigest()},
        "tensors": entries,
    }
    write_json(record_path, record)
    return record


def digest_shard(path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Digest a safetensors file and each of its tensors in one pass.

    Returns:
        The file's SHA-256, and by tensor name: dtype, shape and SHA-256 of its bytes.
    """
    spans = sorted(read_header(path).values(), key=lambda span: (span.start, span.end))
    whole = hashlib.sha256()
    entries: dict[str, dict[str, Any]] = {}
    with path.open("rb") as file:
        first = spans[0].start if spans else path.stat().st_size
        whole.update(file.read(first))
        for span in spans:
            one = hashlib.sha256()
            remaining = span.end - span.start
            while remaining and (piece := file.read(min(CHUNK_BYTES, remaining))):
                one.update(piece)
                whole.update(piece)
                remaining -= len(piece)
            entries[span.name] = {"dtype": span.dtype, "shape": list(span.shape), "sha256": one.hexdigest()}
    return whole.hexdigest(), dict(sorted(entries.items()))


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["file"]["sha256"], record["tensors"]  # both must be there
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the record is missing. Build the shard again.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: the record is damaged. Delete it and its shard, and build again."
        ) from error
    return dict(record)
