"""The header of a GGUF as the file has it: metadata and a list of tensors, read without interpreting the weights' types.

It needs no package, so that a header can be checked where none for quantized weights is installed. Values are kept as raw
bytes, so that unknown ones are copied unchanged, and an expected value is compared by its encoding, type included.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from herdbook import limits
from herdbook.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAGIC = b"GGUF"
VERSION = 3
MAX_EXTENTS = 4  # ggml's GGML_MAX_DIMS

Value = bool | int | float | str | list[str] | list[int] | list[float]


class Kind(IntEnum):
    """The types of values."""

    UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(
        13
    )


SCALARS: dict[int, str] = dict(
    zip([kind for kind in Kind if kind not in {Kind.STRING, Kind.ARRAY}], "BbHhIif?Qqd", strict=True)
)


@dataclass(frozen=True)
class Listed:
    """A tensor as the header lists it.

    Args:
        name: Its name.
        shape: Its extents, the fastest-moving last (the file lists them in reverse order).
        type: The number of its type.
        offset: Where its data begin, from the end of the header.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class Header:
    """A GGUF's header.

    Args:
        metadata: The raw bytes of each value, preceded by its type code, by key.
        tensors: The tensors, in order.
        size_bytes: The size of the header, without the padding after it.
    """

    metadata: dict[str, bytes]
    tensors: tuple[Listed, ...]
    size_bytes: int


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

    def count(self, values: int) -> None:
        """Count values and tensors before they are read."""
        self.values += values
        if self.values > limits.GGUF_VALUES:
            raise CheckpointError(
                f"{self.path}: refused: its header has {self.values:,} values or more, over the limit of {limits.GGUF_VALUES:,}"
            )

    def number(self, code: str) -> int:
        return int(struct.unpack("<" + code, self.take(struct.calcsize(code)))[0])

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def skip_value(self, kind: int) -> None:
        if kind == Kind.STRING:
            self.take(self.number("Q"))
        elif kind == Kind.ARRAY:
            inner, count = self.number("I"), self.number("Q")
            self.count(count)
            if inner == Kind.STRING:
                self.skip_strings(count)
            elif inner == Kind.ARRAY:
                for _ in range(count):
                    self.skip_value(inner)
            else:
                self.take(count * self.size_of(inner))
        else:
            self.take(self.size_of(kind))

    def skip_strings(self, count: int) -> None:
        """Skip texts, of which a vocabulary has hundreds of thousands."""
        data, position = self.data, self.position
        size = min(len(data), limits.GGUF_HEADER_BYTES)
        for _ in range(count):
            if (end := position + 8) > size:
                break
            position = end + int.from_bytes(data[position:end], "little")
        else:
            if position <= size:
                self.position = position
                return
        self.take(size - self.position + 1)  # is cut off, or too large

    def size_of(self, kind: int) -> int:
        code = SCALARS.get(kind)
        if code is None:
            raise CheckpointError(f"{self.path}: its header is damaged: unknown value type {kind}")
        return struct.calcsize("<" + code)


def parse_header(data: Window, path: Path) -> Header:
    """Read a GGUF's header, wherever its bytes are.

    Args:
        data: The file.
        path: Its name in errors.

    Raises:
        CheckpointError: If it is no GGUF of version 3, is cut off, over the limit, or contradicts itself.
    """
    try:
        return _read(_Cursor(data, path))
    except RecursionError as error:
        raise CheckpointError(f"{path}: its header is damaged: lists are nested too deeply") from error


def _read(cursor: _Cursor) -> Header:
    path = cursor.path
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
    tensors: list[Listed] = []
    for _ in range(tensor_count):
        name = cursor.string()
        if (extents := cursor.number("I")) > MAX_EXTENTS:
            raise CheckpointError(
                f"{path}: tensor {name}: has {extents} extents; at most {MAX_EXTENTS} are possible"
            )
        shape = tuple(cursor.number("Q") for _ in range(extents))[::-1]
        tensors.append(Listed(name, shape, cursor.number("I"), cursor.number("Q")))
    return Header(metadata, tuple(tensors), cursor.position)


def scalar(metadata: Mapping[str, bytes], key: str, default: Any = None) -> Any:
    """Return a number, truth value or string of the metadata (no arrays), or ``default`` if the key is absent.

    Raises:
        CheckpointError: If it is a list.
    """
    raw = metadata.get(key)
    if raw is None:
        return default
    kind = int.from_bytes(raw[:4], "little")
    if kind == Kind.STRING:
        return raw[12:].decode("utf-8", "replace")
    if kind == Kind.ARRAY:
        raise CheckpointError(f"{key} is a list where one value was expected")
    return struct.unpack("<" + SCALARS[Kind(kind)], raw[4:])[0]


def count(metadata: Mapping[str, bytes], key: str) -> int:
    """Return the number of elements of a list of the metadata; 0 if the key is absent."""
    return int.from_bytes(metadata.get(key, b"")[8:16], "little")  # after the type's code and the elements'


def encode_number(kind: int, value: float) -> bytes:
    """Encode a number as a metadata value, preceded by its type code."""
    return struct.pack("<I" + SCALARS[Kind(kind)], kind, value)


def encode_string(text: str) -> bytes:
    """Encode a text, preceded by its length."""
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def encode(value: Value) -> bytes:
    """Encode a value as llama.cpp's converter does, preceded by its type code: integers without a sign, except in lists."""
    match value:
        case bool():
            return encode_number(Kind.BOOL, value)
        case int():
            return encode_number(Kind.UINT32, value)
        case float():
            return encode_number(Kind.FLOAT32, value)
        case str():
            return struct.pack("<I", Kind.STRING) + encode_string(value)
    if value and isinstance(value[0], str):
        kind, items = Kind.STRING, b"".join(encode_string(str(text)) for text in value)
    else:
        kind = Kind.FLOAT32 if value and isinstance(value[0], float) else Kind.INT32
        items = struct.pack(f"<{len(value)}{SCALARS[kind]}", *value)
    return struct.pack("<IIQ", Kind.ARRAY, kind, len(value)) + items


OF_A_PART = (
    "split.no",
    "split.count",
    "split.tensors.count",
)  # keys of the entries of a part of a split file


def own_entries(number: int, count: int, tensors: int) -> dict[str, bytes]:
    """Return the entries of a part of a split file: its number from 0, the number of parts, and that of all tensors."""
    values = ((Kind.UINT16, number), (Kind.UINT16, count), (Kind.INT32, tensors))
    return {key: encode_number(*pair) for key, pair in zip(OF_A_PART, values, strict=True)}
