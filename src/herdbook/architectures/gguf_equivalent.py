"""Models whose class llama.cpp's converter does not read, as one of another class that computes the same.

llama.cpp's graph of ``deepseek`` leaves the weights of the chosen experts as they are, while the mixtures of family ``deepseek`` that
Herdbook makes divide them by their sum. Without a shared expert, that is a Mixtral. With one, whose output is added as it is, that is
a GraniteMoeShared whose multipliers change nothing: llama.cpp's graph of ``granitemoe`` is that of ``llama`` with a shared expert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.architectures.defaults import head_width, key_value_heads, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# Settings of DeepSeek's class that the others do not have, or have under another name.
_OWN = (
    *("auto_map", "first_k_dense_replace", "moe_intermediate_size", "moe_layer_freq", "n_routed_experts"),
    *("n_shared_experts", "norm_topk_prob", "routed_scaling_factor", "scoring_func", "sliding_window"),
)
# Settings whose defaults the classes do not share.
_STATED = (
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
)


def as_converted(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``config.json`` that llama.cpp's converter is given in place of a model's, and that its header follows from.

    Args:
        config: The model's ``config.json``, of a form that is converted.
    """
    architecture = (config.get("architectures") or [""])[0]
    if architecture == "CohereForCausalLM" and (length := config.get("model_max_length")):
        return {
            **config,
            "max_position_embeddings": length,
        }  # as the converter does; the other is what it was pretrained for
    if architecture != "DeepseekForCausalLM":
        return dict(config)
    converted = {key: value for key, value in config.items() if key not in _OWN}
    converted |= {key: value_of(config, key) for key in _STATED}
    if not config.get("rope_theta") and not (config.get("rope_parameters") or {}).get("rope_theta"):
        converted["rope_theta"] = value_of(config, "rope_theta")
    width = config["moe_intermediate_size"]
    converted |= {
        "num_key_value_heads": key_value_heads(config),
        "num_local_experts": config["n_routed_experts"],
        "intermediate_size": width,
    }
    if not (shared := config.get("n_shared_experts")):
        return converted | {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
    return converted | {
        "architectures": ["GraniteMoeSharedForCausalLM"],
        "model_type": "granitemoeshared",
        "shared_intermediate_size": shared * width,
        "attention_multiplier": head_width(config) ** -0.5,
        **dict.fromkeys(("embedding_multiplier", "logits_scaling", "residual_multiplier"), 1.0),
    }
