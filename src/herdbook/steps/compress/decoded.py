"""The tensors of an encoded model under the names that they have at full width, decoded when they are requested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from herdbook.errors import CheckpointError
from herdbook.inference.tensors import CheckpointFolder
from herdbook.steps.compress.encode import decode, dtypes
from herdbook.weights.checkpoint import Span, read_span
from herdbook.weights.compressed import held
from herdbook.weights.tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from herdbook.quantization.scheme import Scheme

SHAPES = ("I64",)  # the dtype of tensors that hold no numbers of a matrix


class DecodedTensors:
    """The tensors of a folder by their names at full width, in float32.

    Attributes:
        spans: Their names.

    Args:
        folder: The folder.
        scheme: The format.

    Raises:
        CheckpointError: If the folder is damaged.
    """

    def __init__(self, folder: Path, scheme: Scheme) -> None:
        self._files, self._scheme = CheckpointFolder(folder), scheme
        modules = held({name: span.shape for name, (_, span) in self._files.spans.items()}, scheme)
        self._modules = {
            name: (module, place) for module, names in modules.items() for place, name in enumerate(names)
        }
        # a module's other tensors are not of the matrix: a bias
        parts = set(scheme.stored("BF16", (scheme.rows, scheme.columns)))
        own = {f"{module}.{part}" for module in modules for part in parts}
        self.spans = [*(name for name in self._files.spans if name not in own), *self._modules]
        self._parts = parts

    def stored(self, name: str) -> torch.Tensor:
        """Return a tensor in the dtype that a runtime computes with. Raises CheckpointError if there is none of that name."""
        if name not in self._modules:
            return self._files.stored(name)
        return self._decoded(name, None)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor in float32. Raises as ``stored``."""
        return self.stored(name).to(torch.float32)

    def part(self, name: str, index: int) -> torch.Tensor:
        """Return one of the matrices of a tensor. Raises CheckpointError: at full width, none is stacked in these models."""
        raise CheckpointError(
            f"{self._files.path}: {name}[{index}]: the model has no tensors that are stacked"
        )

    def rows(self, name: str, ids: Sequence[int]) -> torch.Tensor:
        """Return rows of a matrix, in the order of ``ids``, in float32. Raises CheckpointError if it has no such row."""
        if name not in self._modules:
            return self._files.rows(name, ids)
        used = sorted(set(ids))
        decoded = self._decoded(name, used).to(torch.float32)
        return decoded[torch.searchsorted(torch.tensor(used), torch.tensor(list(ids)))]

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors whose names start with ``prefix``, by the rest of their names."""
        return {name.removeprefix(prefix): self[name] for name in self.spans if name.startswith(prefix)}

    def _decoded(self, name: str, rows: Sequence[int] | None) -> torch.Tensor:
        """Return a matrix, or rows of it."""
        module, place = self._modules[name]
        stored = {}
        for part in self._parts:
            tensor = f"{module}.{part}"
            if tensor not in self._files.spans:
                raise CheckpointError(f"{self._files.path}: contains no tensor {tensor}")
            path, span = self._files.spans[tensor]
            if span.dtype not in SHAPES:
                stored[part] = self._read(path, span, place, rows)
        scales = self._scheme.scales
        if self._scheme.runs_in_float32:
            stored[scales] = stored[scales].to(torch.float32)
        return decode(stored, self._scheme)

    def _read(self, path: Path, span: Span, place: int, rows: Sequence[int] | None) -> torch.Tensor:
        """Return the matrix at a place of a tensor in which some are stacked, or its rows; of another tensor, the whole."""
        known = {**DTYPES, **dtypes(self._scheme)}
        if span.dtype not in known:
            raise CheckpointError(f"{path}: {span.name} has dtype {span.dtype}, which no format here has")
        *_, height, width = span.shape
        size = (span.end - span.start) // (span.shape[0] if len(span.shape) > 2 else 1)
        start = span.start + (place * size if len(span.shape) > 2 else 0)
        row = size // height
        if rows and rows[-1] >= height:
            raise CheckpointError(f"{path}: {span.name} has {height} rows, and row {rows[-1]} is requested")
        runs = [(0, height)] if rows is None else [(index, 1) for index in rows]
        data = bytearray()
        for first, count in runs:
            piece = Span(
                span.name, span.dtype, (count, width), start + first * row, start + (first + count) * row
            )
            data += read_span(path, piece)
        return torch.frombuffer(data, dtype=known[span.dtype]).reshape(-1, width)
