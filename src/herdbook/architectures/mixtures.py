"""Families of Mixtures of Experts: their tensor names, the dense models that fit into them, and their configurations.

A family is a row of a table. The parts of a mixture (base, experts, routers) are identified by canonical tensor names; the
fused layout of transformers 5 is another representation of the same tensors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from herdbook.architectures.defaults import default_of, value_of
from herdbook.architectures.layers import SLIDING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FamilyName = Literal["mixtral", "qwen2", "qwen3", "deepseek"]
Place = int | Literal["shared"]
MLP = ("gate_proj", "up_proj", "down_proj")  # the matrices of a dense MLP, in the order of fused tensors
WINDOWLESS = frozenset({"llama", "deepseek"})
OWN_NAMES = {matrix: matrix for matrix in MLP}

_EXPERT = re.compile(r"\.(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(.+)$")
_ROUTER = re.compile(r"\.(?:block_sparse_moe|mlp)\.(?:gate|shared_expert_gate)\.weight$")


@dataclass(frozen=True)
class Family:
    """One kind of Mixture of Experts.

    Args:
        name: Its name in recipes.
        architecture: Its class in ``config.json``.
        model_type: Its ``model_type`` in ``config.json``.
        sources: Model types of dense models whose attention and MLPs fit into it.
        block: Name of the mixture inside a layer.
        matrices: Names in an expert of the matrices of a dense MLP.
        shared: Name of the shared expert inside the block, if it has one.
        shared_counts: How many shared experts it may have.
        shared_gate: Whether the shared expert has a gate of its own.
        biases: Projections of the attention that can have biases.
        needs_biases: Whether all these biases are required; missing ones are written as zeros.
        window: Whether its attention can have a sliding window, which all layers have then.
        fused: Whether transformers 5 stores its experts as fused tensors; these can be written, too.
        loadable: Whether transformers has its class, so that it can be measured without code from elsewhere.
        counts: Keys of ``config.json`` for the number of experts and of shared experts.
        widths: Keys of ``config.json`` for the width of an expert.
        settings: Other entries of ``config.json``, the same for all models of the family.
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
# In order of preference: if the recipe names no family, the first that fits is chosen.
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
            window=False,  # its layers have one by rules that differ from a dense model's, and between versions of transformers
            widths=("moe_intermediate_size", "shared_expert_intermediate_size"),
            settings={**_SPARSE, "sliding_window": None, "use_sliding_window": False},
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
    """Return the routed expert that a canonical tensor belongs to, from 0, and the tensor's name without the expert.

    None if it does not belong to a routed expert.
    """
    match = _EXPERT.search(name)
    return (int(match[1]), f"{name[: match.start()]}.{match[2]}") if match else None


def is_router(name: str) -> bool:
    """Return whether a tensor is a router, or the gate of a shared expert."""
    return _ROUTER.search(name) is not None


def window_of(config: Mapping[str, Any]) -> int | None:
    """Return the sliding window of a model's attention in tokens; None if it has none, or its context is shorter."""
    kind = config.get("model_type")
    is_off = default_of(kind, "use_sliding_window") is False and not config.get("use_sliding_window")
    if kind in WINDOWLESS or is_off:
        return None
    window, context = (value_of(config, key) for key in ("sliding_window", "max_position_embeddings"))
    return int(window) if window and (context is None or window < context) else None


def leftover_window(config: Mapping[str, Any]) -> int | None:
    """Return a sliding window that a type without one has all the same, by which transformers cuts its cache; None if there is none."""
    window, context = config.get("sliding_window"), value_of(config, "max_position_embeddings")
    if config.get("model_type") not in WINDOWLESS or config.get("layer_types") or not window:
        return None
    return int(window) if context is None or window < context else None


def kept_window(family: Family, base: Mapping[str, Any]) -> int | None:
    """Return the sliding window that a mixture of a base can keep: of a base, some layers may have none; of a mixture, all have it."""
    kinds = base.get("layer_types")
    if kinds:
        everywhere = set(kinds) == {SLIDING}
    else:
        everywhere = default_of(base["model_type"], "max_window_layers") is None or not value_of(
            base, "max_window_layers"
        )
    return window_of(base) if family.window and everywhere else None


def fitting(model_type: str, shared: int, names: Iterable[FamilyName] = FAMILIES) -> Family | None:
    """Return the first family for dense models of a type and a number of shared experts; None if no family fits."""
    return next(
        (
            FAMILIES[name]
            for name in names
            if model_type in FAMILIES[name].sources and shared in FAMILIES[name].shared_counts
        ),
        None,
    )
