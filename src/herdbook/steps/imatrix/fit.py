"""Whether an importance matrix is that of a model, and experts that too few tokens reached."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from herdbook.errors import CheckpointError, StepError
from herdbook.humanize import plural
from herdbook.weights.imatrix import ImportanceMatrix, Inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.architectures.gguf_tensors import TensorLayout
    from herdbook.steps.imatrix.measure import Sums

SHOWN = 5


def named(sums: Sums, layouts: Mapping[str, TensorLayout], widths: Mapping[str, int]) -> dict[str, Inputs]:
    """Return the inputs of a model's matrices by their names in a GGUF, with those of its experts side by side.

    Args:
        sums: The inputs, by the names of tensors in the safetensors.
        layouts: What each tensor of the GGUF is made from.
        widths: The width of each tensor of the GGUF that the matrix is about.
    """
    inputs = {}
    for name, width in widths.items():
        sources = layouts[name].sources
        rows = [sums.squares.get(source, np.zeros(width)) for source in sources]
        counts = [sums.counts.get(source, 0) for source in sources]
        inputs[name] = Inputs(np.stack(rows).astype(np.float32), np.asarray(counts, np.float32))
    return inputs


def fitted(matrix: ImportanceMatrix, shapes: Mapping[str, tuple[int, ...]], where: str) -> ImportanceMatrix:
    """Return a matrix from elsewhere, reduced to the tensors that it is used for.

    Args:
        matrix: The matrix.
        shapes: The shape of each tensor of the model's GGUF that the matrix is used for.
        where: Its name in errors.

    Raises:
        CheckpointError: If it is that of another model.
    """
    problems = []
    inputs = {}
    for name, shape in shapes.items():
        experts, width = (shape[0] if len(shape) > 2 else 1), shape[-1]
        found = matrix.inputs.get(name)
        if found is None:
            problems.append(f"it lacks {name}")
            continue
        if not matrix.counted and found.sums.size == experts * width:
            found = Inputs(found.sums.reshape(experts, width), np.repeat(found.counts, experts))
        if found.sums.shape != (experts, width):
            theirs = "{} x {}".format(*found.sums.shape)
            problems.append(
                f"{name} has {theirs} columns there (experts x width), and {experts} x {width} here"
            )
        inputs[name] = found
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CheckpointError(
            f"{where}: is the importance matrix of another model: {'; '.join(problems[:SHOWN])}{more}"
        )
    return replace(matrix, inputs=inputs)


def filled(
    matrix: ImportanceMatrix, floor: int, *, fill: bool
) -> tuple[ImportanceMatrix, dict[str, list[int]]]:
    """Check that enough tokens reached each expert.

    Args:
        matrix: The matrix.
        floor: The fewest tokens.
        fill: Whether an expert below it gets the mean of all experts of its layer, each token counting the same.

    Returns:
        The matrix, and the experts that were filled, from 1, by tensor.

    Raises:
        StepError: If too few tokens reached an expert and it is not filled, or none reached any expert of a layer.
    """
    inputs, replaced, problems = {}, {}, []
    for name, one in matrix.inputs.items():
        low = [int(each) for each in np.flatnonzero(one.counts < floor)]
        inputs[name] = one
        if not low:
            continue
        count = float(one.counts.sum())
        if not fill or not count:
            problems += [f"{name}, expert {each + 1}: {int(one.counts[each])}" for each in low]
            continue
        sums, counts = one.sums.copy(), one.counts.copy()
        mean = (one.sums.astype(np.float64).sum(axis=0) / count * floor).astype(np.float32)
        sums[low], counts[low] = mean, floor
        inputs[name], replaced[name] = Inputs(sums, counts), [each + 1 for each in low]
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise StepError(
            f"imatrix: fewer than {plural(floor, 'token')} reached {'; '.join(problems[:SHOWN])}{more}. Give more or other text, or set "
            "`quantize.imatrix.below: mean` to let these experts take the mean of their layer."
        )
    return replace(matrix, inputs=inputs), replaced
