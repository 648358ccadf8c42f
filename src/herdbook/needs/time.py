"""How long jobs take: what they move and what they compute, at the rates of a machine.

Time limits of clusters are for a slow machine. A limit that is too short loses the job's work, one that is too long lets
it wait in the queue; so these rates are those of the slowest machine that anybody would use for this, and a job that hits
its limit all the same is given more. No result and no key depends on any of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.architectures.dense import layer_of
from herdbook.architectures.mixtures import expert_of
from herdbook.needs.disk import fetch_bytes
from herdbook.plan import Conversion, Evaluation, Node, Part, Quantized, Report, Search
from herdbook.plan.operation import MakeRouters
from herdbook.recipe import Moe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan import Plan, Tensor
    from herdbook.plan.jobs import Subject
    from herdbook.plan.operation import CalibrationText

ELEMENTWISE = 100  # operations an element, of what is more than moving: sorting, drawing noise, rounding
# Times as fast as the others is Q8_0, whose scale is the largest number of a block; 17 times, by measure.
UNSEARCHED = 10
PROMPT_BYTES = 64  # what a chat template puts around a prompt


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second.

    Args:
        start: Seconds until Python and its packages are loaded.
        disk: Bytes a second that are read, digested or written.
        network: Bytes a second.
        float64: Operations a second of one core, in decompositions.
        float32: The same of running text through a model.
        quantized: Elements a second of one core, in the type that takes longest: scales are searched for, and every tensor
            is derived a second time.
        token_bytes: Bytes of text that a token stands for.
    """

    start: float
    disk: float
    network: float
    float64: float
    float32: float
    quantized: float
    token_bytes: float = 1.0


# Packages come from a file system that many share, and every byte of a text is a token.
SLOW = Rates(start=300, disk=50e6, network=5e6, float64=8e9, float32=16e9, quantized=1.5e6)


def decomposition_operations(shape: tuple[int, ...]) -> float:
    """Return the operations of reducing a matrix, by the table in ``herdbook.steps.laser.decompose``, at the costliest rank."""
    small, large = sorted(shape)
    return large * small**2 + 14 / 3 * small**3 + 2 * large * small**2


def seconds(plan: Plan, subject: Subject | None, threads: int = 1, rates: Rates = SLOW) -> float:
    """Return the time of a job.

    Args:
        plan: The plan.
        subject: What of the plan the job makes; None if it makes the release or reads it as a whole.
        threads: How much of it runs at the same time, as matrices that are reduced.
        rates: What the machine does in a second.
    """
    match subject:
        case Part():
            return _part(plan, subject, threads, rates)
        case Search():
            return _search(plan, subject, threads, rates)
        case Evaluation():
            return _evaluation(plan, subject, threads, rates)
        case Report():
            return _report(plan, subject, threads, rates)
        case Conversion():
            return rates.start + 2 * plan.released.size_bytes / rates.disk  # all is read and written
        case Quantized():
            # Quantized, and then every tensor derived again from the released weights.
            moved = 2 * plan.released.size_bytes + 2 * subject.size_bytes
            rate = rates.quantized * (UNSEARCHED if subject.method == "Q8_0" else 1)
            return rates.start + moved / rates.disk + plan.released.parameters / rate / threads
        case Node():
            return rates.start  # links, and small files
        case None:
            # All files of the release are copied or read once.
            quantized = sum(item.size_bytes for item in plan.quantized)
            return rates.start + (plan.released.size_bytes + quantized) / rates.disk


def _part(plan: Plan, part: Part, threads: int, rates: Rates) -> float:
    fetched = fetch_bytes(plan, part)
    moved = part.size_bytes + sum(_read_bytes(tensor) for tensor in part.tensors)
    folders = [plan.by_key[key] for key in part.operation.folders]
    moved += fetched + sum(node.size_bytes for node in folders)
    prompts = part.operation.prompts if isinstance(part.operation, MakeRouters) else ()
    tokens = _prompt_tokens(prompts, rates) + _text_tokens(part.operation.text)
    forward = sum(_forward_operations(node, tokens) for node in folders)
    # Whitening decomposes twice more.
    reduced = sum(decomposition_operations(one.shape) for one in part.reduced) * (
        3 if part.operation.text else 1
    )
    return (
        rates.start
        + fetched / rates.network
        + moved / rates.disk
        + (forward / rates.float32 + reduced / rates.float64) / threads
        + sum(_element_operations(plan, part, tensor) for tensor in part.tensors) / rates.float32
    )


def _search(plan: Plan, search: Search, threads: int, rates: Rates) -> float:
    """Return the time of a search in which every rule of every matrix is tried."""
    parent = plan.nodes[search.parent]
    candidates = search.matrices
    reduced = 3 * sum(decomposition_operations(parent.form[name]) for name in candidates)
    passes = [0, 0, 0]  # through all layers: at the start, and twice at the end
    if search.select and search.select.by == "gradient":
        passes += [0, 0]  # back is twice as much as there
    if search.guard:
        passes += [layer_of(name) or 0 for name in candidates for _ in search.ranks]
    tokens = _text_tokens(search.text)
    layers: int = parent.config["num_hidden_layers"]
    run = sum(1 - first / layers for first in passes)
    return (
        rates.start
        + run * parent.size_bytes / rates.disk
        + (run * _forward_operations(parent, tokens) / rates.float32 + reduced / rates.float64) / threads
    )


def _evaluation(plan: Plan, item: Evaluation, threads: int, rates: Rates) -> float:
    """Return the time of a measurement of all the tasks' data."""
    tokens = (
        sum(file.size_bytes for task in plan.lock.tasks.values() for file in task.data) / rates.token_bytes
    )
    node = item.node
    unpacked = ELEMENTWISE * node.parameters / rates.float32 if item.quantized else 0
    return (
        rates.start
        + node.size_bytes / rates.disk
        + unpacked
        + _forward_operations(node, tokens) / rates.float32 / threads
    )


def _report(plan: Plan, report: Report, threads: int, rates: Rates) -> float:
    assert isinstance(report.node.recipe, Moe)  # noqa: S101 - nothing else has routers
    experts = report.node.recipe.moe.experts
    tokens = _prompt_tokens([(one.prompts, one.negative_prompts) for one in experts], rates)
    tokens += sum(
        plan.recipe.calibration[n].windows * plan.recipe.calibration[n].tokens for n in report.texts
    )
    forward = _forward_operations(report.node, tokens) / rates.float32 / threads
    return rates.start + report.node.size_bytes / rates.disk + forward


def _read_bytes(tensor: Tensor) -> int:
    """Return what is read for a tensor, its origins being as wide as it is."""
    return tensor.size_bytes * (1 if tensor.slices else len(tensor.origins))


def _element_operations(plan: Plan, part: Part, tensor: Tensor) -> float:
    if tensor.action in {"copy", "laser"}:
        return 0.0
    if tensor.action == "adapter":
        rank = max(min(one.shape) for one in plan.lock.adapters[part.model].tensors)
        return 2.0 * rank * tensor.elements
    return float(ELEMENTWISE * tensor.elements * max(1, len(tensor.origins)))


def _forward_operations(node: Node, tokens: float) -> float:
    """Return the operations of running text through a model: two for each weight that a token meets."""
    share = 1.0
    if isinstance(node.recipe, Moe):
        share = node.recipe.moe.experts_per_token / len(node.recipe.moe.experts)
    met = 0.0
    for part in node.parts:
        for tensor in part.tensors:
            met += tensor.elements * (share if tensor.slices or expert_of(tensor.name) else 1)
    return 2 * met * tokens


def _prompt_tokens(prompts: Iterable[Iterable[Iterable[str]]], rates: Rates) -> float:
    """Return how many tokens prompts have: of each expert, the texts that it should get, and those that it should not."""
    texts = (text for sides in prompts for side in sides for text in side)
    return sum(len(text.encode()) + PROMPT_BYTES for text in texts) / rates.token_bytes


def _text_tokens(text: CalibrationText | None) -> int:
    return text.windows * text.tokens if text else 0
