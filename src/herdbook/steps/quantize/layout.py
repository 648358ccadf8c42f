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
from herdbook.architectures.defaults import key_value_heads
from herdbook.errors import CheckpointError, StepError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    kv_heads = key_value_heads(config)
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
