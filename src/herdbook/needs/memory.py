"""Memory of jobs: the tensors that are in memory at the same time, and what the interpreter and its packages need."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import layer_of
from herdbook.architectures.form import is_known
from herdbook.architectures.mixtures import expert_of
from herdbook.needs.layerwise import FLOAT32, LOGITS, reading
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
from herdbook.recipe.rank import Clustered

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from herdbook.plan import Plan, Tensor
    from herdbook.plan.job import Subject

# A process that imports no torch, with its buffers; and one that does.
INTERPRETER_BYTES = 150_000_000
TORCH_BYTES = 700_000_000
FLOAT64 = 8
# Reducing a matrix needs this many squares of its smaller side in float64; whitening adds the moment and a second basis.
SQUARES, WHITENED_SQUARES = 5, 7
# The pieces in which ``herdbook.steps.laser.decompose`` reads a matrix.
MATRIX_PIECES, MATRIX_PIECE_BYTES = 3, 1 << 26
# The pieces in which ``herdbook.steps.quantize.encode`` reads a tensor in float32, with its copies of one.
QUANTIZED_PIECES, QUANTIZED_PIECE_BYTES = 10, 1 << 25
# glibc's DEFAULT_MMAP_THRESHOLD_MAX on 64-bit machines: a freed block above it is returned to the system.
KEPT_BYTES = 1 << 25
# A tensor's entries in records, lineage and claims, as Python objects.
RECORD_BYTES = 20_000
# An element as it is stored, in float32, and as it will be stored.
ELEMENT_BYTES = 12
# An element as it is stored in at most 32 bits, its absolute value and quotients, and these as integers, with a copy of each.
ENCODED_BYTES = 40
# What ``herdbook.steps.compress.mlx`` encodes at once, beside a matrix as it is stored; numbers that lie in two words are packed as
# integers of 64 bits.
MLX_PIECE_BYTES = 80 << 20
# The longest text that an evaluation reads in one pass; the logits of that many tokens are held in float32.
TOKENS_AT_ONCE = 2048
# The rows that ``herdbook.inference.mixture`` passes through an expert together.
ROWS = 512
# The rows that ``herdbook.steps.loss.divergence`` compares together; of each, two predictions in float32 and float64, and copies.
LOSS_ROWS, LOSS_ROW_BYTES = 64, 2 * 4 + 5 * 8
# A guess of the tokens of all prompts together.
PROMPT_TOKENS = 512


def memory_bytes(plan: Plan, subject: Subject | None, threads: int = 1) -> int:
    """Return the memory of a job in bytes.

    Args:
        plan: The plan.
        subject: The item of the plan that the job makes; None if the job makes the release or reads it as a whole.
        threads: How many matrices, windows of text or documents the job works on at the same time.
    """
    match subject:
        case Part():
            first, further = _part(plan, subject)
        case Search():
            first, further = _search(plan, subject)
        case Evaluation():
            further = pass_bytes(plan, subject)
            first = TORCH_BYTES + _weights(subject) + further
        case EvaluationData():
            first, further = TORCH_BYTES + 4 * subject.size_bytes, 0  # documents as Python's objects
        case RoutingReport():
            further = _report_thread(plan, subject)
            first = TORCH_BYTES + report_data_bytes(plan, subject)
        case Reference() | FileLoss():
            item = subject if isinstance(subject, Reference) else subject.reference
            further = _loss_thread(item)
            # two output matrices, of which one may be dequantized at the moment
            heads = 2 * FLOAT32 * item.node.config["vocab_size"] * item.node.config["hidden_size"]
            first = TORCH_BYTES + read_bytes(plan, item.node.config, item.texts) + heads + further
        case Imatrix():
            first, further = TORCH_BYTES + matrix_data_bytes(plan, subject), _matrix_thread(plan)
        case Conversion():
            first, further = TORCH_BYTES, 0  # the converter and the vocabulary
        case Quantized():
            first, further = INTERPRETER_BYTES + QUANTIZED_PIECES * QUANTIZED_PIECE_BYTES, 0
        case Node():
            # Weights are linked. Of a tokenizer in a GGUF, transformers makes the files of one.
            made = any(isinstance(part.operation, FetchGguf) for part in subject.parts)
            first, further = TORCH_BYTES if made else INTERPRETER_BYTES, 0
        case None:
            # Weights are read in small pieces.
            first = INTERPRETER_BYTES + RECORD_BYTES * sum(len(part.tensors) for part in plan.parts.values())
            if not is_known(plan.released.config):
                first += TORCH_BYTES  # transformers loads the shapes, in a process of its own
            further = 0
    return first + (threads - 1) * further


# -- parts ---------------------------------------------------------------------------------------------------------------


def _part(plan: Plan, part: Part) -> tuple[int, int]:
    """Return the memory of a part's job with one thread, and what each further thread adds."""
    match part.operation:
        case Reduce() | ReduceAsSearched():
            return _reduce(plan, part)
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


def matrix_bytes(tensors: Iterable[Tensor], *, whitened: bool, clustered: bool = False) -> int:
    """Return the memory of reducing one matrix at a time, for the one that needs most.

    Squares of the smaller side in float64: the Gram matrix, and for its vectors a copy and LAPACK's workspace of two; or
    the vectors, and the copy that is written to the disk. Whitening adds the moment and a second basis. Pieces of the matrix
    in float64, and the matrix as it was read, as it is computed and as it is written, come on top.

    Args:
        tensors: The matrices.
        whitened: Whether they are whitened.
        clustered: Whether their rows are clustered. The decompositions of all clusters, and the bases of their subspaces,
            have at most as many elements as the matrix.
    """
    bases = 2 * FLOAT64 if clustered else 0
    squares = FLOAT64 * (WHITENED_SQUARES if whitened else SQUARES)
    return max(
        squares * min(tensor.shape) ** 2
        + MATRIX_PIECES * MATRIX_PIECE_BYTES
        + 3 * tensor.size_bytes
        + bases * tensor.elements
        for tensor in tensors
    )


def _reduce(plan: Plan, part: Part) -> tuple[int, int]:
    computed, text = part.reduced, part.operation.text
    clustered = any(isinstance(rule, Clustered) for rule in rank_rules(plan, part))
    matrix = matrix_bytes(computed, whitened=text is not None, clustered=clustered)
    if text is None:
        return TORCH_BYTES + matrix, matrix
    read = reading(plan.by_key[part.operation.folders[0]], text.windows, text.tokens)
    moments = _moments(computed)
    shared = read.layer + max(map(_size, computed)) + read.streams + moments
    thread = max(matrix, read.window + moments)
    return TORCH_BYTES + shared + thread, thread


# -- searches --------------------------------------------------------------------------------------------------------------


def _search(plan: Plan, search: Search) -> tuple[int, int]:
    """Return the memory of a search with one thread, and what each further thread adds."""
    parent, chosen = plan.nodes[search.parent], set(search.matrices)
    tensors = [tensor for name, (_, tensor) in parent.tensors.items() if name in chosen]
    whitens = search.needs_text
    clustered = any(isinstance(rule, Clustered) for rule in search.ranks)
    matrix = matrix_bytes(tensors, whitened=whitens, clustered=clustered)
    select, text = search.select, search.text
    ranked = select is not None and select.by != "gradient"
    if text is None:
        return TORCH_BYTES + matrix, matrix
    windows = text.windows * (2 if search.guard else 1)  # a second set confirms the choice
    read = reading(parent, windows, text.tokens)
    shared = read.layer + read.head + max(map(_size, tensors)) + read.streams
    if search.guard:
        shared += sum(map(_size, tensors))  # accepted reductions stay in memory
    thread = read.window
    if select is not None and not ranked:
        layers: dict[int | None, int] = {}
        for tensor in tensors:
            layers[layer_of(tensor.name)] = layers.get(layer_of(tensor.name), 0) + tensor.elements
        widest = max(layers.values())
        shared += 2 * FLOAT64 * widest  # gradients, before and after one is added
        thread += FLOAT32 * widest + read.window  # and what the backward pass keeps
    if whitens:
        moments = _moments(tensors)
        shared += moments
        thread += moments
    if ranked or whitens or search.spreads:
        thread = max(thread, matrix)
    return TORCH_BYTES + shared + matrix + thread, thread


def _moments(tensors: Iterable[Tensor]) -> int:
    """Return the memory of the second moments of a layer's matrices, and of the largest matrix in float64."""
    layers: dict[int | None, int] = {}
    largest = 0
    for tensor in tensors:
        number = layer_of(tensor.name)
        layers[number] = layers.get(number, 0) + FLOAT64 * min(tensor.shape) ** 2
        largest = max(largest, tensor.elements)
    return max(layers.values()) + FLOAT64 * largest


def _size(tensor: Tensor) -> int:
    return tensor.size_bytes


# -- jobs that read a whole model --------------------------------------------------------------------------------------------


def pass_bytes(plan: Plan, item: Evaluation) -> int:
    """Return the memory of one pass of documents through a measured model; passes at the same time each need as much."""
    settings = plan.recipe.evaluate
    batch = settings.batch_size if settings else 1
    vocabulary: int = item.node.config["vocab_size"]
    return 3 * FLOAT32 * TOKENS_AT_ONCE * batch * vocabulary


def weight_bytes(item: Evaluation) -> int:
    """Return the bytes of one weight of a measured model."""
    return FLOAT32 if item.group.dtype == "float32" else FLOAT32 // 2


def _weights(item: Evaluation) -> int:
    if item.quantized:  # which is dequantized to float32 first
        return 2 * FLOAT32 * item.node.parameters + stacking_bytes(item.node)
    return weight_bytes(item) * item.node.parameters + stacking_bytes(item.node, weight_bytes(item))


def stacking_bytes(node: Node, width: int = FLOAT32) -> int:
    """Return the memory of loading a mixture beyond its weights: transformers joins a layer's experts, then frees them.

    A layer's experts are in memory as they were read. Their gates and their ups are stacked, each kind by itself, and the
    two stacks are joined, which adds two thirds of the layer's experts twice; the joined tensor is a weight of the model
    (``MergeModulelist`` and ``Concatenate`` in transformers' ``core_model_loading``). Blocks that are too small for glibc to
    return to the system stay with the process: then all experts count.
    """
    layers: dict[int | None, int] = {}
    smallest = math.inf
    for name, (_, tensor) in node.tensors.items():
        if expert_of(name) or tensor.slices:
            layers[layer_of(name)] = layers.get(layer_of(name), 0) + width * tensor.elements
            smallest = min(smallest, width * tensor.elements)
    if not layers:
        return 0
    joined = max(layers.values()) * 4 // 3
    return joined if smallest > KEPT_BYTES else max(joined, sum(layers.values()))


def report_data_bytes(plan: Plan, report: RoutingReport) -> int:
    """Return the memory of a mixture's weights and of the texts while its routers are measured."""
    return read_bytes(plan, report.node.config, report.texts, PROMPT_TOKENS)


def read_bytes(plan: Plan, config: Mapping[str, Any], names: Sequence[str], more: int = 0) -> int:
    """Return the memory of a model's weights and of texts while it reads these layer by layer, one expert at a time.

    Args:
        plan: The plan.
        config: The model's configuration.
        names: The texts.
        more: Further tokens that are read with them.
    """
    texts = [plan.recipe.calibration[name] for name in names]
    tokens = more + sum(text.windows * text.tokens for text in texts)
    longest = max((text.tokens for text in texts), default=0)
    layer = 8 * config["hidden_size"] ** 2 + 3 * config["hidden_size"] * config["intermediate_size"]
    # streams before and after a layer, inputs and outputs of the MLPs; an expert's activations; logits of a window
    held = tokens * (5 * config["hidden_size"] + 2 * config["intermediate_size"])
    head = config["vocab_size"] * (config["hidden_size"] + longest)
    return FLOAT32 * int(2 * layer + held + 2 * head)


def _loss_thread(item: Reference) -> int:
    """Return the memory of each further thread of a loss: the predictions of some tokens, or some rows of an expert's input."""
    config = item.node.config
    logits = LOSS_ROWS * LOSS_ROW_BYTES * config["vocab_size"]
    return int(max(logits, 3 * FLOAT32 * ROWS * config["intermediate_size"]))


def _report_thread(plan: Plan, report: RoutingReport) -> int:
    """Return the memory of each further thread of a report: a window's logits, or some rows of an expert's input."""
    config = report.node.config
    logits = LOGITS * _longest(plan, report) * config["vocab_size"]
    return FLOAT32 * int(max(logits, 3 * ROWS * config["intermediate_size"]))


def matrix_data_bytes(plan: Plan, matrix: Imatrix) -> int:
    """Return the memory of a model's weights, of the texts and of the sums while an importance matrix is computed."""
    config = plan.released.config
    tokens = sum(
        plan.recipe.calibration[name].windows * plan.recipe.calibration[name].tokens for name in matrix.texts
    )
    widest = max((_mlp_width(config), config["hidden_size"]))
    layer = 8 * config["hidden_size"] ** 2 + 3 * config["hidden_size"] * widest
    held = (
        tokens * 5 * config["hidden_size"]
    )  # streams before and after a layer, inputs and outputs of the MLPs
    sums = 3 * sum(math.prod((*shape[:-2], shape[-1])) for shape in matrix.tensors.values())
    return FLOAT32 * int(2 * layer + held + sums) + _matrix_thread(plan)


def _matrix_thread(plan: Plan) -> int:
    """Return the memory of each further thread: a window inside a layer, and squares in float64."""
    longest = max((text.tokens for text in plan.recipe.calibration.values()), default=0)
    rows = max(longest, ROWS)
    return int(
        5 * FLOAT32 * rows * max(_mlp_width(plan.released.config), plan.released.config["hidden_size"])
    )


def _mlp_width(config: Mapping[str, Any]) -> int:
    return max(int(config[key]) for key in ("intermediate_size", "moe_intermediate_size") if config.get(key))


def _longest(plan: Plan, report: RoutingReport) -> int:
    return max((plan.recipe.calibration[name].tokens for name in report.texts), default=0)
