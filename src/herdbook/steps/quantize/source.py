"""The rows of a GGUF's tensors, read from a model's safetensors: named, in llama.cpp's order, stacked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from herdbook.architectures.gguf_tensors import made_from, row_order, shape_of
from herdbook.steps.quantize.encode import block_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from herdbook.architectures.gguf_tensors import TensorLayout
    from herdbook.steps.quantize.model_folder import ModelFolder
    from herdbook.weights.imatrix import ImportanceMatrix


class Weights:
    """The weights of columns by an importance matrix.

    Args:
        matrix: The matrix; None if there is none.
    """

    def __init__(self, matrix: ImportanceMatrix | None) -> None:
        self._inputs = matrix.inputs if matrix else {}

    def of(self, part: TensorLayout, source: str) -> NDArray[np.float32] | None:
        """Return the weights for the rows that a tensor of a GGUF takes from ``source``; None if there are none."""
        inputs = self._inputs.get(part.name)
        return inputs.weights(part.sources.index(source)) if inputs else None


def tensors_of(folder: ModelFolder) -> dict[str, TensorLayout]:
    """Return how each tensor of a model's GGUF is made, by its name in the file. Raises as ``made_from``."""
    return made_from(folder.config, folder.tensors, str(folder.path))


def shape_in(folder: ModelFolder, part: TensorLayout) -> tuple[int, ...]:
    """Return the shape of a tensor in the GGUF. Raises as ``shape_of``."""
    shapes = {source: folder.tensors[source][1].shape for source in part.sources}
    return shape_of(part, shapes, str(folder.path))


def rows_of(folder: ModelFolder, part: TensorLayout) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the rows of a GGUF tensor in its order, a piece at a time, of which only norms are shifted: their source, and ``(n, width)`` float32."""
    for source in part.sources:
        shape = folder.tensors[source][1].shape
        if len(shape) == 1:
            vector = folder.rows(source, slice(None))
            ordered = vector[:, row_order(shape[0], part.heads)]
            # not for 0: a negative zero would become a positive one
            yield source, ordered + np.float32(part.shift) if part.shift else ordered
            continue
        order, step = row_order(shape[0], part.heads), block_rows(shape[1])
        for first in range(0, shape[0], step):
            yield source, folder.rows(source, order[first : first + step])
