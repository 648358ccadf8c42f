"""Memory of jobs of LASER: reducing the matrices of a part, and searching for those that are worth it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.dense import layer_of
from herdbook.needs.layerwise import FLOAT32, reading
from herdbook.needs.process import TORCH_BYTES
from herdbook.needs.ranks import rank_rules
from herdbook.recipe.rank import Clustered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan import Part, Plan, Search, Tensor

FLOAT64 = 8
# Reducing a matrix needs this many squares of its smaller side in float64; whitening adds the moment and a second basis.
SQUARES, WHITENED_SQUARES = 5, 7
# The pieces in which ``herdbook.steps.laser.decompose`` reads a matrix.
MATRIX_PIECES, MATRIX_PIECE_BYTES = 3, 1 << 26


def matrix_bytes(tensors: Iterable[Tensor], *, whitened: bool, clustered: bool = False) -> int:
    """Return the memory of reducing one matrix at a time, for the one that needs most.

    Squares of the smaller side in float64: the Gram matrix, and for its vectors a copy and LAPACK's workspace of two; or
    the vectors, and the copy that is written to the disk. Whitening adds the moment and a second basis. Pieces of the matrix
    in float64, and the matrix as it was read, as it is computed and as it is written, come on top.

    Args:
        tensors: The matrices.
        whitened: Whether they are whitened.
        clustered: Whether their rows are clustered. The decompositions of all clusters, and the bases of their subspaces,
            have at most as many elements as the matrix.
    """
    bases = 2 * FLOAT64 if clustered else 0
    squares = FLOAT64 * (WHITENED_SQUARES if whitened else SQUARES)
    return max(
        squares * min(tensor.shape) ** 2
        + MATRIX_PIECES * MATRIX_PIECE_BYTES
        + 3 * tensor.size_bytes
        + bases * tensor.elements
        for tensor in tensors
    )


def reduction_memory(plan: Plan, part: Part) -> tuple[int, int]:
    """Return the memory of a part's job that reduces matrices with one thread, and what each further thread adds."""
    computed, text = part.reduced, part.operation.text
    clustered = any(isinstance(rule, Clustered) for rule in rank_rules(plan, part))
    matrix = matrix_bytes(computed, whitened=text is not None, clustered=clustered)
    if text is None:
        return TORCH_BYTES + matrix, matrix
    read = reading(plan.by_key[part.operation.folders[0]], text.windows, text.tokens)
    moments = _moments(computed)
    shared = read.layer + max(map(_size, computed)) + read.streams + moments
    thread = max(matrix, read.window + moments)
    return TORCH_BYTES + shared + thread, thread


def search_memory(plan: Plan, search: Search) -> tuple[int, int]:
    """Return the memory of a search with one thread, and what each further thread adds."""
    parent, chosen = plan.nodes[search.parent], set(search.matrices)
    tensors = [tensor for name, (_, tensor) in parent.tensors.items() if name in chosen]
    whitens = search.needs_text
    clustered = any(isinstance(rule, Clustered) for rule in search.ranks)
    matrix = matrix_bytes(tensors, whitened=whitens, clustered=clustered)
    select, text = search.select, search.text
    ranked = select is not None and select.by != "gradient"
    if text is None:
        return TORCH_BYTES + matrix, matrix
    windows = text.windows * (2 if search.guard else 1)  # a second set confirms the choice
    read = reading(parent, windows, text.tokens)
    shared = read.layer + read.head + max(map(_size, tensors)) + read.streams
    if search.guard:
        shared += sum(map(_size, tensors))  # accepted reductions stay in memory
    thread = read.window
    if select is not None and not ranked:
        layers: dict[int | None, int] = {}
        for tensor in tensors:
            layers[layer_of(tensor.name)] = layers.get(layer_of(tensor.name), 0) + tensor.elements
        widest = max(layers.values())
        shared += 2 * FLOAT64 * widest  # gradients, before and after one is added
        thread += FLOAT32 * widest + read.window  # and what the backward pass keeps
    if whitens:
        moments = _moments(tensors)
        shared += moments
        thread += moments
    if ranked or whitens or search.spreads:
        thread = max(thread, matrix)
    return TORCH_BYTES + shared + matrix + thread, thread


def _moments(tensors: Iterable[Tensor]) -> int:
    """Return the memory of the second moments of a layer's matrices, and of the largest matrix in float64."""
    layers: dict[int | None, int] = {}
    largest = 0
    for tensor in tensors:
        number = layer_of(tensor.name)
        layers[number] = layers.get(number, 0) + FLOAT64 * min(tensor.shape) ** 2
        largest = max(largest, tensor.elements)
    return max(layers.values()) + FLOAT64 * largest


def _size(tensor: Tensor) -> int:
    return tensor.size_bytes
