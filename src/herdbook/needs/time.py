"""How long jobs take: the bytes that they move and the operations that they compute, at the rates of a machine.

Time limits on clusters assume a slow machine. A limit that is too short loses the job's work, one that is too long lets it
wait in the queue; so these rates are those of the slowest machine that is likely to be used, and a job that still hits its
limit is retried with a longer one. No result and no key depends on any of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.architectures.dense import layer_of
from herdbook.architectures.mixtures import expert_of
from herdbook.needs.disk import evaluation_data_bytes, fetch_bytes
from herdbook.needs.layerwise import PROMPT_BYTES
from herdbook.needs.parts import encoded
from herdbook.needs.ranks import rank_rules
from herdbook.plan import (
    Conversion,
    Evaluation,
    EvaluationData,
    FileLoss,
    Imatrix,
    Node,
    Part,
    Quantized,
    Reference,
    RoutingReport,
    Search,
)
from herdbook.plan.operation import MakeRouters
from herdbook.plan.siblings import effort, left_to_encode
from herdbook.recipe import Moe
from herdbook.recipe.rank import Clustered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan import Plan, Tensor
    from herdbook.plan.job import Subject
    from herdbook.plan.operation import CalibrationText
    from herdbook.recipe import RankRule

ELEMENTWISE = 100  # operations per element of work beyond copying: sorting, drawing noise, rounding
CLUSTER_ROUNDS = 8  # those of ``herdbook.steps.laser.clusters``


@dataclass(frozen=True)
class Rates:
    """The rates of a machine.

    Args:
        start: Seconds until Python and its packages are loaded.
        disk: Bytes per second that are read, digested or written.
        network: Bytes per second that are downloaded.
        float64: Operations per second of one core in decompositions.
        float32: Operations per second of one core in running text through a model.
        quantized: Elements per second of one core that are encoded in Q4_K without an importance matrix.
        token_bytes: Bytes of text per token.
    """

    start: float
    disk: float
    network: float
    float64: float
    float32: float
    quantized: float
    token_bytes: float = 1.0


# Packages are loaded from a shared file system, and every byte of a text is a token.
SLOW = Rates(start=300, disk=50e6, network=5e6, float64=8e9, float32=16e9, quantized=3e6)


def decomposition_operations(shape: tuple[int, ...]) -> float:
    """Return the operations of reducing a matrix, by the table in ``herdbook.steps.laser.decompose``, at the costliest rank."""
    small, large = sorted(shape)
    return large * small**2 + 14 / 3 * small**3 + 2 * large * small**2


def clustered_operations(shape: tuple[int, ...], rule: Clustered) -> float:
    """Return the operations of reducing a matrix in clusters of equal size, where every round moves rows."""
    rows, columns = shape
    count, rank = rule.clustered.clusters, rule.rank_of_each(rows, columns)
    clusters = count * decomposition_operations((rows // count, columns))
    return (CLUSTER_ROUNDS + 1) * clusters + CLUSTER_ROUNDS * 2 * rows * columns * count * rank


def _clustered(shapes: Iterable[tuple[int, ...]], rules: Iterable[RankRule]) -> float:
    """Return the operations of clustering matrices, once by each rule that does."""
    found = [rule for rule in rules if isinstance(rule, Clustered)]
    return sum(clustered_operations(shape, rule) for shape in shapes for rule in found)


def seconds(
    plan: Plan, subject: Subject | None, threads: int = 1, rates: Rates = SLOW, *, alone: bool = False
) -> float:
    """Return the time of a job in seconds.

    Args:
        plan: The plan.
        subject: The item of the plan that the job makes; None if the job makes the release or reads it as a whole.
        threads: How many matrices, windows of text or documents the job works on at the same time.
        rates: The rates of the machine.
        alone: Whether a quantized file may find none of those that it could copy encoded tensors from.
    """
    match subject:
        case Part():
            return _part(plan, subject, threads, rates)
        case Search():
            return _search(plan, subject, threads, rates)
        case Evaluation():
            return _evaluation(plan, subject, threads, rates)
        case EvaluationData():
            return rates.start + subject.size_bytes * (1 / rates.network + 1 / rates.disk)
        case RoutingReport():
            return _report(plan, subject, threads, rates)
        case Reference():
            passes = 2 if subject.has_control else 1
            return rates.start + passes * _reading(plan, subject, threads, rates)
        case FileLoss():
            fetched = subject.locked.file.size_bytes / rates.network if subject.locked else 0
            unpacked = ELEMENTWISE * plan.released.parameters / rates.float32
            return rates.start + fetched + unpacked + _reading(plan, subject.reference, threads, rates)
        case Imatrix():
            texts = [plan.recipe.calibration[name] for name in subject.texts]
            tokens = sum(text.windows * text.tokens for text in texts)
            read = plan.released.size_bytes / rates.disk if texts else 0
            return rates.start + read + _forward_operations(plan.released, tokens) / rates.float32 / threads
        case Conversion():
            return rates.start  # the vocabulary alone
        case Quantized():
            encodes = left_to_encode(subject, () if alone else plan.siblings[subject.id])
            copied = sum(each.size_bytes for each in subject.tensors) - sum(
                each.size_bytes for each in encodes
            )
            moved = plan.released.size_bytes + subject.size_bytes + copied
            work = sum(effort(subject, each) for each in encodes)
            return rates.start + moved / rates.disk + work / rates.quantized / threads
        case Node():
            return rates.start  # links, and small files
        case None:
            # All files of the release are copied or read once.
            quantized = sum(item.size_bytes for item in plan.quantized)
            return rates.start + (plan.released.size_bytes + quantized) / rates.disk


def _part(plan: Plan, part: Part, threads: int, rates: Rates) -> float:
    fetched = fetch_bytes(plan, part)
    moved = part.size_bytes + sum(
        _read_bytes(tensor) for tensor in part.tensors if tensor.action != "compress"
    )
    matrices = (
        encoded(plan, part) if part.rule == "compress" else []
    )  # read and encoded for each tensor that one is stored as
    moved += sum(matrix.size_bytes for matrix in matrices)
    folders = [plan.by_key[key] for key in part.operation.folders]
    moved += fetched + sum(node.size_bytes for node in folders)
    prompts = part.operation.prompts if isinstance(part.operation, MakeRouters) else ()
    tokens = _prompt_tokens(prompts, rates) + _text_tokens(part.operation.text)
    forward = sum(_forward_operations(node, tokens) for node in folders)
    decompositions = 3 if part.operation.text else 1  # whitening adds one, and products for another
    reduced = decompositions * sum(decomposition_operations(tensor.shape) for tensor in part.reduced)
    reduced += _clustered((tensor.shape for tensor in part.reduced), rank_rules(plan, part))
    return (
        rates.start
        + fetched / rates.network
        + moved / rates.disk
        + (forward / rates.float32 + reduced / rates.float64) / threads
        + sum(_element_operations(plan, part, tensor) for tensor in part.tensors) / rates.float32
        + ELEMENTWISE * sum(matrix.elements for matrix in matrices) / rates.float32
    )


def _search(plan: Plan, search: Search, threads: int, rates: Rates) -> float:
    """Return the time of a search in which every rule of every matrix is tried."""
    parent = plan.nodes[search.parent]
    candidates = search.matrices
    reduced = 3 * sum(decomposition_operations(parent.form[name]) for name in candidates)
    # For a ranking, and for a trial.
    reduced += 2 * _clustered((parent.form[name] for name in candidates), search.ranks)
    passes = [0, 0, 0]  # the layer each starts at: through all layers once at the start, and twice at the end
    if search.select and search.select.by == "gradient":
        passes += [0, 0]  # a backward pass costs two forward passes
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
    """Return the time of measuring a model on the data of all tasks."""
    tokens = evaluation_data_bytes(plan, item) / rates.token_bytes
    node = item.node
    unpacked = ELEMENTWISE * node.parameters / rates.float32 if item.quantized else 0
    return (
        rates.start
        + node.size_bytes / rates.disk
        + unpacked
        + _forward_operations(node, tokens) / rates.float32 / threads
    )


def _report(plan: Plan, report: RoutingReport, threads: int, rates: Rates) -> float:
    assert isinstance(report.node.recipe, Moe)  # noqa: S101 - nothing else has routers
    experts = report.node.recipe.moe.experts
    texts = [plan.recipe.calibration[name] for name in report.texts]
    tokens = _prompt_tokens([(expert.prompts, expert.negative_prompts) for expert in experts], rates)
    tokens += sum(text.windows * text.tokens for text in texts)
    forward = _forward_operations(report.node, tokens) / rates.float32 / threads
    return rates.start + report.node.size_bytes / rates.disk + forward


def _reading(plan: Plan, item: Reference, threads: int, rates: Rates) -> float:
    """Return the time of one pass of texts through a model, and of comparing its predictions with another one's."""
    texts = [plan.recipe.calibration[name] for name in item.texts]
    tokens = sum(text.windows * text.tokens for text in texts)
    vocabulary = item.node.config["vocab_size"]
    compared = tokens * vocabulary * (4 * item.node.config["hidden_size"] + ELEMENTWISE)
    computed = _forward_operations(item.node, tokens) + compared
    return float(item.node.size_bytes / rates.disk + computed / rates.float32 / threads)


def _read_bytes(tensor: Tensor) -> int:
    """Return the bytes that are read for a tensor; its origins have its dtype."""
    return tensor.size_bytes * (1 if tensor.slices else _inputs(tensor))


def _inputs(tensor: Tensor) -> int:
    """Return how many tensors of its size one is made from; those that it has several runs of rows of are read once."""
    return len({*tensor.origins} if tensor.action == "rows" else tensor.origins)


def _element_operations(plan: Plan, part: Part, tensor: Tensor) -> float:
    if tensor.action in {"copy", "laser", "compress"}:
        return 0.0
    if tensor.action == "adapter":
        rank = max(
            (
                min(lora.shape)
                for lora in plan.lock.adapters[part.model].tensors
                if ".lora_" in lora.name and len(lora.shape) > 1
            ),
            default=0,
        )
        return 2.0 * rank * tensor.elements
    return float(ELEMENTWISE * tensor.elements * max(1, _inputs(tensor)))


def _forward_operations(node: Node, tokens: float) -> float:
    """Return the operations of running text through a model: two per token and weight that processes it."""
    share = 1.0
    if isinstance(node.recipe, Moe):
        share = node.recipe.moe.experts_per_token / len(node.recipe.moe.experts)
    active = 0.0
    for part in node.parts:
        for tensor in part.tensors:
            active += tensor.elements * (share if tensor.slices or expert_of(tensor.name) else 1)
    return 2 * active * tokens


def _prompt_tokens(prompts: Iterable[Iterable[Iterable[str]]], rates: Rates) -> float:
    """Return how many tokens the prompts of experts have: each expert's positive and its negative ones."""
    texts = (text for sides in prompts for side in sides for text in side)
    return sum(len(text.encode()) + PROMPT_BYTES for text in texts) / rates.token_bytes


def _text_tokens(text: CalibrationText | None) -> int:
    return text.windows * text.tokens if text else 0
