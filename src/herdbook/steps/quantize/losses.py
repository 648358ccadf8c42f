"""The loss of each tensor in each type that it may get, measured on some of its rows, and the types that follow from a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize

from herdbook.progress import track
from herdbook.quantization.budget import allocate, candidates
from herdbook.quantization.tensor import is_quantized
from herdbook.steps.quantize.encode import encode
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.steps.quantize.source import Weights, tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Executor
    from pathlib import Path

    from numpy.typing import NDArray

    from herdbook.architectures.gguf_tensors import TensorLayout
    from herdbook.quantization.tensor import Typed
    from herdbook.steps.quantize.model_folder import ModelFolder
    from herdbook.weights.imatrix import ImportanceMatrix

ROWS = 64  # of a tensor that are encoded, evenly spaced; of a mixture, over all experts


def types_within(
    model: Path,
    tensors: Iterable[Typed],
    bits_per_weight: float,
    matrix: ImportanceMatrix | None,
    pool: Executor | None = None,
) -> dict[str, str]:
    """Return the type of each tensor within a budget.

    Args:
        model: The Hugging Face folder.
        tensors: All tensors of the file.
        bits_per_weight: The budget.
        matrix: The importance matrix, if there is one.
        pool: The threads to use.

    Raises:
        CheckpointError: If weights are infinite or not a number.
    """
    folder, weights, tensors = read_folder(model), Weights(matrix), list(tensors)
    parts = tensors_of(folder)
    losses = {}
    with track("types by measured error", len(tensors)) as advance:
        for tensor in tensors:
            if is_quantized(tensor.name, tensor.shape):
                kinds = candidates(tensor.name, tensor.shape[-1], matrix=matrix is not None)
                losses[tensor.name] = _losses(folder, parts[tensor.name], kinds, weights, pool)
            advance()
    return allocate(tensors, losses, bits_per_weight)


def _losses(
    folder: ModelFolder, part: TensorLayout, kinds: tuple[str, ...], weights: Weights, pool: Executor | None
) -> dict[str, float]:
    """Return the share of a tensor's energy that the error has in each type."""
    errors, energy = dict.fromkeys(kinds, 0.0), 0.0
    for source, rows in _rows(folder, part):
        own = weights.of(part, source)
        of_columns = np.ones(rows.shape[1]) if own is None else own.astype(np.float64)
        energy += float((rows.astype(np.float64) ** 2 @ of_columns).sum())
        for kind in kinds:
            number = GGMLQuantizationType[kind]
            data = encode(rows, number, pool, f"{folder.path}: {source}", own)
            differences = dequantize(data, number).astype(np.float64) - rows
            errors[kind] += float((differences**2 @ of_columns).sum())
    return {kind: error / energy if energy else 0.0 for kind, error in errors.items()}


def _rows(folder: ModelFolder, part: TensorLayout) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the rows of a tensor that are measured: their source, and ``(n, width)`` float32."""
    height = folder.tensors[part.sources[0]][1].shape[0]
    total = height * len(part.sources)
    chosen = np.unique(np.linspace(0, total - 1, min(ROWS, total)).astype(np.int64))
    for number in np.unique(chosen // height):
        yield (
            part.sources[number],
            folder.rows(part.sources[number], chosen[chosen // height == number] % height),
        )
