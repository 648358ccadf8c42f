"""Safetensors files as byte ranges, and the records beside them. No torch: bytes in, bytes out, digests in passing.

A shard is written tensor by tensor from iterators of bytes; SHA-256 of the file and of every tensor is computed while
writing, never by a second read. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from herdbook import jsonio, limits
from herdbook.errors import CheckpointError, DigestMismatchError
from herdbook.files import atomic_writer, write_json, written_meanwhile
from herdbook.weights.digests import Digests
from herdbook.weights.dtypes import ITEM_BYTES
from herdbook.weights.finite import finite
from herdbook.weights.record import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from herdbook.weights.digests import Piece
    from herdbook.weights.record import Contents, FileEntry

MAX_HEADER_BYTES = limits.HEADER.size_bytes
FIRST_BYTES = 1 << 17  # contains the whole header of a 7B model's shard, so that one read is enough
REMEDY = "Fetch or rebuild it."
CHANGED = "The file was damaged or changed after it was made: delete it and run the build again."
PIECE_BYTES = (
    1 << 20
)  # that are read at once: they stay in the processor's cache until they are hashed and written
AHEAD_BYTES = 1 << 24  # that are requested from the disk before they are needed


@dataclass(frozen=True)
class Span:
    """The byte range of a tensor in a file: ``start`` and ``end`` are offsets in bytes from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def parse_header(head: bytes, file_bytes: int, what: str) -> dict[str, Span]:
    """Parse the start of a safetensors file and check it against the file's size.

    Args:
        head: The file's first bytes: eight bytes of header length, and the header; more bytes are ignored.
        file_bytes: Size of the whole file in bytes.
        what: The file, for error messages.

    Returns:
        Spans by tensor name, in the order of the header.

    Raises:
        CheckpointError: If it is not a safetensors file, is truncated, or its header contradicts itself.
    """
    if len(head) < 8 or file_bytes < 8:
        raise CheckpointError(
            f"{what}: is not a safetensors file: {file_bytes} bytes are too few for a header"
        )
    length = int.from_bytes(head[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{what}: is not a safetensors file, or larger than any: its header claims {length} bytes, over the limit of "
            f"{MAX_HEADER_BYTES:,}"
        )
    if 8 + length > file_bytes:
        raise CheckpointError(f"{what}: is truncated inside its header. {REMEDY}")
    try:
        header = jsonio.load(head[8 : 8 + length], limits.HEADER)
        header.pop("__metadata__", None)
        spans = {}
        for name, item in header.items():
            start, end = item["data_offsets"]
            shape = tuple(item["shape"])
            # in JSON, 1.0 and true are equal to a whole number
            if not isinstance(item["dtype"], str) or any(
                type(number) is not int for number in (start, end, *shape)
            ):
                raise CheckpointError(f"{what}: its safetensors header is damaged at tensor {name}")
            spans[name] = Span(name, item["dtype"], shape, 8 + length + start, 8 + length + end)
    except limits.OverLimitError as error:
        raise CheckpointError(f"{what}: its safetensors header {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{what}: its safetensors header is damaged: {error!r}") from error
    position = 8 + length
    for span in sorted(spans.values(), key=lambda span: (span.start, span.end)):
        if span.dtype not in ITEM_BYTES:
            raise CheckpointError(f"{what}: tensor {span.name}: dtype {span.dtype} is not supported")
        if any(extent < 0 for extent in span.shape):
            raise CheckpointError(f"{what}: tensor {span.name}: shape {list(span.shape)} is invalid")
        size = math.prod(span.shape) * ITEM_BYTES[span.dtype]
        if span.start != position or span.end - span.start != size:
            raise CheckpointError(
                f"{what}: tensor {span.name}: its byte range does not match its {span.dtype} shape {list(span.shape)}"
            )
        position = span.end
    if position != file_bytes:
        problem = "is truncated" if position > file_bytes else "has bytes after its last tensor"
        raise CheckpointError(f"{what}: {problem}: {position} bytes expected, {file_bytes} found. {REMEDY}")
    return spans


def read_header(path: Path) -> dict[str, Span]:
    """Read the byte range of each tensor in a safetensors file.

    Raises:
        CheckpointError: If the file is missing, or as ``parse_header`` raises it.
    """
    try:
        with path.open("rb") as file:
            return _header(file, str(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing. Rebuild it.") from error


def _header(file: BinaryIO, what: str) -> dict[str, Span]:
    head = file.read(8)
    length = min(int.from_bytes(head, "little"), MAX_HEADER_BYTES)
    return parse_header(head + file.read(length), os.fstat(file.fileno()).st_size, what)


def read_span(path: Path, span: Span) -> bytearray:
    """Return one tensor's bytes (little-endian, row by row)."""
    data = bytearray(span.end - span.start)
    with path.open("rb", buffering=0) as file:
        file.seek(span.start)
        _fill(file, memoryview(data), span, str(path))
    return data


def stream_span(path: Path, span: Span) -> Iterator[Piece]:
    """Yield one tensor's bytes in pieces; each stays as it is until the next but one is requested."""
    with path.open("rb", buffering=0) as file:
        yield from _pieces(file, span, str(path))


def _pieces(file: BinaryIO, span: Span, what: str) -> Iterator[Piece]:
    remaining = span.end - span.start
    buffers = [memoryview(bytearray(min(PIECE_BYTES, remaining))) for _ in range(2)]
    file.seek(span.start)
    while remaining:
        piece = buffers[0][: min(PIECE_BYTES, remaining)]
        if hasattr(os, "posix_fadvise"):  # macOS reads ahead by itself
            os.posix_fadvise(file.fileno(), span.end - remaining, AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
        _fill(file, piece, span, what)
        buffers.reverse()
        remaining -= len(piece)
        yield piece


def _fill(file: BinaryIO, data: memoryview, span: Span, what: str) -> None:
    """Read the next bytes of a tensor into ``data``."""
    filled = 0
    while filled < len(data):
        count = file.readinto(data[filled:])  # type: ignore[attr-defined]
        if not count:
            raise CheckpointError(f"{what}: is truncated inside tensor {span.name}. {REMEDY}")
        filled += count


@dataclass(frozen=True)
class Produced:
    """One tensor to be written into a shard.

    Args:
        name: Its name in the shard.
        dtype: Its dtype, by safetensors' code.
        shape: Its shape.
        chunks: Called when the tensor is written; yields its bytes in order.
        made: How it was made, for the record; complete after the last chunk.
        expected: The SHA-256 that the bytes must have, if it is known in advance.
        source: The tensor that it is a copy of, with its file, as a message names it; needed with ``expected``.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[Piece]]
    made: TensorEntry = field(default_factory=TensorEntry)
    expected: str | None = None
    source: str = ""


def shard_start(tensors: Iterable[tuple[str, str, tuple[int, ...]]], kind: str = "pt") -> bytes:
    """Return what stands before the tensors in a shard: the length of the header, and the header.

    Args:
        tensors: Name, dtype and shape of each tensor, sorted by name.
        kind: The entry ``format`` of the header.
    """
    header: dict[str, Any] = {"__metadata__": {"format": kind}}
    position = 0
    for name, dtype, shape in tensors:
        end = position + math.prod(shape) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head


def write_shard(
    path: Path,
    record_path: Path,
    tensors: Iterable[Produced],
    about: Mapping[str, Any],
    kind: str = "pt",
) -> Contents:
    """Write a shard and its record.

    Tensors are sorted by name and stored without gaps, and the header is padded with spaces to a multiple of eight bytes,
    so that the same tensors always give the same file.

    Args:
        path: The path of the shard.
        record_path: The path of its record, which is written after the shard.
        tensors: The shard's tensors, in any order.
        about: The other fields of the record (operation, key, ...).
        kind: The entry ``format`` of the header.

    Returns:
        The record.

    Raises:
        CheckpointError: If a tensor's chunks do not fill its shape.
        DigestMismatchError: If a tensor's bytes do not have the expected digest.
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    start = shard_start(((tensor.name, tensor.dtype, tensor.shape) for tensor in ordered), kind)
    entries: dict[str, TensorEntry] = {}
    position = 0
    with atomic_writer(path) as file, written_meanwhile(file), Digests() as digests:
        file.write(start)
        digests.header(start)
        for tensor in ordered:
            written = 0
            for chunk in tensor.chunks():
                digests.update(chunk)
                file.write(chunk)
                written += len(chunk)
            expected = math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]
            if written != expected:
                raise CheckpointError(
                    f"{path}: tensor {tensor.name}: {expected} bytes expected, {written} written"
                )
            position += written
            tensor_sha256 = digests.end_tensor()
            if tensor.expected not in {None, tensor_sha256}:
                raise DigestMismatchError(tensor.source, str(tensor.expected), tensor_sha256, CHANGED)
            form: TensorEntry = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "sha256": tensor_sha256,
            }
            entries[tensor.name] = {**form, **tensor.made}
        sha256 = digests.end_file()
    file_entry: FileEntry = {"size_bytes": len(start) + position, "sha256": sha256}
    record = {**about, "file": file_entry, "tensors": entries}
    write_json(record_path, record)
    return cast("Contents", record)


def digest_shard(
    path: Path, what: str = "", copy: BinaryIO | None = None
) -> tuple[str, dict[str, TensorEntry]]:
    """Digest a safetensors file and each of its tensors in one pass, and check that all numbers are finite.

    Args:
        path: The path of the file.
        what: The file, for the message about a number that is not finite; by default its path.
        copy: An empty file that receives the bytes that are digested.

    Returns:
        The file's SHA-256, and by tensor name: dtype, shape and SHA-256 of its bytes.

    Raises:
        CheckpointError: If the file is missing or damaged, or a tensor contains NaN or an infinity; the message names it.
    """
    try:
        with path.open("rb") as file:
            return digest_open_shard(file, what or str(path), copy)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing. Rebuild it.") from error


def digest_open_shard(
    file: BinaryIO, what: str, copy: BinaryIO | None = None
) -> tuple[str, dict[str, TensorEntry]]:
    """Digest a safetensors file that is open, and each of its tensors, as ``digest_shard`` does."""
    spans = sorted(_header(file, what).values(), key=lambda span: (span.start, span.end))
    entries: dict[str, TensorEntry] = {}
    with Digests() as digests:
        file.seek(0)
        head = file.read(spans[0].start if spans else os.fstat(file.fileno()).st_size)
        digests.header(head)
        if copy:
            copy.write(head)
        for span in spans:
            for piece in finite(_pieces(file, span, what), span, what):
                digests.update(piece)
                if copy:
                    copy.write(piece)
            entries[span.name] = {
                "dtype": span.dtype,
                "shape": list(span.shape),
                "sha256": digests.end_tensor(),
            }
        sha256 = digests.end_file()
    return sha256, dict(sorted(entries.items()))
