"""Configurations that are made, not copied: those of Mixtures of Experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.architectures.defaults import default_of, head_width, key_value_heads, value_of
from herdbook.architectures.dense import rope_of
from herdbook.architectures.mixtures import kept_window

if TYPE_CHECKING:
    from herdbook.architectures.mixtures import Family

# Facts of the dense base that a mixture's configuration takes over.
KEPT = (
    "attention_dropout",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "rms_norm_eps",
    "tie_word_embeddings",
    "use_cache",
    "vocab_size",
)
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def mixture_config(
    family: Family,
    base: dict[str, Any],
    *,
    experts: int,
    experts_per_token: int,
    shared: int,
    dtype: str,
    keep_window: bool,
    tokens_from: dict[str, Any],
) -> dict[str, Any]:
    """Return the ``config.json`` of a mixture made from a dense base, valid for transformers 4 and 5.

    The rotary base is given as ``rope_theta`` and in ``rope_parameters``, the dtype as ``dtype`` and ``torch_dtype``:
    each major version of transformers reads only its own name and silently falls back to the class's default. No code
    from a repository is referenced (``auto_map``).

    Args:
        family: The mixture's family.
        base: The base's ``config.json``.
        experts: Number of routed experts.
        experts_per_token: How many of them each token is routed to.
        shared: Number of shared experts.
        dtype: The weights' dtype, such as ``bfloat16``.
        keep_window: Whether the base's sliding window is kept, if the family supports one.
        tokens_from: The ``config.json`` that names the tokens which begin, end and pad a sequence.
    """
    theta, scaling = rope_of(base)
    window = kept_window(family, base) if keep_window else None
    config = {
        **_stated(base, KEPT, family.model_type),
        **_stated(tokens_from, SPECIAL_TOKENS, family.model_type),
        **family.settings,
        **dict(zip(family.counts, (experts, shared or None), strict=False)),
        **dict.fromkeys(family.widths, base["intermediate_size"]),
        "architectures": [family.architecture],
        "dtype": dtype,
        "model_type": family.model_type,
        "num_experts_per_tok": experts_per_token,
        "num_key_value_heads": key_value_heads(base),
        "rope_parameters": {**(scaling or {"rope_type": "default"}), "rope_theta": theta},
        **({"rope_scaling": scaling} if scaling else {}),
        "rope_theta": theta,
        "torch_dtype": dtype,
    }
    if (
        scaling and "head_dim" not in config
    ):  # for some ways to scale, Mixtral's class reads the width from here alone
        config["head_dim"] = head_width(base)
    if "o_proj" in family.biases:
        config["attention_bias"] = bool(base.get("attention_bias"))
    if family.window:
        config["sliding_window"] = window
    if family.name == "qwen3":
        config["use_sliding_window"] = window is not None
        if window:
            config |= {key: base[key] for key in ("layer_types", "max_window_layers") if key in base}
    return config


def _stated(config: dict[str, Any], keys: tuple[str, ...], model_type: str) -> dict[str, Any]:
    """Return the settings of a model that a configuration of another type must state: its own, and defaults that differ."""
    missing = [key for key in keys if key not in config]
    kind = config.get("model_type")
    return {key: config[key] for key in keys if config.get(key) is not None} | {
        key: value_of(config, key)
        for key in missing
        if default_of(kind, key) not in {None, default_of(model_type, key)}
    }
