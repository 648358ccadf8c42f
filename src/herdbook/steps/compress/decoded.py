"""The tensors of a model in a format for GPU servers under the names that they have at full width, decoded when they are requested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from herdbook.errors import CheckpointError
from herdbook.inference.tensors import CheckpointFolder
from herdbook.quantization.schemes import PACKED, SCALE, WEIGHT
from herdbook.steps.compress.encode import FP8, decode
from herdbook.weights.checkpoint import read_span

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from herdbook.quantization.schemes import Scheme

STORED = {"F8_E4M3": FP8, "I32": torch.int32}


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
        self._numbers = PACKED if scheme.is_packed else WEIGHT
        modules = [name.removesuffix(f".{SCALE}") for name in self._files.spans if name.endswith(f".{SCALE}")]
        self._modules = {f"{module}.{WEIGHT}": module for module in modules}
        inside = {*modules}
        others = [name for name in self._files.spans if name.rpartition(".")[0] not in inside]
        self.spans = [*others, *self._modules]

    def stored(self, name: str) -> torch.Tensor:
        """Return a tensor in the dtype that a server computes with. Raises CheckpointError if there is none of that name."""
        module = self._modules.get(name)
        if module is None:
            return self._files.stored(name)
        scale = self._files.stored(f"{module}.{SCALE}")
        if self._scheme.activations:  # sums of products of encoded numbers are scaled, in float32
            scale = scale.to(torch.float32)
        return decode({self._numbers: self._encoded(f"{module}.{self._numbers}"), SCALE: scale}, self._scheme)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor in float32. Raises as ``stored``."""
        return self.stored(name).to(torch.float32)

    def part(self, name: str, index: int) -> torch.Tensor:
        """Return one of the matrices of a tensor. Raises CheckpointError: none is stacked in these formats."""
        raise CheckpointError(
            f"{self._files.path}: {name}[{index}]: the model has no tensors that are stacked"
        )

    def rows(self, name: str, ids: Sequence[int]) -> torch.Tensor:
        """Return rows of a matrix that keeps its width, in the order of ``ids``, in float32."""
        return self._files.rows(name, ids)

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors whose names start with ``prefix``, by the rest of their names."""
        return {name.removeprefix(prefix): self[name] for name in self.spans if name.startswith(prefix)}

    def _encoded(self, name: str) -> torch.Tensor:
        if name not in self._files.spans:
            raise CheckpointError(f"{self._files.path}: contains no tensor {name}")
        path, span = self._files.spans[name]
        if span.dtype not in STORED:
            raise CheckpointError(f"{path}: {name} has dtype {span.dtype}, which no format here has")
        return torch.frombuffer(read_span(path, span), dtype=STORED[span.dtype]).reshape(span.shape)
