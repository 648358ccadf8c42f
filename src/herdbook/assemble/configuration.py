"""Configurations that are made, not copied."""

from __future__ import annotations

from typing import Any

# Facts of the dense base that a Mixtral's configuration takes over.
KEPT = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "tie_word_embeddings",
    "use_cache",
    "vocab_size",
)


def mixtral_config(base: dict[str, Any], experts: int, experts_per_token: int, dtype: str) -> dict[str, Any]:
    """Return the ``config.json`` of a Mixtral made from a dense base, valid for transformers 4 and 5.

    The rotary base is given as ``rope_theta`` and in ``rope_parameters``, the dtype as ``dtype`` and ``torch_dtype``:
    each line of transformers reads only its own and silently takes the class's default otherwise. The window of
    Mistral's attention is dropped, as Mixtral has none.

    Args:
        base: The base's ``config.json``.
        experts: Number of experts.
        experts_per_token: How many of them a token passes.
        dtype: The weights' dtype, such as ``bfloat16``.
    """
    rope = dict(base.get("rope_parameters") or {})
    theta = rope.get("rope_theta", base.get("rope_theta", 10000.0))
    scaling = base.get("rope_scaling")
    rope = {**(scaling or {"rope_type": "default"}), **rope, "rope_theta": theta}
    return {
        **{key: base[key] for key in KEPT if base.get(key) is not None},
        "architectures": ["MixtralForCausalLM"],
        "dtype": dtype,
        "model_type": "mixtral",
        "num_experts_per_tok": experts_per_token,
        "num_key_value_heads": base.get("num_key_value_heads") or base["num_attention_heads"],
        "num_local_experts": experts,
        "output_router_logits": False,
        "rope_parameters": rope,
        **({"rope_scaling": scaling} if scaling else {}),
        "rope_theta": theta,
        "router_aux_loss_coef": 0.001,
        "router_jitter_noise": 0.0,
        "sliding_window": None,
        "torch_dtype": dtype,
    }
