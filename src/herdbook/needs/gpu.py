"""What jobs take of a GPU's memory, and how many GPUs they ask for: from the tensors that lie there at once.

No result and no key depends on it. Nothing here was measured on a GPU: sizes are those of the tensors that the steps put
there (``herdbook.steps.laser.decompose``, ``herdbook.inference.forward``, ``herdbook.inference.mixture``), the libraries' own need a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.dense import layer_of
from herdbook.errors import RecipeError
from herdbook.needs.layerwise import FLOAT32, reading
from herdbook.needs.memory import FLOAT64, MATRIX_PIECE_BYTES, MATRIX_PIECES, pass_bytes, report_data_bytes
from herdbook.plan import Evaluation, Part, Report, Search

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from herdbook.plan import Plan, Tensor
    from herdbook.plan.jobs import Subject

# A process's context, and what cuBLAS and cuSOLVER keep for themselves.
LIBRARIES_BYTES = 1_500_000_000
# The Gram matrix, its vectors, the solver's workspace of two, and one that is on its way from or to the GPU.
SQUARES = 5
# Share of a GPU's memory that a job can use: it is given out in blocks that do not join.
USABLE = 0.9


def gpus(plan: Plan, subject: Subject | None, gpu_bytes: int | None) -> int:
    """Return how many GPUs a job uses, if it is to use any; 0 for a job that computes on the CPU alone.

    Args:
        plan: The plan.
        subject: What of the plan the job makes.
        gpu_bytes: The memory of one GPU; None if unknown.
    """
    match subject:
        case Part():
            return 1 if subject.reduced else 0
        case Search() | Report():
            return 1
        case Evaluation():
            # As many as hold the model in float32.
            if gpu_bytes is None:
                return 1
            each = USABLE * gpu_bytes - LIBRARIES_BYTES - pass_bytes(plan, subject)
            return max(1, -int(-FLOAT32 * subject.node.parameters // max(each, 1)))
    return 0


def gpu_bytes(plan: Plan, subject: Subject | None, threads: int, gpu_bytes: int | None) -> int:
    """Return what a job takes of the memory of each of its GPUs; 0 for a job that uses none.

    Args:
        plan: The plan.
        subject: What of the plan the job makes.
        threads: How many matrices are reduced at once at most.
        gpu_bytes: The memory of one GPU; None if unknown.
    """
    match subject:
        case Part() if subject.reduced:
            return part_bytes(plan, subject, matrices_at_once(plan, subject, threads, gpu_bytes))
        case Search():
            return _search(plan, subject)
        case Report():
            return LIBRARIES_BYTES + report_data_bytes(plan, subject)
        case Evaluation():
            return evaluation_bytes(plan, subject, gpus(plan, subject, gpu_bytes))
    return 0


def part_bytes(plan: Plan, part: Part, threads: int) -> int:
    """Return what a LASER part takes of a GPU's memory.

    Args:
        plan: The plan.
        part: The part.
        threads: How many matrices are reduced at once.
    """
    return _shared(plan, part) + threads * _matrix(part.reduced)


def matrices_at_once(plan: Plan, part: Part, threads: int, gpu_bytes: int | None) -> int:
    """Return how many matrices of a part are reduced at once: as many as there are threads, or as a GPU holds; one at least.

    Args:
        plan: The plan.
        part: The part.
        threads: How many there shall be.
        gpu_bytes: The GPU's memory; None if unknown.
    """
    reduced = part.reduced
    if gpu_bytes is None or not reduced:
        return threads
    room = USABLE * gpu_bytes - _shared(plan, part)
    return max(1, min(threads, int(room // _matrix(reduced))))


def _search(plan: Plan, search: Search) -> int:
    """Return what a search takes of a GPU's memory; one window passes, and one matrix is decomposed, at a time."""
    parent = plan.nodes[search.parent]
    tensors = [made for name, (_, made) in parent.tensors.items() if name in search.matrices]
    need = LIBRARIES_BYTES + _matrix(tensors)
    if text := search.text:
        read = reading(parent, text.windows, text.tokens)
        # Back through a layer lie its gradients, and what the way there has kept.
        need += 3 * read.layer + read.head + read.streams + 2 * read.window
    return need


def evaluation_bytes(plan: Plan, item: Evaluation, count: int) -> int:
    """Return what a measurement takes of each of some GPUs' memory if all of the model lies on them."""
    return LIBRARIES_BYTES + FLOAT32 * item.node.parameters // count + pass_bytes(plan, item)


def _least_evaluation(plan: Plan, item: Evaluation) -> int:
    """Return what it takes at least: the layers that do not fit come one after another."""
    layers: dict[int | None, int] = {}
    for name, (_, tensor) in item.node.tensors.items():
        layers[layer_of(name)] = layers.get(layer_of(name), 0) + tensor.elements
    return LIBRARIES_BYTES + 2 * FLOAT32 * max(layers.values()) + pass_bytes(plan, item)


def check_gpu(plan: Plan, gpu_bytes: int | None) -> None:
    """Check that every job that uses a GPU can run on one of a size; nothing if its size is unknown.

    Raises:
        RecipeError: If one cannot; the message names the largest.
    """
    if gpu_bytes is None:
        return
    name, need = max(_least(plan), key=lambda pair: pair[1], default=("", 0))
    if need > USABLE * gpu_bytes:
        raise RecipeError(
            f"gpu_memory: {name} takes {need / 1e9:.1f} GB of a GPU at least, and of one with {gpu_bytes / 1e9:.0f} GB "
            f"{USABLE * gpu_bytes / 1e9:.1f} are of use. Take a larger GPU, or build with `device: cpu`.",
            str(plan.recipe_path),
        )


def _least(plan: Plan) -> Iterator[tuple[str, int]]:
    """Yield each job that would use a GPU, and the least that it takes there."""
    for part in plan.parts.values():
        if part.reduced:
            yield f"laser {part.id}", part_bytes(plan, part, 1)
    for search in plan.searches.values():
        yield f"search {search.id}", _search(plan, search)
    if plan.report:
        yield f"routing {plan.report.id}", gpu_bytes(plan, plan.report, 1, None)
    for item in plan.evaluations:
        yield f"evaluate {item.id}", _least_evaluation(plan, item)


def _matrix(tensors: Sequence[Tensor]) -> int:
    """Return what reducing one of some matrices takes: it lies there as it is, and is widened in pieces."""
    return max(
        SQUARES * FLOAT64 * min(one.shape) ** 2 + MATRIX_PIECES * MATRIX_PIECE_BYTES + one.size_bytes
        for one in tensors
    )


def _shared(plan: Plan, part: Part) -> int:
    """Return what lies there whatever is reduced: for whitening, a layer and the text's hidden states."""
    text = part.operation.text
    if not text:
        return LIBRARIES_BYTES
    read = reading(plan.by_key[part.operation.folders[0]], text.windows, text.tokens)
    widened = FLOAT64 * max(tensor.elements for tensor in part.reduced)
    return LIBRARIES_BYTES + read.layer + read.streams + read.window + widened
