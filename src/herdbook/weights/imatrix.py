"""Importance matrices, as llama.cpp keeps them: of each matrix's inputs, the sum of the squares of each column, and their number.

A matrix with experts has a sum and a number for each of them. Quantizers weigh the error of a column by the mean of its squares.
Files are GGUFs whose tensors are ``NAME.in_sum2`` and ``NAME.counts``; those of older programs (``.dat``) contain means alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import libgguf
import numpy as np
from gguf.constants import GGMLQuantizationType

from herdbook.errors import CheckpointError
from herdbook.weights.gguf_file import TensorInfo, header, padded, read_gguf
from herdbook.weights.gguf_header import MAGIC, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from herdbook.weights.gguf_file import GgufFile

SUMS, COUNTS = ".in_sum2", ".counts"
# A row of a file without counts stands for this many tokens: its means are kept as they are.
UNCOUNTED = 1


@dataclass(frozen=True)
class Inputs:
    """The inputs of a matrix.

    Args:
        sums: The sum of the squares of each column, ``(experts, width)`` float32; a matrix without experts has one row.
        counts: How many inputs there were, ``(experts,)`` float32.
    """

    sums: NDArray[np.float32]
    counts: NDArray[np.float32]

    def weights(self, expert: int) -> NDArray[np.float32]:
        """Return the weight of each column: the mean of the squares, or 1 if no input reached the expert, as in llama.cpp."""
        count = self.counts[expert]
        return self.sums[expert] / count if count > 0 else np.ones_like(self.sums[expert])


@dataclass(frozen=True)
class ImportanceMatrix:
    """An importance matrix.

    Args:
        inputs: By the name of each tensor in a GGUF of the model.
        texts: Names of the texts that it was computed from.
        chunks: How many pieces of text.
        chunk_tokens: The length of such a piece.
        counted: Whether the number of inputs is known.
    """

    inputs: Mapping[str, Inputs]
    texts: tuple[str, ...]
    chunks: int
    chunk_tokens: int
    counted: bool = True

    def pieces(self) -> Iterator[bytes]:
        """Yield the content of its file; it depends on nothing but the values."""
        tensors = [
            (TensorInfo(f"{name}{suffix}", values.shape, GGMLQuantizationType.F32), values)
            for name, one in sorted(self.inputs.items())
            for suffix, values in ((SUMS, one.sums), (COUNTS, one.counts.reshape(-1, 1)))
        ]
        metadata = {
            "general.type": encode("imatrix"),
            "imatrix.datasets": encode(list(self.texts)),
            "imatrix.chunk_count": encode(self.chunks),
            "imatrix.chunk_size": encode(self.chunk_tokens),
        }
        yield header(metadata, [tensor for tensor, _ in tensors])
        for tensor, values in tensors:
            yield np.ascontiguousarray(values, dtype="<f4").tobytes()
            yield bytes(padded(tensor.size_bytes) - tensor.size_bytes)


def read_imatrix(path: Path) -> ImportanceMatrix:
    """Read an importance matrix, in either form.

    Raises:
        CheckpointError: If it is missing, damaged or no importance matrix, or has values that are infinite, negative or not a
            number.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing") from error
    matrix = _of_gguf(read_gguf(path)) if start == MAGIC else _of_dat(path)
    for name, inputs in matrix.inputs.items():
        for values in (inputs.sums, inputs.counts):
            if not np.isfinite(values).all() or (values < 0).any():
                raise CheckpointError(
                    f"{path}: {name}: has values that are infinite, negative or not a number, so that it is no use; compute it again"
                )
    return matrix


def _of_gguf(file: GgufFile) -> ImportanceMatrix:
    if file.value("general.type") != "imatrix":
        raise CheckpointError(f"{file.path}: is a GGUF, but no importance matrix (general.type)")
    inputs = {}
    for tensor in file.tensors.values():
        name = tensor.name.removesuffix(SUMS)
        if name == tensor.name:
            continue
        counts = file.tensors.get(name + COUNTS)
        if counts is None or not _fits(tensor, counts):
            raise CheckpointError(f"{file.path}: {name}: its sums have no counts that fit them")
        inputs[name] = Inputs(_values(file, tensor), _values(file, counts).reshape(-1))
    if not inputs:
        raise CheckpointError(f"{file.path}: is an importance matrix of no tensors")
    chunks, size = (file.value(f"imatrix.chunk_{name}", 0) for name in ("count", "size"))
    return ImportanceMatrix(inputs, (), int(chunks), int(size))


def _fits(sums: TensorInfo, counts: TensorInfo) -> bool:
    is_float = {sums.type, counts.type} == {GGMLQuantizationType.F32}
    return is_float and sums.rows == counts.parameters


def _values(file: GgufFile, tensor: TensorInfo) -> NDArray[np.float32]:
    rows = file.read_rows(tensor, 0, tensor.rows)
    return rows.view("<f4").astype(np.float32).reshape(tensor.rows, tensor.width)


def _of_dat(path: Path) -> ImportanceMatrix:
    try:
        means = libgguf.load_imatrix(path)
    except (ValueError, struct.error, MemoryError) as error:
        raise CheckpointError(
            f"{path}: is no importance matrix: neither a GGUF nor of the older form ({error})"
        ) from error
    inputs = {
        name: Inputs(values.reshape(1, -1), np.full(1, UNCOUNTED, np.float32))
        for name, values in means.items()
    }
    return ImportanceMatrix(inputs, (), 0, 0, counted=False)
