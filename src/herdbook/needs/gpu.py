"""How much GPU memory jobs need, and how many GPUs they request: from the tensors that are on the GPU at the same time.

No result and no key depends on it. Nothing here was measured on a GPU: sizes are those of the tensors that the steps move
to it (``herdbook.steps.laser.decompose``, ``herdbook.inference.forward``, ``herdbook.inference.mixture``); what the
libraries themselves allocate is a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import humanize
from herdbook.architectures.dense import layer_of
from herdbook.errors import RecipeError
from herdbook.needs.layerwise import reading
from herdbook.needs.measuring import pass_bytes, report_data_bytes, weight_bytes
from herdbook.needs.reducing import FLOAT64, MATRIX_PIECE_BYTES, MATRIX_PIECES
from herdbook.plan import Evaluation, Part, RoutingReport, Search

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from herdbook.plan import Plan, Tensor
    from herdbook.plan.job import Subject

# A process's context, and the workspaces of cuBLAS and cuSOLVER.
LIBRARIES_BYTES = 1_500_000_000
# The Gram matrix, its vectors, the solver's workspace of two, and one in transfer from or to the GPU.
SQUARES = 5
# Share of a GPU's memory that a job can use; the allocator's blocks leave gaps.
USABLE = 0.9


def gpus(plan: Plan, subject: Subject | None, gpu_bytes: int | None) -> int:
    """Return how many GPUs a job uses where GPUs are used at all; 0 for a job that computes on the CPU alone.

    Args:
        plan: The plan.
        subject: The item of the plan that the job makes.
        gpu_bytes: The memory of one GPU; None if unknown.
    """
    match subject:
        case Part():
            return 1 if subject.reduced else 0
        case Search() | RoutingReport():
            return 1
        case Evaluation() if not subject.runtime:
            # Enough to hold the model in the type in which it is measured.
            if gpu_bytes is None:
                return 1
            room = USABLE * gpu_bytes - LIBRARIES_BYTES - pass_bytes(plan, subject)
            return max(1, -int(-weight_bytes(subject) * subject.node.parameters // max(room, 1)))
    return 0


def gpu_bytes(plan: Plan, subject: Subject | None, threads: int, gpu_bytes: int | None) -> int:
    """Return the memory that a job needs on each of its GPUs, in bytes; 0 for a job that uses none.

    Args:
        plan: The plan.
        subject: The item of the plan that the job makes.
        threads: The most matrices that are reduced at the same time.
        gpu_bytes: The memory of one GPU; None if unknown.
    """
    match subject:
        case Part() if subject.reduced:
            return part_bytes(plan, subject, matrices_at_once(plan, subject, threads, gpu_bytes))
        case Search():
            return _search(plan, subject)
        case RoutingReport():
            return LIBRARIES_BYTES + report_data_bytes(plan, subject)
        case Evaluation() if not subject.runtime:
            return evaluation_bytes(plan, subject, gpus(plan, subject, gpu_bytes))
    return 0


def part_bytes(plan: Plan, part: Part, threads: int) -> int:
    """Return the GPU memory that a LASER part needs, in bytes.

    Args:
        plan: The plan.
        part: The part.
        threads: How many matrices are reduced at the same time.
    """
    return _shared(plan, part) + threads * _matrix(part.reduced)


def matrices_at_once(plan: Plan, part: Part, threads: int, gpu_bytes: int | None) -> int:
    """Return how many matrices of a part are reduced at the same time: one per thread, limited by the GPU's memory.

    Args:
        plan: The plan.
        part: The part.
        threads: How many threads the job has.
        gpu_bytes: The GPU's memory; None if unknown.

    Returns:
        At least 1.
    """
    reduced = part.reduced
    if gpu_bytes is None or not reduced:
        return threads
    room = USABLE * gpu_bytes - _shared(plan, part)
    return max(1, min(threads, int(room // _matrix(reduced))))


def _search(plan: Plan, search: Search) -> int:
    """Return the GPU memory that a search needs: it reads one window, and decomposes one matrix, at a time."""
    parent = plan.nodes[search.parent]
    tensors = [tensor for name, (_, tensor) in parent.tensors.items() if name in search.matrices]
    need = LIBRARIES_BYTES + _matrix(tensors)
    if text := search.text:
        read = reading(parent, text.windows, text.tokens)
        # The backward pass of a layer needs its gradients, and the activations that the forward pass kept.
        need += 3 * read.layer + read.head + read.streams + 2 * read.window
    return need


def evaluation_bytes(plan: Plan, item: Evaluation, count: int) -> int:
    """Return the memory that a measurement needs on each of ``count`` GPUs that hold the whole model, in bytes."""
    return LIBRARIES_BYTES + weight_bytes(item) * item.node.parameters // count + pass_bytes(plan, item)


def _least_evaluation(plan: Plan, item: Evaluation) -> int:
    """Return the least GPU memory that a measurement runs with, where layers that do not fit are loaded in turn."""
    layers: dict[int | None, int] = {}
    for name, (_, tensor) in item.node.tensors.items():
        layers[layer_of(name)] = layers.get(layer_of(name), 0) + tensor.elements
    return LIBRARIES_BYTES + 2 * weight_bytes(item) * max(layers.values()) + pass_bytes(plan, item)


def check_gpu(plan: Plan, gpu_bytes: int | None) -> None:
    """Check that every job that uses a GPU can run on one with ``gpu_bytes`` of memory; nothing is checked if that is None.

    Raises:
        RecipeError: If a job cannot; the message names the largest.
    """
    if gpu_bytes is None:
        return
    name, need = max(_least(plan), key=lambda pair: pair[1], default=("", 0))
    if need > USABLE * gpu_bytes:
        raise RecipeError(
            f"gpu_memory: {name} needs at least {humanize.size(need)} of GPU memory; a GPU with {humanize.size(gpu_bytes)} "
            f"offers {humanize.size(int(USABLE * gpu_bytes))}. Use a larger GPU, or build with `device: cpu`.",
            str(plan.recipe_path),
        )


def _least(plan: Plan) -> Iterator[tuple[str, int]]:
    """Yield each job that would use a GPU, with the least GPU memory that it runs with, in bytes."""
    for part in plan.parts.values():
        if part.reduced:
            yield f"laser {part.id}", part_bytes(plan, part, 1)
    for search in plan.searches.values():
        yield f"search {search.id}", _search(plan, search)
    if plan.report:
        yield f"routing {plan.report.id}", gpu_bytes(plan, plan.report, 1, None)
    for item in (item for item in plan.evaluations if not item.runtime):
        yield f"evaluate {item.id}", _least_evaluation(plan, item)


def _matrix(tensors: Sequence[Tensor]) -> int:
    """Return what reducing any one of the matrices needs: the stored matrix, pieces of it in float64, and squares."""
    return max(
        SQUARES * FLOAT64 * min(tensor.shape) ** 2 + MATRIX_PIECES * MATRIX_PIECE_BYTES + tensor.size_bytes
        for tensor in tensors
    )


def _shared(plan: Plan, part: Part) -> int:
    """Return the GPU memory that all reductions of a part share: for whitening, a layer and the text's hidden states."""
    text = part.operation.text
    if not text:
        return LIBRARIES_BYTES
    read = reading(plan.by_key[part.operation.folders[0]], text.windows, text.tokens)
    widened = FLOAT64 * max(tensor.elements for tensor in part.reduced)
    return LIBRARIES_BYTES + read.layer + read.streams + read.window + widened
