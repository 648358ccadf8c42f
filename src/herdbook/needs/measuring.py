"""Memory of jobs that read a whole model: measurements, reports on routers, losses, importance matrices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import layer_of
from herdbook.architectures.mixtures import expert_of
from herdbook.needs.layerwise import FLOAT32, LOGITS
from herdbook.needs.process import TORCH_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from herdbook.plan import Evaluation, Imatrix, Node, Plan, Reference, RoutingReport

# glibc's DEFAULT_MMAP_THRESHOLD_MAX on 64-bit machines: a freed block above it is returned to the system.
KEPT_BYTES = 1 << 25
# The longest text that an evaluation reads in one pass; the logits of that many tokens are held in float32.
TOKENS_AT_ONCE = 2048
# The rows that ``herdbook.inference.mixture`` passes through an expert together.
ROWS = 512
# The rows that ``herdbook.steps.loss.divergence`` compares together; of each, two predictions in float32 and float64, and copies.
LOSS_ROWS, LOSS_ROW_BYTES = 64, 2 * 4 + 5 * 8
# A guess of the tokens of all prompts together.
PROMPT_TOKENS = 512


def evaluation_memory(plan: Plan, item: Evaluation) -> tuple[int, int]:
    """Return the memory of a measurement with one thread, and what each further thread adds."""
    further = pass_bytes(plan, item)
    return TORCH_BYTES + _weights(item) + further, further


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


def report_memory(plan: Plan, report: RoutingReport) -> tuple[int, int]:
    """Return the memory of a report on routers with one thread, and what each further thread adds."""
    return TORCH_BYTES + report_data_bytes(plan, report), _report_thread(plan, report)


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


def loss_memory(plan: Plan, item: Reference) -> tuple[int, int]:
    """Return the memory of a loss, or of its reference, with one thread, and what each further thread adds."""
    further, config = _loss_thread(item), item.node.config
    # two output matrices, of which one may be dequantized at the moment
    heads = 2 * FLOAT32 * config["vocab_size"] * config["hidden_size"]
    return TORCH_BYTES + read_bytes(plan, config, item.texts) + heads + further, further


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


def matrix_memory(plan: Plan, matrix: Imatrix) -> tuple[int, int]:
    """Return the memory of an importance matrix with one thread, and what each further thread adds.

    A model's weights, the texts and the sums are in memory together.
    """
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
    further = _matrix_thread(plan)
    return TORCH_BYTES + FLOAT32 * int(2 * layer + held + sums) + further, further


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
