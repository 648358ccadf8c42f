"""What jobs take of a GPU's memory, and how many GPUs they ask for: from the tensors that lie there at once.

No result and no key depends on it. Nothing here was measured on a GPU: sizes are those of the tensors that the steps put
there (``herdbook.steps.laser.decompose``, ``herdbook.inference.forward``, ``herdbook.inference.mixture``), the libraries' own need a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.dense import layer_of
from herdbook.errors import RecipeError
from herdbook.plan.laser import FLOAT64, PIECE_BYTES, PIECES
from herdbook.plan.layerwise import FLOAT32, reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan.model import Part, Search, Tensor
    from herdbook.plan.plan import Evaluation, Plan
    from herdbook.plan.routing import Report

LIBRARIES_BYTES = 1_500_000_000  # a process's context, and what cuBLAS and cuSOLVER keep for themselves
SQUARES = 5  # the Gram matrix, its vectors, the solver's workspace of two, and one that is on its way from or to there
USABLE = 0.9  # of a GPU: memory is dealt in blocks that do not join


def part_bytes(plan: Plan, part: Part, threads: int) -> int:
    """Return what a LASER part takes of a GPU's memory.

    Args:
        plan: The plan.
        part: The part.
        threads: How many matrices are reduced at once.
    """
    return _shared(plan, part) + threads * _matrix(_reduced(part))


def matrices_at_once(plan: Plan, part: Part, threads: int, gpu_bytes: int | None) -> int:
    """Return how many matrices of a part are reduced at once: as many as there are threads, or as a GPU holds; one at least.

    Args:
        plan: The plan.
        part: The part.
        threads: How many there shall be.
        gpu_bytes: The GPU's memory; None if nobody says.
    """
    reduced = _reduced(part)
    if gpu_bytes is None or not reduced:
        return threads
    room = USABLE * gpu_bytes - _shared(plan, part)
    return max(1, min(threads, int(room // _matrix(reduced))))


def search_bytes(plan: Plan, search: Search) -> int:
    """Return what a search takes of a GPU's memory; one window passes, and one matrix is decomposed, at a time."""
    parent = plan.nodes[search.parent]
    tensors = [made for name, (_, made) in parent.tensors.items() if name in search.parameters["matrices"]]
    need = LIBRARIES_BYTES + _matrix(tensors)
    if text := search.parameters["calibration"]:
        read = reading(parent, text["windows"], text["tokens"])
        # Back through a layer lie its gradients, and what the way there has kept.
        need += 3 * read.layer + read.head + read.streams + 2 * read.window
    return need


def report_bytes(report: Report) -> int:
    """Return what the report on routers takes of a GPU's memory: what it takes of any."""
    return LIBRARIES_BYTES + report.data_bytes


def evaluation_bytes(item: Evaluation, gpus: int) -> int:
    """Return what a measurement takes of each of some GPUs' memory if all of the model lies on them."""
    return LIBRARIES_BYTES + FLOAT32 * item.node.parameters // gpus + item.pass_bytes


def least_evaluation_bytes(item: Evaluation) -> int:
    """Return what it takes at least: the layers that do not fit come one after another."""
    layers: dict[int | None, int] = {}
    for name, (_, tensor) in item.node.tensors.items():
        layers[layer_of(name)] = layers.get(layer_of(name), 0) + tensor.elements
    return LIBRARIES_BYTES + 2 * FLOAT32 * max(layers.values()) + item.pass_bytes


def evaluation_gpus(item: Evaluation, gpu_bytes: int | None) -> int:
    """Return how many GPUs hold a model in float32; one if nobody says how large they are."""
    if gpu_bytes is None:
        return 1
    each = USABLE * gpu_bytes - LIBRARIES_BYTES - item.pass_bytes
    return max(1, -int(-FLOAT32 * item.node.parameters // max(each, 1)))


def check(plan: Plan, gpu_bytes: int | None) -> None:
    """Check that every job that uses a GPU can run on one of a size; nothing if nobody says how large it is.

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
        if _reduced(part):
            yield f"laser {part.id}", part_bytes(plan, part, 1)
    for search in plan.searches.values():
        yield f"search {search.id}", search_bytes(plan, search)
    if plan.report:
        yield f"routing {plan.report.id}", report_bytes(plan.report)
    for item in plan.evaluations:
        yield f"evaluate {item.id}", least_evaluation_bytes(item)


def _reduced(part: Part) -> list[Tensor]:
    return [tensor for tensor in part.tensors if tensor.action == "laser"]


def _matrix(tensors: list[Tensor]) -> int:
    """Return what reducing one of some matrices takes: it lies there as it is, and is widened in pieces."""
    return max(
        SQUARES * FLOAT64 * min(one.shape) ** 2 + PIECES * PIECE_BYTES + one.size_bytes for one in tensors
    )


def _shared(plan: Plan, part: Part) -> int:
    """Return what lies there whatever is reduced: for whitening, a layer and the text's hidden states."""
    text = part.parameters.get("calibration")
    if not text:
        return LIBRARIES_BYTES
    read = reading(plan.by_key[part.parameters["model"]], text["windows"], text["tokens"])
    widened = FLOAT64 * max(tensor.elements for tensor in _reduced(part))
    return LIBRARIES_BYTES + read.layer + read.streams + read.window + widened
