"""A Hugging Face folder as one model: its configuration, and its tensors, read by rows from their shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf.constants import GGMLQuantizationType

from herdbook import jsonio, limits
from herdbook.errors import CheckpointError, StepError
from herdbook.layout import CONFIG, WEIGHTS, WEIGHTS_INDEX
from herdbook.sources.index import read_index
from herdbook.steps.quantize.encode import decode_full_width
from herdbook.weights.checkpoint import read_header

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from herdbook.weights.checkpoint import Span

DTYPES = {
    "F32": GGMLQuantizationType.F32,
    "F16": GGMLQuantizationType.F16,
    "BF16": GGMLQuantizationType.BF16,
}


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk.

    Args:
        path: The folder.
        config: Its ``config.json``.
        tensors: By tensor name: the shard, and the tensor's span in it.
    """

    path: Path
    config: dict[str, Any]
    tensors: dict[str, tuple[Path, Span]]

    @property
    def shards(self) -> list[Path]:
        """The files that contain tensors, sorted."""
        return sorted({shard for shard, _ in self.tensors.values()})

    def matrix(self, name: str) -> tuple[NDArray[np.uint8], Any]:
        """Map a tensor without reading it.

        Returns:
            Its bytes, ``(rows, row_bytes)`` uint8 (a vector is one row), and their type.

        Raises:
            CheckpointError: If the model has no such tensor.
            StepError: If its dtype is not F32, F16 or BF16.
        """
        if name not in self.tensors:
            raise CheckpointError(f"{self.path}: the tensor {name} is missing")
        shard, span = self.tensors[name]
        if span.dtype not in DTYPES:
            raise StepError(
                f"{shard}: tensor {name} has dtype {span.dtype}; only {', '.join(DTYPES)} are supported."
            )
        rows = span.shape[0] if len(span.shape) > 1 else 1
        data = np.memmap(
            shard, np.uint8, "r", offset=span.start, shape=(rows, (span.end - span.start) // rows)
        )
        return data, DTYPES[span.dtype]

    def rows(self, name: str, which: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        """Read some rows of a tensor, ``(n, width)`` float32, exactly. Raises as ``matrix``."""
        data, kind = self.matrix(name)
        return decode_full_width(np.ascontiguousarray(data[which]), kind)


def read_folder(path: Path) -> ModelFolder:
    """Read a model's configuration and the positions of its tensors, in named shards with an index or in one file.

    Raises:
        CheckpointError: If a file is missing or damaged, or index and shards do not agree.
    """
    config = _read_json(path / CONFIG)
    index_path = path / WEIGHTS_INDEX
    if index_path.exists():
        try:
            weight_map: dict[str, str] | None = read_index(index_path.read_bytes())
        except ValueError as error:
            raise CheckpointError(f"{index_path}: is damaged: {error}") from error
        if not weight_map:
            raise CheckpointError(f"{index_path}: has no weight_map")
        names = sorted(set(weight_map.values()))
    else:
        weight_map, names = None, [WEIGHTS]
    tensors: dict[str, tuple[Path, Span]] = {}
    for name in names:
        for tensor, span in read_header(path / name).items():
            if tensor in tensors:
                raise CheckpointError(f"{path}: two shards contain the tensor {tensor}")
            tensors[tensor] = (path / name, span)
    if weight_map is not None:
        if missing := sorted(set(weight_map) - set(tensors)):
            raise CheckpointError(f"{path}: the shards lack tensors that the index lists: {_some(missing)}")
        if extra := sorted(set(tensors) - set(weight_map)):
            raise CheckpointError(
                f"{path}: the shards contain tensors that the index does not list: {_some(extra)}"
            )
    return ModelFolder(path, config, tensors)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return jsonio.load_object(path.read_bytes(), limits.DOCUMENT)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: is damaged: {error}") from error


def _some(names: list[str]) -> str:
    """Return a few of many names, and the number of the others."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
