"""Memory of jobs: the tensors that lie there at once, and what the interpreter and its packages take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from herdbook.architectures.dense import layer_of
from herdbook.architectures.mixtures import expert_of
from herdbook.needs.layerwise import FLOAT32, LOGITS, reading
from herdbook.plan import Conversion, Evaluation, Node, Part, Quantized, Report, Search
from herdbook.plan.operation import (
    DrawRouters,
    FetchFile,
    FetchGguf,
    FetchRanges,
    FoldAdapter,
    MakeRouters,
    MergeTensors,
    PerturbExperts,
    Reduce,
    ReduceAsSearched,
    RunMergekit,
    TakeOver,
)
from herdbook.recipe import Moe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan import Plan, Tensor
    from herdbook.plan.jobs import Subject

# A process that imports no torch, with its buffers; and one that does.
INTERPRETER_BYTES = 150_000_000
TORCH_BYTES = 700_000_000
FLOAT64 = 8
# Squares of a matrix's smaller side in float64 that reducing it takes; with whitening, the moments and two bases more.
SQUARES, WHITENED_SQUARES = 5, 9
# As ``herdbook.steps.laser.decompose`` reads a matrix.
MATRIX_PIECES, MATRIX_PIECE_BYTES = 3, 1 << 26
# As ``herdbook.steps.quantize.encode`` reads a tensor in float32, and copies of that.
QUANTIZED_PIECES, QUANTIZED_PIECE_BYTES = 10, 1 << 25
# glibc's DEFAULT_MMAP_THRESHOLD_MAX on 64-bit machines: a freed block above it goes back to the system.
KEPT_BYTES = 1 << 25
# What a tensor's entry in records, lineage and claims takes as Python's objects.
RECORD_BYTES = 20_000
# An element as it is stored, in float32, and as it will be stored.
ELEMENT_BYTES = 12
# The longest text that an evaluation sees at once; logits of so many tokens are held in float32.
TOKENS_AT_ONCE = 2048
# As ``herdbook.inference.mixture`` passes them through an expert together.
ROWS = 512
# A guess for what all prompts together have.
PROMPT_TOKENS = 512


def memory_bytes(plan: Plan, subject: Subject | None, threads: int = 1) -> int:
    """Return the memory of a job in bytes.

    Args:
        plan: The plan.
        subject: What of the plan the job makes; None if it makes the release or reads it as a whole.
        threads: How much the job does at the same time: matrices, windows of text, or documents.
    """
    match subject:
        case Part():
            one, each = _part(plan, subject)
        case Search():
            one, each = _search(plan, subject)
        case Evaluation():
            each = pass_bytes(plan, subject)
            one = TORCH_BYTES + _weights(subject) + each
        case Report():
            each = _report_thread(plan, subject)
            one = TORCH_BYTES + report_data_bytes(plan, subject)
        case Conversion():
            one, each = _conversion(plan), 0
        case Quantized():
            one, each = INTERPRETER_BYTES + QUANTIZED_PIECES * QUANTIZED_PIECE_BYTES, 0
        case Node():
            one, each = INTERPRETER_BYTES, 0  # weights are linked
        case None:
            # Weights pass in small pieces.
            one = INTERPRETER_BYTES + RECORD_BYTES * sum(len(part.tensors) for part in plan.parts.values())
            each = 0
    return one + (threads - 1) * each


# -- parts ---------------------------------------------------------------------------------------------------------------


def _part(plan: Plan, part: Part) -> tuple[int, int]:
    """Return the memory of a part's job with one thread, and what each further thread adds."""
    match part.operation:
        case Reduce() | ReduceAsSearched():
            return _reduce(plan, part)
        case FetchFile() | FetchRanges() | DrawRouters():
            return INTERPRETER_BYTES, 0
        case FetchGguf():
            # All of the container is read, and each tensor dequantized in float32.
            node = plan.nodes[part.model]
            largest = max(tensor.size_bytes for _, tensor in node.tensors.values())
            return TORCH_BYTES + 4 * node.size_bytes + 4 * largest, 0
        case FoldAdapter():
            # A matrix in float64, the product of the sides, and their sum.
            return TORCH_BYTES + 32 * max(tensor.elements for tensor in part.computed), 0
        case MergeTensors():
            largest = max(tensor.elements for tensor in part.computed)
            return TORCH_BYTES + FLOAT32 * largest * (2 * len(part.computed[0].origins) + 4), 0
        case RunMergekit():
            return TORCH_BYTES + 2 * part.size_bytes, 0
        case MakeRouters() as make:
            return TORCH_BYTES + _routers(plan.by_key[make.base]), 0
        case TakeOver() | PerturbExperts():
            if not any(tensor.action in {"alter", "cast"} for tensor in part.tensors):
                return INTERPRETER_BYTES, 0
            largest = max(tensor.elements // max(1, len(tensor.slices)) for tensor in part.tensors)
            return TORCH_BYTES + 16 * largest, 0


def _routers(base: Node) -> int:
    """Return what reading prompts takes: a layer and the embeddings in float32, each twice."""
    layer = sum(tensor.elements for name, (_, tensor) in base.tensors.items() if layer_of(name) == 0)
    table: int = base.config["vocab_size"] * base.config["hidden_size"]
    return 2 * FLOAT32 * (layer + table)


def matrix_bytes(tensors: Iterable[Tensor], *, whitened: bool) -> int:
    """Return the memory that reducing one of some matrices takes, whichever needs most.

    Squares of the smaller side in float64: the Gram matrix, and for its vectors a copy and LAPACK's workspace of two; or
    the vectors, and what is made of them for the disk. Where outputs are looked at, moments and two bases more. Beside
    them pieces of the matrix in float64, and the matrix as it was read, as it is made and as it is written.
    """
    squares = FLOAT64 * (WHITENED_SQUARES if whitened else SQUARES)
    return max(
        squares * min(one.shape) ** 2 + MATRIX_PIECES * MATRIX_PIECE_BYTES + 3 * one.size_bytes
        for one in tensors
    )


def _reduce(plan: Plan, part: Part) -> tuple[int, int]:
    computed, text = part.reduced, part.operation.text
    one = matrix_bytes(computed, whitened=text is not None)
    if text is None:
        return TORCH_BYTES + one, one
    read = reading(plan.by_key[part.operation.folders[0]], text.windows, text.tokens)
    moments = _moments(computed)
    shared = read.layer + max(map(_size, computed)) + read.streams + moments
    return TORCH_BYTES + shared + max(one, read.window + moments), max(one, read.window + moments)


# -- searches --------------------------------------------------------------------------------------------------------------


def _search(plan: Plan, search: Search) -> tuple[int, int]:
    """Return the memory of a search with one thread, and what each further thread adds."""
    parent, chosen = plan.nodes[search.parent], set(search.matrices)
    tensors = [tensor for name, (_, tensor) in parent.tensors.items() if name in chosen]
    whitens = search.needs_text
    one = matrix_bytes(tensors, whitened=whitens)
    select, text = search.select, search.text
    ranked = select is not None and select.by != "gradient"
    if text is None:
        return TORCH_BYTES + one, one
    windows = text.windows * (2 if search.guard else 1)  # as many again confirm the choice
    read = reading(parent, windows, text.tokens)
    shared = read.layer + read.head + max(map(_size, tensors)) + read.streams
    if search.guard:
        shared += sum(map(_size, tensors))  # what was accepted is held
    thread = read.window
    if select is not None and not ranked:
        layers: dict[int | None, int] = {}
        for tensor in tensors:
            layers[layer_of(tensor.name)] = layers.get(layer_of(tensor.name), 0) + tensor.elements
        widest = max(layers.values())
        shared += 2 * FLOAT64 * widest  # gradients, before and after one is added
        thread += FLOAT32 * widest + read.window  # and what the way back has kept
    if whitens:
        moments = _moments(tensors)
        shared += moments
        thread += moments
    if ranked or whitens:
        thread = max(thread, one)
    return TORCH_BYTES + shared + one + thread, thread


def _moments(tensors: Iterable[Tensor]) -> int:
    """Return what the second moments of a layer's matrices take, and the largest matrix in float64."""
    layers: dict[int | None, int] = {}
    largest = 0
    for tensor in tensors:
        number = layer_of(tensor.name)
        layers[number] = layers.get(number, 0) + FLOAT64 * min(tensor.shape) ** 2
        largest = max(largest, tensor.elements)
    return max(layers.values()) + FLOAT64 * largest


def _size(tensor: Tensor) -> int:
    return tensor.size_bytes


# -- what reads a whole model ----------------------------------------------------------------------------------------------


def pass_bytes(plan: Plan, item: Evaluation) -> int:
    """Return what one pass of documents through a measured model takes; as much again for each at the same time."""
    settings = plan.recipe.evaluate
    batch = settings.batch_size if settings else 1
    vocabulary: int = item.node.config["vocab_size"]
    return 3 * FLOAT32 * TOKENS_AT_ONCE * batch * vocabulary


def _weights(item: Evaluation) -> int:
    return FLOAT32 * item.node.parameters * (2 if item.quantized else 1) + stacking_bytes(item.node)


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


def report_data_bytes(plan: Plan, report: Report) -> int:
    """Return what a mixture's weights and the texts take while its routers are looked at."""
    config = report.node.config
    texts = [plan.recipe.calibration[name] for name in report.texts]
    tokens = PROMPT_TOKENS + sum(text.windows * text.tokens for text in texts)
    layer = 8 * config["hidden_size"] ** 2 + 3 * config["hidden_size"] * config["intermediate_size"]
    # streams before and after, what the MLPs see and give; an expert's activations; logits of a window
    held = tokens * (5 * config["hidden_size"] + 2 * config["intermediate_size"])
    head = config["vocab_size"] * (config["hidden_size"] + _longest(plan, report))
    return FLOAT32 * int(2 * layer + held + 2 * head)


def _report_thread(plan: Plan, report: Report) -> int:
    """Return what each further thread of a report takes: a window's logits, or some rows of what an expert sees."""
    config = report.node.config
    logits = LOGITS * _longest(plan, report) * config["vocab_size"]
    return FLOAT32 * int(max(logits, 3 * ROWS * config["intermediate_size"]))


def _longest(plan: Plan, report: Report) -> int:
    return max((plan.recipe.calibration[name].tokens for name in report.texts), default=0)


def _conversion(plan: Plan) -> int:
    """Return the memory of making the full-width GGUF: the largest tensor, stacked for all experts as GGUF has it."""
    released = plan.released
    experts = len(released.recipe.moe.experts) if isinstance(released.recipe, Moe) else 1
    largest = max(
        tensor.elements * (1 if tensor.slices or not expert_of(name) else experts)
        for name, (_, tensor) in released.tensors.items()
    )
    return TORCH_BYTES + ELEMENT_BYTES * largest
