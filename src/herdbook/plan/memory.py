"""Memory of the steps that belong to a plan as a whole; what belongs to one part or measurement is with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.plan.model import INTERPRETER_BYTES, TORCH_BYTES
from herdbook.recipe import Moe

if TYPE_CHECKING:
    from herdbook.plan.graph import Plan

RECORD_BYTES = 20_000  # what a tensor's entry in records, lineage and claims takes as Python's objects
ELEMENT_BYTES = 12  # an element as it is stored, in float32, and as it will be stored


def conversion_bytes(plan: Plan) -> int:
    """Return the memory of making the full-width GGUF: the largest tensor, stacked for all experts as GGUF has it."""
    released = plan.released
    largest = max(tensor.elements for part in released.parts for tensor in part.tensors if not tensor.slices)
    fused = max((t.elements for part in released.parts for t in part.tensors if t.slices), default=0)
    experts = len(released.recipe.moe.experts) if isinstance(released.recipe, Moe) else 1
    return TORCH_BYTES + ELEMENT_BYTES * max(largest * experts, fused)


def records_bytes(plan: Plan) -> int:
    """Return the memory of what reads all records: card, release and verification. Weights pass in small pieces."""
    return INTERPRETER_BYTES + RECORD_BYTES * sum(len(part.tensors) for part in plan.parts.values())
