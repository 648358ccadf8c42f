"""The GGUF container: its header read without touching the weights, its tensors read by rows, a header written.

Metadata values are kept as raw bytes, so that unknown ones are copied unchanged.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from herdbook import limits
from herdbook.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MAGIC = b"GGUF"
VERSION = 3
MAX_EXTENTS = 4  # ggml's GGML_MAX_DIMS
ALIGNMENT = 32  # bytes; the format's default, and the only alignment that the converter and llama.cpp write

_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}


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
        raw = self.metadata.get(key)
        if raw is None:
            return default
        kind = GGUFValueType(int.from_bytes(raw[:4], "little"))
        if kind == GGUFValueType.STRING:
            return raw[12:].decode("utf-8", "replace")
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.path}: {key} is a list where one value was expected")
        return struct.unpack("<" + _SCALARS[kind], raw[4:])[0]

    def count(self, key: str) -> int:
        """Return the number of elements of a list of the metadata; 0 if the key is absent."""
        raw = self.metadata.get(key, b"")
        return int.from_bytes(raw[8:16], "little")  # after the codes of the list's type and its elements'

    def read_rows(self, tensor: TensorInfo, first: int, count: int) -> NDArray[np.uint8]:
        """Return ``count`` encoded rows from row ``first`` on, ``(count, row_bytes)`` uint8."""
        size = count * tensor.row_bytes
        with self.path.open("rb") as file:
            file.seek(tensor.start + first * tensor.row_bytes)
            data = file.read(size)
        if len(data) != size:
            raise CheckpointError(
                f"{self.path}: is cut off inside tensor {tensor.name}. Download or rebuild it."
            )
        return np.frombuffer(data, np.uint8).reshape(count, tensor.row_bytes)


class Window(Protocol):
    """A file's bytes, read as they are accessed."""

    def __len__(self) -> int:
        """Return the file's size."""

    def __getitem__(self, where: slice, /) -> bytes:
        """Return a piece."""


class _Cursor:
    """Reads the header from the front, and checks each read against the end of the file and the limits of a header."""

    def __init__(self, data: Window, path: Path) -> None:
        self.data, self.path, self.position, self.values = data, path, 0, 0

    def count(self, values: int) -> None:
        """Count values before they are read."""
        self.values += values
        if self.values > limits.GGUF_VALUES:
            raise CheckpointError(
                f"{self.path}: refused: its header has {self.values:,} values or more, over the limit of {limits.GGUF_VALUES:,}"
            )

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > limits.GGUF_HEADER_BYTES:
            raise CheckpointError(
                f"{self.path}: refused: its header has {end:,} bytes or more, over the limit of {limits.GGUF_HEADER_BYTES:,}"
            )
        if end > len(self.data):
            raise CheckpointError(f"{self.path}: is cut off inside its header. Download or rebuild it.")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, code: str) -> int:
        return int(struct.unpack("<" + code, self.take(struct.calcsize(code)))[0])

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def skip_value(self, kind: int) -> None:
        if kind == GGUFValueType.STRING:
            self.take(self.number("Q"))
        elif kind == GGUFValueType.ARRAY:
            inner, count = self.number("I"), self.number("Q")
            self.count(count)
            if inner in {GGUFValueType.STRING, GGUFValueType.ARRAY}:
                for _ in range(count):
                    self.skip_value(inner)
            else:
                self.take(count * self.size_of(inner))
        else:
            self.take(self.size_of(kind))

    def size_of(self, kind: int) -> int:
        code = _SCALARS.get(kind)
        if code is None:
            raise CheckpointError(f"{self.path}: its header is damaged: unknown value type {kind}")
        return struct.calcsize("<" + code)


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
    try:
        return _parse(_Cursor(data, path))
    except RecursionError as error:
        raise CheckpointError(f"{path}: its header is damaged: lists are nested too deeply") from error


def _parse(cursor: _Cursor) -> GgufFile:
    path, size_bytes = cursor.path, len(cursor.data)
    if cursor.take(4) != MAGIC:
        raise CheckpointError(f"{path}: is not a GGUF: it does not start with {MAGIC.decode()}")
    if (version := cursor.number("I")) != VERSION:
        raise CheckpointError(f"{path}: is a GGUF of version {version}; only version {VERSION} is supported")
    tensor_count, key_count = cursor.number("Q"), cursor.number("Q")
    cursor.count(tensor_count + key_count)
    if tensor_count > limits.TENSORS:
        raise CheckpointError(
            f"{path}: refused: its header has {tensor_count:,} tensors, over the limit of {limits.TENSORS:,}"
        )
    metadata: dict[str, bytes] = {}
    for _ in range(key_count):
        key, start = cursor.string(), cursor.position
        cursor.skip_value(cursor.number("I"))
        if key in metadata:
            raise CheckpointError(f"{path}: its header is damaged: the key {key} occurs twice")
        metadata[key] = cursor.data[start : cursor.position]
    listed: list[tuple[str, tuple[int, ...], Any, int]] = []
    for _ in range(tensor_count):
        name = cursor.string()
        if (extents := cursor.number("I")) > MAX_EXTENTS:
            raise CheckpointError(
                f"{path}: tensor {name}: has {extents} extents; at most {MAX_EXTENTS} are possible"
            )
        shape = tuple(cursor.number("Q") for _ in range(extents))[::-1]
        listed.append((name, shape, _tensor_type(cursor, name, shape), cursor.number("Q")))
    return GgufFile(path, metadata, _place(listed, padded(cursor.position), path, size_bytes), size_bytes)


def _tensor_type(cursor: _Cursor, name: str, shape: tuple[int, ...]) -> Any:
    code = cursor.number("I")
    try:
        kind = GGMLQuantizationType(code)
    except ValueError as error:
        raise CheckpointError(f"{cursor.path}: tensor {name}: unknown type {code}") from error
    if not shape or math.prod(shape) == 0 or shape[-1] % GGML_QUANT_SIZES[kind][0]:
        raise CheckpointError(
            f"{cursor.path}: tensor {name}: shape {list(shape)} does not fit the type {kind.name}"
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


def number_value(kind: Any, value: float) -> bytes:
    """Encode a number as a metadata value, preceded by its type code."""
    return struct.pack("<I" + _SCALARS[kind], kind, value)


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
            _string(tensor.name)
            + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, tensor.type, position)
        )
        position += padded(tensor.size_bytes)
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(infos), len(metadata))]
    parts += [_string(key) + raw for key, raw in metadata.items()]
    whole = b"".join(parts + infos)
    return whole + bytes(padded(len(whole)) - len(whole))


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded
