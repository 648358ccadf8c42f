"""Parameters, counted from the tensors by what they do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.architectures.mixtures import expert_of, is_router

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BF16_BYTES = 2
F16_BYTES = 2
CONTEXT_TOKENS = 4096  # length of the context that the card's figures of memory allow for


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters.

    Args:
        attention: In the attention matrices.
        norms: In the norms.
        embeddings: In the token embeddings and the output head.
        mlp: In MLPs that every token passes (of a dense model).
        other: In whatever else there is.
        routers: In the routers of a Mixture of Experts.
        experts: In each expert's MLPs, by the expert's place.
        experts_per_token: How many experts a token passes.
    """

    attention: int = 0
    norms: int = 0
    embeddings: int = 0
    mlp: int = 0
    other: int = 0
    routers: int = 0
    experts: tuple[int, ...] = ()
    experts_per_token: int = 0

    @property
    def shared(self) -> int:
        """Parameters that all experts have in common; routers not counted."""
        return self.attention + self.norms + self.embeddings + self.mlp + self.other

    @property
    def total(self) -> int:
        """All parameters."""
        return self.shared + self.routers + sum(self.experts)

    @property
    def expert(self) -> int:
        """Parameters of one expert's MLPs in all layers (all experts have the same shapes)."""
        return max(self.experts, default=0)

    @property
    def active(self) -> int:
        """Parameters that one token passes: all that is shared, the routers, and as many experts as are chosen."""
        return self.shared + self.routers + self.experts_per_token * self.expert

    @property
    def bf16_bytes(self) -> int:
        """Memory of the weights in bfloat16, in bytes."""
        return BF16_BYTES * self.total


def count_parameters(tensors: Iterable[tuple[str, Iterable[int]]], experts_per_token: int = 0) -> Counts:
    """Count the parameters of a model.

    Args:
        tensors: Name and shape of each tensor.
        experts_per_token: How many experts a token passes; 0 for a dense model.
    """
    found = dict.fromkeys(("attention", "norms", "embeddings", "mlp", "other", "routers"), 0)
    experts: dict[int, int] = {}
    for name, shape in tensors:
        elements = math.prod(shape)
        if found_in := expert_of(name):
            experts[found_in[0]] = experts.get(found_in[0], 0) + elements
        else:
            found[_kind(name)] += elements
    return Counts(
        **found,
        experts=tuple(experts[place] for place in sorted(experts)),
        experts_per_token=experts_per_token,
    )


def _kind(name: str) -> str:
    if is_router(name):
        return "routers"
    if ".self_attn." in name:
        return "attention"
    if "norm" in name:
        return "norms"
    if "embed_tokens" in name or name.startswith("lm_head."):
        return "embeddings"
    return "mlp" if ".mlp." in name else "other"


def context_bytes(config: Mapping[str, Any], tokens: int = CONTEXT_TOKENS) -> int:
    """Return the memory that keys and values of a context take in float16, in bytes.

    Two (keys and values) times layers, key-value heads, width of a head, tokens and two bytes.
    """
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    kv_heads = config.get("num_key_value_heads") or heads
    return int(2 * config["num_hidden_layers"] * kv_heads * width * tokens * F16_BYTES)
