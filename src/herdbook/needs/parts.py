"""Memory of the job that makes a part of a model, by its operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.dense import layer_of
from herdbook.needs.layerwise import FLOAT32
from herdbook.needs.process import INTERPRETER_BYTES, TORCH_BYTES
from herdbook.needs.reducing import reduction_memory
from herdbook.plan.operation import (
    CompressTensors,
    DrawRouters,
    FetchFile,
    FetchGguf,
    FetchRanges,
    FoldAdapter,
    LineUp,
    MakeRouters,
    MergeTensors,
    PerturbExperts,
    Reduce,
    ReduceAsSearched,
    TakeOver,
)
from herdbook.quantization.schemes import SCHEMES

if TYPE_CHECKING:
    from herdbook.plan import Node, Part, Plan, Tensor

# An element as it is stored in at most 32 bits, its absolute value and quotients, and these as integers, with a copy of each.
ENCODED_BYTES = 40
# What ``herdbook.steps.compress.mlx`` encodes at once, beside a matrix as it is stored; numbers that lie in two words are packed as
# integers of 64 bits.
MLX_PIECE_BYTES = 80 << 20


def part_memory(plan: Plan, part: Part) -> tuple[int, int]:
    """Return the memory of a part's job with one thread, and what each further thread adds."""
    match part.operation:
        case Reduce() | ReduceAsSearched():
            return reduction_memory(plan, part)
        case FetchFile() | FetchRanges() | DrawRouters():
            return INTERPRETER_BYTES, 0
        case FetchGguf():
            # One tensor at a time: as it is stored, twice in float32, and three times in its dtype.
            return TORCH_BYTES + 9 * max(tensor.size_bytes for tensor in part.tensors), 0
        case CompressTensors(scheme=scheme):
            matrices = encoded(plan, part)
            if not matrices:
                return INTERPRETER_BYTES, 0
            if SCHEMES[scheme].library == "mlx":
                return TORCH_BYTES + MLX_PIECE_BYTES + max(matrix.size_bytes for matrix in matrices), 0
            return TORCH_BYTES + ENCODED_BYTES * max(matrix.elements for matrix in matrices), 0
        case FoldAdapter():
            # A matrix in float64, the LoRA product, and their sum.
            return TORCH_BYTES + 32 * max(tensor.elements for tensor in part.computed), 0
        case MergeTensors(settings=settings):
            largest = max(tensor.elements for tensor in part.computed)
            # mergekit sorts by an index of eight bytes, and has masks and products of all task vectors at once
            tensors = (4, 8) if "semantics" in settings else (2, 4)
            inputs = max(len({*tensor.origins}) for tensor in part.computed)
            return TORCH_BYTES + FLOAT32 * largest * (tensors[0] * inputs + tensors[1]), 0
        case MakeRouters() as make:
            return TORCH_BYTES + _routers(plan.by_key[make.base]), 0
        case LineUp():
            largest = max(tensor.elements for tensor in part.tensors)
            inputs = max(len({*tensor.origins}) for tensor in part.tensors)
            return TORCH_BYTES + FLOAT32 * largest * (inputs + 3), 0
        case TakeOver() | PerturbExperts():
            if not any(tensor.action in {"alter", "cast"} for tensor in part.tensors):
                return INTERPRETER_BYTES, 0
            largest = max(tensor.elements // max(1, len(tensor.slices)) for tensor in part.tensors)
            return TORCH_BYTES + 16 * largest, 0


def encoded(plan: Plan, part: Part) -> list[Tensor]:
    """Return the matrices that a part's encoded tensors are made from, for each of these anew."""
    (parent,) = plan.nodes[part.model].parents
    tensors = plan.nodes[parent].tensors
    made = (tensor for tensor in part.tensors if tensor.action == "compress")
    return [tensors[origin.tensor][1] for tensor in made for origin in tensor.origins]


def _routers(base: Node) -> int:
    """Return the memory of reading prompts: a layer and the embeddings in float32, each twice."""
    layer = sum(tensor.elements for name, (_, tensor) in base.tensors.items() if layer_of(name) == 0)
    table: int = base.config["vocab_size"] * base.config["hidden_size"]
    return 2 * FLOAT32 * (layer + table)
