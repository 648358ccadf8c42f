"""Settings of LoRA adapters, as PEFT reads them."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

Patterns = Literal["rank_pattern", "alpha_pattern"]


def setting_of(
    config: dict[str, Any], patterns: Patterns, default: Literal["r", "lora_alpha"], module: str
) -> float:
    """Return rank or alpha of one module: the value of a pattern that matches its name, or the general one.

    Args:
        config: The adapter's ``adapter_config.json``.
        patterns: The key of the patterns.
        default: The key of the general value.
        module: Dotted name of the module, such as ``model.layers.0.mlp.up_proj``.
    """
    return next(iter(matching(config, patterns, module)), float(config[default]))


def matching(config: dict[str, Any], patterns: Patterns, module: str) -> list[float]:
    """Return the values of all patterns that match a module's name.

    Patterns are regular expressions for the whole name, or for what follows one of its dots.

    Source: PEFT, ``get_pattern_key``.
    """
    values = config.get(patterns) or {}
    return [float(value) for pattern, value in values.items() if re.match(rf"(.*\.)?({pattern})$", module)]


def scale_of(config: dict[str, Any], module: str) -> float:
    """Return the factor of a module's LoRA product: alpha / rank, or alpha / sqrt(rank) with ``use_rslora``.

    Args:
        config: The adapter's ``adapter_config.json``.
        module: Dotted name of the module, such as ``model.layers.0.mlp.up_proj``.

    Source: PEFT's ``LoraConfig``; rank-stabilized scaling: Kalajdzievski 2023, arXiv:2312.03732.
    """
    rank = setting_of(config, "rank_pattern", "r", module)
    alpha = setting_of(config, "alpha_pattern", "lora_alpha", module)
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
