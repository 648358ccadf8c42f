"""Numbers of parameters, counted from the tensors, by their purpose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.architectures.defaults import head_width, key_value_heads
from herdbook.architectures.mixtures import expert_of, is_router

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BF16_BYTES = 2
F16_BYTES = 2
CONTEXT_TOKENS = (
    4096  # length of the context in the card's memory requirements, of models that were made for as many
)


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters.

    Args:
        attention: In the attention matrices.
        norms: In the norms.
        embeddings: In the token embeddings and the output head.
        mlp: In MLPs that process every token (of a dense model).
        other: In all other tensors.
        routers: In the routers of a Mixture of Experts.
        experts: In each expert's MLPs, by the expert's place.
        experts_per_token: How many experts each token is routed to.
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
        """Parameters that all experts share, without routers."""
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
        """Active parameters: the shared ones, the routers, and the experts that one token is routed to."""
        return self.shared + self.routers + self.experts_per_token * self.expert

    @property
    def bf16_bytes(self) -> int:
        """Memory of the weights in bfloat16, in bytes."""
        return BF16_BYTES * self.total


def count_parameters(tensors: Iterable[tuple[str, Iterable[int]]], experts_per_token: int = 0) -> Counts:
    """Count the parameters of a model.

    Args:
        tensors: Name and shape of each tensor.
        experts_per_token: How many experts each token is routed to; 0 for a dense model.
    """
    counts = dict.fromkeys(("attention", "norms", "embeddings", "mlp", "other", "routers"), 0)
    experts: dict[int, int] = {}
    for name, shape in tensors:
        elements = math.prod(shape)
        if location := expert_of(name):
            experts[location[0]] = experts.get(location[0], 0) + elements
        else:
            counts[_kind(name)] += elements
    return Counts(
        **counts,
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
    """Return the memory of a context's keys and values in float16, in bytes.

    The product of two (keys and values), layers, key-value heads, width of a head, tokens and two bytes. It is zero for models
    without attention, and for types whose counts have other names.
    """
    heads = config.get("num_attention_heads")
    if not heads or not {"hidden_size", "num_hidden_layers"} <= config.keys():
        return 0
    elements = config["num_hidden_layers"] * key_value_heads(config) * head_width(config) * tokens
    return int(2 * elements * F16_BYTES)
