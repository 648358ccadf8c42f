"""Families of Mixtures of Experts: how each names its tensors, what it can hold, and what its configuration says.

A family is a row of a table. What a mixture is (base, experts, routers) is told by canonical tensor names; the fused
layout of transformers 5 is another rendering of the same tensors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FamilyName = Literal["mixtral", "qwen2", "qwen3", "deepseek"]
Place = int | Literal["shared"]
MLP = ("gate_proj", "up_proj", "down_proj")  # the matrices of a dense MLP, in the order of fused tensors
OWN_NAMES = {matrix: matrix for matrix in MLP}
MISTRAL_WINDOW = 4096  # what transformers takes where a Mistral's config.json says nothing

_EXPERT = re.compile(r"\.(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(.+)$")
_ROUTER = re.compile(r"\.(?:block_sparse_moe|mlp)\.(?:gate|shared_expert_gate)\.weight$")


@dataclass(frozen=True)
class Family:
    """One kind of Mixture of Experts.

    Args:
        name: What recipes call it.
        architecture: The class in ``config.json``.
        model_type: Its type there.
        sources: Types of dense models whose attention and MLPs it can hold.
        block: Name of the mixture inside a layer.
        matrices: What the matrices of a dense MLP are called in an expert.
        shared: Name of the shared expert inside the block, if it has one.
        shared_counts: How many shared experts it may have.
        shared_gate: Whether the shared expert has a gate of its own.
        biases: Projections of the attention whose biases it can hold.
        needs_biases: Whether the class has all these biases always; missing ones are written as zeros.
        window: Whether its attention can have a sliding window.
        fused: Whether transformers 5 holds its experts as fused tensors, which can be written, too.
        convertible: Whether a GGUF can be made of it and derived again.
        loadable: Whether transformers has its class, so that it can be measured without code of others.
        counts: Keys of ``config.json`` for the number of experts and of shared experts.
        widths: Keys for the width of an expert.
        settings: What else ``config.json`` says, the same for all.
    """

    name: FamilyName
    architecture: str
    model_type: str
    sources: tuple[str, ...]
    block: str
    matrices: Mapping[str, str] = field(default_factory=lambda: OWN_NAMES, hash=False)
    shared: str | None = None
    shared_counts: tuple[int, ...] = (0,)
    shared_gate: bool = False
    biases: tuple[str, ...] = ()
    needs_biases: bool = False
    window: bool = True
    fused: bool = True
    convertible: bool = False
    loadable: bool = True
    counts: tuple[str, ...] = ("num_experts",)
    widths: tuple[str, ...] = ("moe_intermediate_size",)
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def expert(self, layer: int, place: Place, matrix: str) -> str:
        """Return the canonical name of an expert's matrix (``place`` from 0, or ``shared``)."""
        inside = self.shared if place == "shared" else f"experts.{place}"
        return f"model.layers.{layer}.{self.block}.{inside}.{self.matrices[matrix]}.weight"

    def router(self, layer: int, *, fused: bool = False) -> str:
        """Return the name of a layer's router."""
        return f"model.layers.{layer}.{'mlp' if fused else self.block}.gate.weight"

    def shared_router(self, layer: int) -> str:
        """Return the name of the gate of a layer's shared expert."""
        return f"model.layers.{layer}.{self.block}.shared_expert_gate.weight"


_SPARSE = {
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
}
# In the order in which one is chosen that fits, if the recipe names none.
FAMILIES: dict[FamilyName, Family] = {
    family.name: family
    for family in (
        Family(
            "mixtral",
            "MixtralForCausalLM",
            "mixtral",
            ("llama", "mistral"),
            "block_sparse_moe",
            {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"},
            counts=("num_local_experts",),
            widths=(),
            convertible=True,
            settings={
                "output_router_logits": False,
                "router_aux_loss_coef": 0.001,
                "router_jitter_noise": 0.0,
            },
        ),
        Family(
            "deepseek",
            "DeepseekForCausalLM",
            "deepseek",
            ("llama", "mistral"),
            "mlp",
            shared="shared_experts",
            shared_counts=(0, 1),
            biases=("q_proj", "k_proj", "v_proj", "o_proj"),
            window=False,
            fused=False,
            loadable=False,
            counts=("n_routed_experts", "n_shared_experts"),
            settings={
                "first_k_dense_replace": 0,
                "moe_layer_freq": 1,
                "norm_topk_prob": True,
                "scoring_func": "softmax",
            },
        ),
        Family(
            "qwen2",
            "Qwen2MoeForCausalLM",
            "qwen2_moe",
            ("llama", "mistral", "qwen2"),
            "mlp",
            shared="shared_expert",
            shared_counts=(1,),
            shared_gate=True,
            biases=("q_proj", "k_proj", "v_proj"),
            needs_biases=True,
            widths=("moe_intermediate_size", "shared_expert_intermediate_size"),
            settings=_SPARSE,
        ),
        Family(
            "qwen3",
            "Qwen3MoeForCausalLM",
            "qwen3_moe",
            ("qwen3",),
            "mlp",
            biases=("q_proj", "k_proj", "v_proj", "o_proj"),
            settings=_SPARSE,
        ),
    )
}
BY_MODEL_TYPE = {family.model_type: family for family in FAMILIES.values()}


def expert_of(name: str) -> tuple[int, str] | None:
    """Return the place of the routed expert that a canonical tensor belongs to, and its name without it; else None."""
    found = _EXPERT.search(name)
    return (int(found[1]), f"{name[: found.start()]}.{found[2]}") if found else None


def is_router(name: str) -> bool:
    """Say whether a tensor is a router, or the gate of a shared expert."""
    return _ROUTER.search(name) is not None


def window_of(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a dense model's attention sees back, or None if all of them."""
    kind = config.get("model_type")
    if kind == "mistral":
        window = config.get("sliding_window", MISTRAL_WINDOW)
    else:
        window = (
            config.get("sliding_window") if kind != "llama" and config.get("use_sliding_window") else None
        )
    return int(window) if window and window < config.get("max_position_embeddings", window + 1) else None


def fitting(model_type: str, shared: int, names: Iterable[FamilyName] = FAMILIES) -> Family | None:
    """Return the first family that can hold models of a type with so many shared experts."""
    return next(
        (
            FAMILIES[name]
            for name in names
            if model_type in FAMILIES[name].sources and shared in FAMILIES[name].shared_counts
        ),
        None,
    )
