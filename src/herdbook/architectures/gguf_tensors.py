"""The safetensors tensors that each tensor of a GGUF is made from: names, stacked experts, the order of q and k rows.

Two facts of the format, both from llama.cpp's converter (class ``LlamaModel``):

- Rotary embeddings: Hugging Face rotates pairs that lie half a head apart, ggml pairs that lie side by side. So within
  each head, row ``i`` of the first half and row ``i`` of the second half of q and k become neighbours.
- The experts of a layer are stacked along a new first axis; ``w1`` is the gate, ``w3`` up, ``w2`` down.

Norms, biases and routers are kept in F32; a tied output matrix is not stored a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.architectures.conversion import objection
from herdbook.errors import CheckpointError, StepError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TensorLayout:
    """How one tensor of a GGUF is made.

    Args:
        name: Its name in the GGUF.
        sources: The tensors it is made from, by their names in the safetensors; several are stacked in this order.
        heads: Number of heads whose rows are reordered; 0 if rows keep their order.
        stacked: Whether the sources are stacked along a new first axis.
        required: Whether every model has it.
    """

    name: str
    sources: tuple[str, ...]
    heads: int = 0
    stacked: bool = False
    required: bool = True


def layout(config: Mapping[str, Any], where: str) -> dict[str, TensorLayout]:
    """Return all tensors that the GGUF of such a model can have, by their names in the GGUF.

    Args:
        config: The model's ``config.json``.
        where: The model's name in errors.

    Raises:
        CheckpointError: If ``config`` lacks a number that every such model has.
        StepError: If the architecture, the activation, the rotary embeddings or the number of experts is not supported.
    """
    if reason := objection(config):
        raise StepError(f"{where}: {reason}.")
    architecture = config["architectures"][0]
    needed = ["num_attention_heads", "num_hidden_layers", "num_local_experts"]
    for key in needed if architecture == "MixtralForCausalLM" else needed[:2]:
        if key not in config:
            raise CheckpointError(f"{where}: config.json lacks {key}")
    if architecture == "MixtralForCausalLM" and config["num_local_experts"] < 2:
        raise StepError(f"{where}: a mixture of {config['num_local_experts']} experts is not supported.")
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    parts = [
        TensorLayout("token_embd.weight", ("model.embed_tokens.weight",)),
        TensorLayout("output_norm.weight", ("model.norm.weight",)),
        # a tied model may still contain an output matrix, which the converter then writes
        TensorLayout(
            "output.weight", ("lm_head.weight",), required=not config.get("tie_word_embeddings", False)
        ),
    ]
    for layer in range(config["num_hidden_layers"]):
        ours, theirs = f"blk.{layer}", f"model.layers.{layer}"
        parts += [
            TensorLayout(f"{ours}.attn_norm.weight", (f"{theirs}.input_layernorm.weight",)),
            TensorLayout(f"{ours}.ffn_norm.weight", (f"{theirs}.post_attention_layernorm.weight",)),
        ]
        for name, source, row_heads in (
            ("attn_q", "self_attn.q_proj", heads),
            ("attn_k", "self_attn.k_proj", kv_heads),
            ("attn_v", "self_attn.v_proj", 0),
            ("attn_output", "self_attn.o_proj", 0),
        ):
            parts += _with_bias(f"{ours}.{name}", f"{theirs}.{source}", row_heads)
        if architecture == "MixtralForCausalLM":
            parts += _experts(f"{ours}.ffn", f"{theirs}.block_sparse_moe", config["num_local_experts"])
        else:
            for name in ("gate", "up", "down"):
                parts += _with_bias(f"{ours}.ffn_{name}", f"{theirs}.mlp.{name}_proj", 0)
    return {part.name: part for part in parts}


def _with_bias(name: str, source: str, heads: int) -> list[TensorLayout]:
    return [
        TensorLayout(f"{name}.weight", (f"{source}.weight",), heads),
        TensorLayout(f"{name}.bias", (f"{source}.bias",), heads, required=False),
    ]


def _experts(name: str, source: str, count: int) -> list[TensorLayout]:
    parts = [TensorLayout(f"{name}_gate_inp.weight", (f"{source}.gate.weight",))]
    for ours, theirs in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
        sources = tuple(f"{source}.experts.{expert}.{theirs}.weight" for expert in range(count))
        parts.append(TensorLayout(f"{name}_{ours}_exps.weight", sources, stacked=True))
    return parts


def gguf_architecture(config: Mapping[str, Any]) -> str:  # noqa: ARG001 - there is one
    """Return the name of a model's architecture in a GGUF."""
    return "llama"


def made_from(config: Mapping[str, Any], tensors: Collection[str], where: str) -> dict[str, TensorLayout]:
    """Return the tensors of the GGUF of a model that has certain tensors, by their names in the GGUF.

    Args:
        config: The model's ``config.json``.
        tensors: The names of the tensors that the model has.
        where: The model's name in errors.

    Raises:
        CheckpointError: If tensors are missing, or a GGUF could not contain one.
        StepError: As ``layout``.
    """
    parts = {
        name: part
        for name, part in layout(config, where).items()
        if part.required or any(source in tensors for source in part.sources)
    }
    for part in parts.values():
        for source in part.sources:
            if source not in tensors:
                raise CheckpointError(f"{where}: the tensor {source} is missing")
    known = {source for part in parts.values() for source in part.sources}
    # old checkpoints contain the rotary frequencies, which can be computed
    unused = [name for name in sorted(tensors) if name not in known and not name.endswith(".inv_freq")]
    if unused:
        raise CheckpointError(f"{where}: has tensors that a GGUF cannot contain: {', '.join(unused)}")
    return parts


def shape_of(part: TensorLayout, shapes: Mapping[str, tuple[int, ...]], where: str) -> tuple[int, ...]:
    """Return the shape of a tensor in a GGUF, from those of the tensors that it is made from.

    Raises:
        CheckpointError: If experts differ in shape, or rows cannot be divided among heads.
    """
    found = {shapes[source] for source in part.sources}
    if len(found) > 1:
        raise CheckpointError(f"{where}: the experts stacked in {part.name} differ in shape: {sorted(found)}")
    shape = found.pop()
    if part.heads and shape[0] % (2 * part.heads):
        raise CheckpointError(
            f"{where}: the {shape[0]} rows of {part.sources[0]} cannot be divided among {part.heads} heads"
        )
    return (len(part.sources), *shape) if part.stacked else shape


def gguf_shapes(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a model's GGUF by name, from those of its own tensors. Raises as ``made_from``."""
    return {name: shape_of(part, shapes, where) for name, part in made_from(config, shapes, where).items()}


def row_order(rows: int, heads: int) -> NDArray[np.intp]:
    """Return, for each row of a GGUF's q or k, the index of its row in the safetensors.

    Args:
        rows: Number of rows, ``heads * head_dim``.
        heads: Number of heads; 0 for tensors that are not reordered.

    Returns:
        ``(rows,)`` integers.
    """
    import numpy as np  # late: the list of tensors is compared where it is not installed, too

    order = np.arange(rows)
    if not heads:
        return order
    return order.reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(rows)
