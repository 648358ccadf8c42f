"""Rows of a GGUF's tensors at full width, read by ranges of the tensors that they are made from, wherever these are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np

from herdbook.architectures.gguf_tensors import row_order
from herdbook.errors import UnverifiedError
from herdbook.steps.quantize.encode import decode_full_width
from herdbook.steps.quantize.model_folder import DTYPES
from herdbook.weights.gguf_file import row_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from herdbook.architectures.gguf_tensors import TensorLayout
    from herdbook.weights.gguf_file import TensorInfo


class Described(Protocol):
    """A tensor of safetensors, without its weights."""

    @property
    def dtype(self) -> str:
        """Its dtype, by the code of safetensors."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""


class WeightRows:
    """Reads rows of a GGUF's tensors from the model's own.

    Args:
        parts: How each tensor of the GGUF is made.
        tensors: The model's tensors by name.
        read: Reads a range of bytes of one of them.
    """

    def __init__(
        self,
        parts: Mapping[str, TensorLayout],
        tensors: Mapping[str, Described],
        read: Callable[[str, int, int], bytes],
    ) -> None:
        self.parts, self.tensors, self.read = parts, tensors, read

    def of(self, tensor: TensorInfo, first: int, count: int) -> NDArray[np.float32]:
        """Return rows of a tensor, ``(count, width)`` float32. Raises UnverifiedError if they are no floating-point numbers."""
        part = self.parts[tensor.name]
        rows_per_source = tensor.rows // len(part.sources)
        weights = np.empty((count, tensor.width), np.float32)
        position = first
        while position < first + count:
            source, row = part.sources[position // rows_per_source], position % rows_per_source
            rows = min(first + count - position, rows_per_source - row)
            if len(tensor.shape) == 1:
                weights[:] = self._vector(part)
            elif len(self.tensors[source].shape) == 1:  # a norm of a single head
                weights[position - first] = self._read(source, 0, 1, tensor.width)[0]
            else:
                weights[position - first : position - first + rows] = self._rows(source, part, row, rows)
            position += rows
        return weights

    def _vector(self, part: TensorLayout) -> NDArray[np.float32]:
        name = part.sources[0]
        vector = self._read(name, 0, math.prod(self.tensors[name].shape), 1)[:, 0]
        ordered: NDArray[np.float32] = vector[row_order(len(vector), part.heads)]
        return ordered + np.float32(part.shift) if part.shift else ordered

    def _rows(self, name: str, part: TensorLayout, first: int, count: int) -> NDArray[np.float32]:
        """Return rows of a matrix in the GGUF's order; adjacent rows are read together."""
        height, width = self.tensors[name].shape
        if not part.heads:
            return self._read(name, first, count, width)
        indices = row_order(height, part.heads)[first : first + count]
        ordered = np.sort(indices)
        result = np.empty((count, width), np.float32)
        for run in np.split(ordered, np.nonzero(np.diff(ordered) != 1)[0] + 1):
            rows = self._read(name, int(run[0]), len(run), width)
            for row, values in zip(run, rows, strict=True):
                result[np.nonzero(indices == row)[0]] = values
        return result

    def _read(self, name: str, first: int, count: int, width: int) -> NDArray[np.float32]:
        dtype = self.tensors[name].dtype
        if dtype not in DTYPES:
            raise UnverifiedError(f"{name}: a GGUF is made from floating-point numbers, not from {dtype}")
        row = row_bytes(DTYPES[dtype], width)
        data = self.read(name, first * row, (first + count) * row)
        return decode_full_width(np.frombuffer(data, np.uint8).reshape(count, row), DTYPES[dtype])
