"""The tensors of a GGUF under their names in safetensors, dequantized one at a time when they are requested.

Each tensor of the model is accounted for before the first is read: a reader that fills up what a file lacks would measure random
weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from herdbook.architectures.gguf_tensors import layout, row_order
from herdbook.errors import CheckpointError
from herdbook.weights.gguf_file import read_gguf

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from herdbook.architectures.gguf_tensors import TensorLayout
    from herdbook.weights.gguf_file import TensorInfo

TOGETHER = 2**18  # values that are dequantized together: a megabyte, which a core's cache holds


class RestoredTensors:
    """The tensors of a GGUF by their names in safetensors, in float32; of stacked experts, only the one that is requested is read.

    Attributes:
        file: The GGUF's header.
        derived: How many of its weights follow from the configuration, and are no tensor of the model.

    Args:
        path: The GGUF, of any type.
        config: The model's ``config.json``.
        where: The model's name in errors.

    Raises:
        CheckpointError: If the file is damaged, lacks a tensor, has an extra one, or stacks another number of experts.
        StepError: If the architecture is not supported.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], where: str) -> None:
        self.file = read_gguf(path)
        parts = layout(config, where)
        if missing := [
            name for name, part in parts.items() if part.required and name not in self.file.tensors
        ]:
            raise CheckpointError(f"{path}: tensors are missing: {', '.join(missing)}")
        self.spans: dict[str, tuple[TensorInfo, TensorLayout, int]] = {}
        for tensor in self.file.tensors.values():
            if tensor.name not in parts:
                raise CheckpointError(
                    f"{path}: contains the tensor {tensor.name}, which the model does not have"
                )
            part = parts[tensor.name]
            if part.stacked and tensor.shape[0] != len(part.sources):
                raise CheckpointError(
                    f"{path}: tensor {tensor.name} stacks {tensor.shape[0]} experts, {len(part.sources)} expected"
                )
            if part.heads and tensor.shape[0] % (2 * part.heads):
                raise CheckpointError(
                    f"{path}: the rows of tensor {tensor.name} cannot be divided among {part.heads} heads"
                )
            self.spans |= {source: (tensor, part, place) for place, source in enumerate(part.sources)}
        self.derived = sum(part.length for part in parts.values())

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor; None if the file does not contain it."""
        if name not in self.spans:
            return None
        tensor, part, _ = self.spans[name]
        if part.is_row:
            return (1, *tensor.shape)
        return tensor.shape[1:] if part.stacked else tensor.shape

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor in float32. Raises CheckpointError if the file has no such tensor."""
        tensor, part, place = self._span(name)
        count = tensor.rows // (len(part.sources) if part.stacked else 1)
        values = self._rows(tensor, place * count, count)
        if part.heads:
            flat = values.reshape(tensor.shape)
            restored = np.empty_like(flat)
            restored[row_order(tensor.shape[0], part.heads)] = flat
            values = restored
        if part.is_row:
            return torch.from_numpy(values.reshape(1, -1))
        if part.shift:
            values = values - np.float32(part.shift)
        return torch.from_numpy(values.reshape(tensor.shape[1:] if part.stacked else tensor.shape))

    def stored(self, name: str) -> torch.Tensor:
        """Return a tensor in float32; the type that it is stored in is none of torch's."""
        return self[name]

    def part(self, name: str, index: int) -> torch.Tensor:
        """Return one of the matrices of a tensor. Raises CheckpointError: a GGUF's experts have names of their own here."""
        raise CheckpointError(f"{self.file.path}: {name}[{index}]: the model has no tensors that are stacked")

    def rows(self, name: str, ids: Sequence[int]) -> torch.Tensor:
        """Return rows of a matrix, in the order of ``ids``, in float32; nothing else of it is read."""
        tensor, _, _ = self._span(name)
        if max(ids) >= tensor.rows:
            raise CheckpointError(
                f"{self.file.path}: {name} has {tensor.rows} rows, and row {max(ids)} is requested"
            )
        by_id = {row: self._rows(tensor, row, 1)[0] for row in sorted(set(ids))}
        return torch.from_numpy(np.stack([by_id[row] for row in ids]))

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors whose names start with ``prefix``, by the rest of their names."""
        return {name.removeprefix(prefix): self[name] for name in self.spans if name.startswith(prefix)}

    def _span(self, name: str) -> tuple[TensorInfo, TensorLayout, int]:
        if name not in self.spans:
            raise CheckpointError(f"{self.file.path}: contains no tensor {name}")
        return self.spans[name]

    def _rows(self, tensor: TensorInfo, first: int, count: int) -> NDArray[np.float32]:
        """Return rows in the order of the file, ``(count, width)`` float32, in memory that torch may write to."""
        from gguf.quants import dequantize

        data = self.file.read_rows(tensor, first, count)
        joined = _joined(count, tensor.width)
        values = dequantize(data.reshape(count // joined, -1), tensor.type)
        return np.require(values.reshape(count, tensor.width), np.float32, ["C", "W"])


def _joined(count: int, width: int) -> int:
    """Return how many of some rows are handed to gguf as one: it dequantizes 16 rows at a time, whose blocks know no rows."""
    wanted = max(1, TOGETHER // (16 * width))
    return next(number for number in range(min(wanted, count), 0, -1) if count % number == 0)
