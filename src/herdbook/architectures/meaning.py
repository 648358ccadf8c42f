"""What decides the meaning of a matrix besides its shape: two models of equal shapes can compute different functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import rope_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# Defaults of transformers for Llama, Mistral and Qwen.
ACTIVATION = "silu"
EPSILON = 1e-6
SAME_ACTIVATION = {"swish": "silu"}


def is_tied(config: Mapping[str, Any]) -> bool:
    """Return whether the output head is the embeddings. A head that is stored all the same is not read by transformers."""
    return bool(config.get("tie_word_embeddings", False))


def differences(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the settings in which a model differs from another one, so that their matrices mean different things.

    Args:
        config: The ``config.json`` of the one.
        other: That of the other.

    Returns:
        A phrase for each difference, such as ``a norm epsilon of 1e-05, not 1e-06``.
    """
    mine, theirs = _settings(config), _settings(other)
    return [
        f"{name} of {mine[name]}, not {theirs[name]}"
        for name in mine
        if name in theirs and mine[name] != theirs[name]
    ]


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    activation = config.get("hidden_act") or ACTIVATION
    heads = config.get("num_attention_heads")
    theta, scaling = rope_of(dict(config))
    scaled = ""
    if scaling:
        scaling = {"rope_type": scaling.get("type"), **scaling}
        settings = [
            f"{key} {value:g}" if isinstance(value, int | float) else f"{key} {value}"
            for key, value in sorted(scaling.items())
            if key != "type"
        ]
        scaled = f", scaled by {', '.join(settings)}"
    return {
        "a number of attention heads": heads,
        "a number of key and value heads": config.get("num_key_value_heads") or heads,
        "an activation": SAME_ACTIVATION.get(activation, activation),
        "a norm epsilon": config.get("rms_norm_eps", EPSILON),
        "rotary embeddings": f"base {theta:g}{scaled}",
    }
