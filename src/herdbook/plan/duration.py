"""How long jobs take: what they move and what they compute, at the rates of a machine.

Time limits of clusters are for a slow machine. A limit that is too short loses the job's work, one that is too long lets
it wait in the queue; so these rates are those of the slowest machine that anybody would use for this, and a job that hits
its limit all the same is given more. No result and no key depends on any of this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import layer_of
from herdbook.architectures.mixtures import expert_of
from herdbook.recipe import Moe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan.model import Node, Part, Search, Tensor
    from herdbook.plan.plan import Evaluation, Plan, Quantized
    from herdbook.plan.routing import Report

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


def part_seconds(plan: Plan, part: Part, threads: int = 1, rates: Rates = SLOW) -> float:
    """Return the time of making a part.

    Args:
        plan: The plan.
        part: The part.
        threads: How many matrices are reduced at once.
        rates: What the machine does in a second; this and all other times are for a slow one if nothing is said.
    """
    moved = part.size_bytes + sum(_read_bytes(tensor) for tensor in part.tensors)
    folders = [plan.by_key[key] for key in part.folders]
    moved += part.fetch_bytes + sum(node.size_bytes for node in folders)
    tokens = _prompt_tokens(part.parameters, rates) + _text_tokens(part.parameters.get("calibration"))
    forward = sum(_forward_operations(node, tokens) for node in folders)
    reduced = sum(map(_laser_operations, part.tensors)) * (
        3 if folders else 1
    )  # whitening decomposes twice more
    return (
        rates.start
        + part.fetch_bytes / rates.network
        + moved / rates.disk
        + (forward / rates.float32 + reduced / rates.float64) / threads
        + sum(_element_operations(plan, part, tensor) for tensor in part.tensors) / rates.float32
    )


def search_seconds(plan: Plan, search: Search, threads: int = 1, rates: Rates = SLOW) -> float:
    """Return the time of a search in which every rule of every matrix is tried."""
    parent = plan.nodes[search.parent]
    parameters = search.parameters
    candidates: list[str] = parameters["matrices"]
    reduced = 3 * sum(decomposition_operations(parent.form[name]) for name in candidates)
    passes = [0, 0, 0]  # through all layers: at the start, and twice at the end
    if parameters["select"] and parameters["select"]["by"] == "gradient":
        passes += [0, 0]  # back is twice as much as there
    if parameters["guard"]:
        passes += [layer_of(name) or 0 for name in candidates for _ in parameters["ranks"]]
    tokens = _text_tokens(parameters["calibration"])
    layers: int = parent.config["num_hidden_layers"]
    run = sum(1 - first / layers for first in passes)
    return (
        rates.start
        + run * parent.size_bytes / rates.disk
        + (run * _forward_operations(parent, tokens) / rates.float32 + reduced / rates.float64) / threads
    )


def evaluation_seconds(plan: Plan, item: Evaluation, threads: int = 1, rates: Rates = SLOW) -> float:
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


def report_seconds(plan: Plan, report: Report, threads: int = 1, rates: Rates = SLOW) -> float:
    """Return the time of the report on a mixture's routers."""
    moe: Any = report.node.recipe
    tokens = _prompt_tokens({"prompts": [[e.prompts, e.negative_prompts] for e in moe.moe.experts]}, rates)
    tokens += sum(
        plan.recipe.calibration[n].windows * plan.recipe.calibration[n].tokens for n in report.texts
    )
    forward = _forward_operations(report.node, tokens) / rates.float32 / threads
    return rates.start + report.node.size_bytes / rates.disk + forward


def conversion_seconds(plan: Plan, rates: Rates = SLOW) -> float:
    """Return the time of making the full-width GGUF: all is read and written."""
    return rates.start + 2 * plan.released.size_bytes / rates.disk


def quantization_seconds(plan: Plan, item: Quantized, threads: int = 1, rates: Rates = SLOW) -> float:
    """Return the time of quantizing, and of deriving every tensor again from the released weights."""
    sizes = dict(plan.outputs())
    moved = 2 * plan.released.size_bytes + 2 * sizes[plan.layout.quantized(item)]
    rate = rates.quantized * (UNSEARCHED if item.method == "Q8_0" else 1)
    return rates.start + moved / rates.disk + plan.released.parameters / rate / threads


def release_seconds(plan: Plan, rates: Rates = SLOW) -> float:
    """Return the time in which all files of the release are copied or read once."""
    sizes = dict(plan.outputs())
    return (
        rates.start
        + (plan.released.size_bytes + sum(sizes[plan.layout.quantized(q)] for q in plan.quantized))
        / rates.disk
    )


def _read_bytes(tensor: Tensor) -> int:
    """Return what is read for a tensor, its origins being as wide as it is."""
    return tensor.size_bytes * (1 if tensor.slices else len(tensor.origins))


def _laser_operations(tensor: Tensor) -> float:
    return decomposition_operations(tensor.shape) if tensor.action == "laser" else 0.0


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


def _prompt_tokens(parameters: dict[str, Any], rates: Rates) -> float:
    """Return how many tokens prompts have."""
    texts: Iterable[str] = (
        text for pair in parameters.get("prompts") or () for side in pair for text in side
    )
    return sum(len(text.encode()) + PROMPT_BYTES for text in texts) / rates.token_bytes


def _text_tokens(calibration: dict[str, Any] | None) -> int:
    return math.prod((calibration["windows"], calibration["tokens"])) if calibration else 0
