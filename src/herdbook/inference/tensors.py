"""The tensors of a model by name, each read when it is asked for: of a folder of safetensors, or of anything else that has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from herdbook.errors import CheckpointError
from herdbook.layout import WEIGHTS, WEIGHTS_INDEX
from herdbook.sources.index import read_index
from herdbook.weights.checkpoint import Span, read_header, read_span
from herdbook.weights.tensors import from_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path


class Weights(Protocol):
    """The tensors of a model by their names in safetensors, each read when it is asked for."""

    @property
    def spans(self) -> Collection[str]:
        """The names."""

    def stored(self, name: str) -> torch.Tensor:
        """Return a tensor in its own dtype."""

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor in float32."""

    def part(self, name: str, index: int) -> torch.Tensor:
        """Return one of the matrices that are stacked in a tensor, in float32."""

    def rows(self, name: str, ids: Sequence[int]) -> torch.Tensor:
        """Return rows of a matrix, in the order of ``ids``, in float32."""

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors whose names start with ``prefix``, by the rest of their names."""


class CheckpointFolder:
    """The tensors of a model folder, by name, in float32."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        index = folder / WEIGHTS_INDEX
        try:
            files = sorted(set(read_index(index.read_bytes()).values())) if index.exists() else [WEIGHTS]
        except ValueError as error:
            raise CheckpointError(f"{index}: is damaged: {error}") from error
        self.spans = {
            name: (folder / file, span) for file in files for name, span in read_header(folder / file).items()
        }

    def stored(self, name: str) -> torch.Tensor:
        """Return a tensor in its own dtype. Raises CheckpointError if the folder has no such tensor."""
        if name not in self.spans:
            raise CheckpointError(f"{self.path}: contains no tensor {name}")
        path, span = self.spans[name]
        return from_bytes(read_span(path, span), span.dtype, span.shape, f"{path}: {name}")

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor in float32. Raises CheckpointError if the folder has no such tensor."""
        return self.stored(name).to(torch.float32)

    def part(self, name: str, index: int) -> torch.Tensor:
        """Return one of the matrices that are stacked in a tensor, in float32; nothing else of it is read."""
        path, span = self.spans[name]
        size = (span.end - span.start) // span.shape[0]
        start = span.start + index * size
        own = Span(f"{name}[{index}]", span.dtype, span.shape[1:], start, start + size)
        return from_bytes(read_span(path, own), own.dtype, own.shape, f"{path}: {own.name}").to(torch.float32)

    def rows(self, name: str, ids: Sequence[int]) -> torch.Tensor:
        """Return rows of a matrix, in the order of ``ids``, in float32; nothing else of it is read.

        Raises CheckpointError if it has no such row.
        """
        path, span = self.spans[name]
        size = (span.end - span.start) // span.shape[0]
        if max(ids) >= span.shape[0]:
            raise CheckpointError(f"{path}: {name} has {span.shape[0]} rows, and row {max(ids)} is requested")
        by_id = {}
        for row in sorted(set(ids)):
            own = Span(
                f"{name}[{row}]",
                span.dtype,
                span.shape[1:],
                span.start + row * size,
                span.start + (row + 1) * size,
            )
            by_id[row] = from_bytes(read_span(path, own), own.dtype, own.shape, f"{path}: {own.name}")
        return torch.stack([by_id[row] for row in ids]).to(torch.float32)

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors whose names start with ``prefix``, by the rest of their names."""
        return {name.removeprefix(prefix): self[name] for name in self.spans if name.startswith(prefix)}
