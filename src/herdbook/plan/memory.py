"""Memory of the steps that belong to a plan as a whole; what belongs to one part or measurement is with it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from herdbook.architectures.dense import layer_of
from herdbook.architectures.mixtures import expert_of
from herdbook.plan.layerwise import FLOAT32
from herdbook.plan.model import INTERPRETER_BYTES, TORCH_BYTES
from herdbook.recipe import Moe

if TYPE_CHECKING:
    from herdbook.plan.model import Node
    from herdbook.plan.plan import Plan

KEPT_BYTES = (
    1 << 25
)  # glibc's DEFAULT_MMAP_THRESHOLD_MAX on 64-bit machines: of a block above it, nothing is kept
PIECES, PIECE_BYTES = (
    10,
    1 << 25,
)  # as ``herdbook.steps.quantize.encode`` reads a tensor in float32, and copies of that
RECORD_BYTES = 20_000  # what a tensor's entry in records, lineage and claims takes as Python's objects
ELEMENT_BYTES = 12  # an element as it is stored, in float32, and as it will be stored


def stacking_bytes(node: Node) -> int:
    """Return what loading a mixture takes beside its weights: transformers joins a layer's experts, and frees them then.

    A layer's experts lie there as they came. Of these, gates and ups are stacked, each kind by itself, and the two stacks are
    joined, which is two thirds of the layer's experts twice more; what is joined is a weight of the model
    (``MergeModulelist`` and ``Concatenate`` in transformers' ``core_model_loading``). What is smaller than glibc hands back to
    the system stays with the process: then all experts count.
    """
    layers: dict[int | None, int] = {}
    smallest = math.inf
    for name, (_, tensor) in node.tensors.items():
        if expert_of(name) or tensor.slices:
            layers[layer_of(name)] = layers.get(layer_of(name), 0) + FLOAT32 * tensor.elements
            smallest = min(smallest, FLOAT32 * tensor.elements)
    if not layers:
        return 0
    joined = max(layers.values()) * 4 // 3
    return joined if smallest > KEPT_BYTES else max(joined, sum(layers.values()))


def conversion_bytes(plan: Plan) -> int:
    """Return the memory of making the full-width GGUF: the largest tensor, stacked for all experts as GGUF has it."""
    experts = len(plan.released.recipe.moe.experts) if isinstance(plan.released.recipe, Moe) else 1
    largest = max(
        tensor.elements * (1 if tensor.slices or not expert_of(name) else experts)
        for name, (_, tensor) in plan.released.tensors.items()
    )
    return TORCH_BYTES + ELEMENT_BYTES * largest


def quantization_bytes() -> int:
    """Return the memory of quantizing and of deriving again: pieces of a tensor, however large that is."""
    return INTERPRETER_BYTES + PIECES * PIECE_BYTES


def records_bytes(plan: Plan) -> int:
    """Return the memory of what reads all records: card, release and verification. Weights pass in small pieces."""
    return INTERPRETER_BYTES + RECORD_BYTES * sum(len(part.tensors) for part in plan.parts.values())
