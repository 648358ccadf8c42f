"""The GGUF container: where its tensors lie and of which types they are, its tensors read by rows, a header written."""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from herdbook import limits
from herdbook.errors import CheckpointError
from herdbook.files import sha256_file
from herdbook.weights.gguf_header import MAGIC, VERSION, count, encode_string, parse_header, scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from herdbook.weights.gguf_header import Listed, Window

ALIGNMENT = 32  # bytes; the format's default, and the only alignment that the converter and llama.cpp write
PIECE_BYTES = 1 << 25


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a GGUF.

    Args:
        name: Its name in the file.
        shape: Its extents, the fastest-moving last (the file lists them in reverse order).
        type: The encoding of its rows.
        start: Offset of its first byte from the beginning of the file; -1 if it is not in a file yet.
    """

    name: str
    shape: tuple[int, ...]
    type: Any
    start: int = -1

    @property
    def width(self) -> int:
        """Number of weights in a row."""
        return self.shape[-1]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return math.prod(self.shape[:-1])

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Size of an encoded row in bytes."""
        return row_bytes(self.type, self.width)

    @property
    def size_bytes(self) -> int:
        """Size of the encoded tensor in bytes, without padding."""
        return self.rows * self.row_bytes


def row_bytes(kind: Any, width: int) -> int:
    """Return the size in bytes of a row of ``width`` weights encoded as ``kind``."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return int(width // block * block_bytes)


def block_count(tensor: TensorInfo) -> int:
    """Return how many rows of a tensor are copied at a time."""
    return max(1, PIECE_BYTES // tensor.row_bytes)


def padded(size: int) -> int:
    """Round a size in bytes up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class GgufFile:
    """A GGUF's header.

    Args:
        path: The file.
        metadata: The raw bytes of each value, preceded by its type code, by key.
        tensors: The tensors by name, in the order of the header.
        size_bytes: Size of the whole file.
    """

    path: Path
    metadata: dict[str, bytes]
    tensors: dict[str, TensorInfo]
    size_bytes: int

    def value(self, key: str, default: Any = None) -> Any:
        """Return a number, truth value or string of the metadata (no arrays), or ``default`` if the key is absent."""
        try:
            return scalar(self.metadata, key, default)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from error

    def count(self, key: str) -> int:
        """Return the number of elements of a list of the metadata; 0 if the key is absent."""
        return count(self.metadata, key)

    def place(self, tensor: TensorInfo) -> tuple[Path, int]:
        """Return the file that contains a tensor, and where it begins there."""
        return self.path, tensor.start

    def digest(self) -> str:
        """Return the SHA-256 of the whole file."""
        return sha256_file(self.path)

    def read_rows(self, tensor: TensorInfo, first: int, count: int) -> NDArray[np.uint8]:
        """Return ``count`` encoded rows from row ``first`` on, ``(count, row_bytes)`` uint8."""
        size = count * tensor.row_bytes
        path, start = self.place(tensor)
        with path.open("rb") as file:
            file.seek(start + first * tensor.row_bytes)
            data = file.read(size)
        if len(data) != size:
            raise CheckpointError(f"{path}: is cut off inside tensor {tensor.name}. Download or rebuild it.")
        return np.frombuffer(data, np.uint8).reshape(count, tensor.row_bytes)


def read_gguf(path: Path) -> GgufFile:
    """Read a GGUF's header and check it against the file's size.

    Args:
        path: The file.

    Returns:
        The header.

    Raises:
        CheckpointError: If the file is missing, truncated or not a GGUF of version 3, has bytes that belong to no tensor,
            or its header contradicts itself.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse_gguf(data, path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing. Rebuild it.") from error
    except ValueError as error:  # mmap of an empty file
        raise CheckpointError(f"{path}: is not a GGUF: {error}") from error


def check_source(path: Path) -> Path:
    """Return the path of a GGUF that transformers is to read, after checking that nothing in its header takes it hours.

    Raises:
        CheckpointError: As ``read_gguf``; and if it has more layers than any model.
    """
    file = read_gguf(path)
    key = f"{file.value('general.architecture')}.block_count"
    layers = file.value(key)
    if isinstance(layers, int) and layers > limits.LAYERS:
        raise CheckpointError(f"{path}: refused: {key} is {layers}, over the limit of {limits.LAYERS:,}")
    return path


def parse_gguf(data: Window, path: Path) -> GgufFile:
    """Parse a GGUF's header, wherever its bytes are.

    Args:
        data: The file.
        path: Its name in errors.

    Raises:
        CheckpointError: As ``read_gguf``.
    """
    head = parse_header(data, path)
    listed = [(one.name, one.shape, _tensor_type(path, one), one.offset) for one in head.tensors]
    placed = _place(listed, padded(head.size_bytes), path, len(data))
    return GgufFile(path, head.metadata, placed, len(data))


def _tensor_type(path: Path, tensor: Listed) -> Any:
    try:
        kind = GGMLQuantizationType(tensor.type)
    except ValueError as error:
        raise CheckpointError(f"{path}: tensor {tensor.name}: unknown type {tensor.type}") from error
    shape = tensor.shape
    if not shape or math.prod(shape) == 0 or shape[-1] % GGML_QUANT_SIZES[kind][0]:
        raise CheckpointError(
            f"{path}: tensor {tensor.name}: shape {list(shape)} does not fit the type {kind.name}"
        )
    return kind


def _place(
    listed: list[tuple[str, tuple[int, ...], Any, int]], data_start: int, path: Path, size_bytes: int
) -> dict[str, TensorInfo]:
    """Turn relative offsets into positions in the file; every byte after the header must belong to one tensor."""
    tensors: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in listed:
        if name in tensors:
            raise CheckpointError(f"{path}: its header is damaged: the tensor {name} occurs twice")
        tensors[name] = TensorInfo(name, shape, kind, data_start + offset)
    position = data_start
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.start):
        if tensor.start != position:
            raise CheckpointError(f"{path}: tensor {tensor.name} does not begin where the previous one ends")
        end = tensor.start + tensor.size_bytes
        if end > size_bytes:
            raise CheckpointError(f"{path}: is cut off inside tensor {tensor.name}. Download or rebuild it.")
        position = padded(end)
    if tensors and size_bytes > position:
        raise CheckpointError(f"{path}: has {size_bytes - position} bytes after its last tensor")
    return tensors


def header(metadata: Mapping[str, bytes], tensors: Iterable[TensorInfo]) -> bytes:
    """Return the bytes in front of the weights: metadata in the order given, tensors one after the other.

    Trailing extents of 1 are left out, as ggml does (``ggml_n_dims``).
    """
    infos, position = [], 0
    for tensor in tensors:
        extents = list(tensor.shape[::-1])
        while len(extents) > 1 and extents[-1] == 1:
            extents.pop()
        infos.append(
            encode_string(tensor.name)
            + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, tensor.type, position)
        )
        position += padded(tensor.size_bytes)
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(infos), len(metadata))]
    parts += [encode_string(key) + raw for key, raw in metadata.items()]
    whole = b"".join(parts + infos)
    return whole + bytes(padded(len(whole)) - len(whole))
