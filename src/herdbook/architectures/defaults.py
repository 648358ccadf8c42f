"""What transformers takes where a model's ``config.json`` lacks a setting: other values for each type of model.

A test holds every value against the configuration classes of both lines of transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHARED = {
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "tie_word_embeddings": False,
}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2}
# A Qwen has a window only if `use_sliding_window` is on.
_QWEN = {**_SHARED, "sliding_window": 4096, "use_sliding_window": False}
_GEMMA = {
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 256,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
# Of the settings that are read here; where a type has none, none can be missing. For DeepSeek, which transformers does not have:
# the code in deepseek-ai/deepseek-moe-16b-base.
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {**_SHARED, **_ENDS, "max_position_embeddings": 2048},
    "mistral": {
        **_SHARED,
        **_ENDS,
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "mixtral": {
        **_SHARED,
        **_ENDS,
        "max_position_embeddings": 131072,
        "num_experts_per_tok": 2,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
    },
    "qwen2": {**_QWEN, "max_window_layers": 28, "num_key_value_heads": 32},
    "qwen3": {**_QWEN, "head_dim": 128, "max_window_layers": 28, "num_key_value_heads": 32},
    "qwen2_moe": {
        **_QWEN,
        "max_window_layers": 28,
        "norm_topk_prob": False,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 4,
        "num_key_value_heads": 16,
        "shared_expert_intermediate_size": 5632,
    },
    "qwen3_moe": {
        **_QWEN,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
        "num_experts_per_tok": 8,
        "num_key_value_heads": 4,
    },
    "smollm3": {
        **_SHARED,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "num_key_value_heads": 4,
        "rope_theta": 2e6,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        **_GEMMA,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 8192,
    },
    "gemma3_text": {
        **_GEMMA,
        "max_position_embeddings": 131072,
        "rope_local_base_freq": 1e4,
        "rope_theta": 1e6,
    },
    "deepseek": {
        **_SHARED,
        "norm_topk_prob": False,
        "scoring_func": "softmax",
        "bos_token_id": 100000,
        "eos_token_id": 100001,
        "max_position_embeddings": 2048,
    },
}


def default_of(kind: object, key: str) -> Any:
    """Return what transformers takes for a setting of a type of model; None if it takes nothing, or the type is not known."""
    return DEFAULTS.get(kind, {}).get(key) if isinstance(kind, str) else None


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """Return a setting as transformers reads it: null is null, and what is missing has the default of the model's type."""
    return config[key] if key in config else default_of(config.get("model_type"), key)


def key_value_heads(config: Mapping[str, Any]) -> int:
    """Return the number of key and value heads: as many as there are heads where a type has no other default, or it is null."""
    return int(value_of(config, "num_key_value_heads") or config["num_attention_heads"])


def head_width(config: Mapping[str, Any]) -> int:
    """Return the width of a head: the hidden size, divided by the heads, where a type has no other default, or it is null."""
    return int(value_of(config, "head_dim") or config["hidden_size"] // config["num_attention_heads"])
