"""Folding LoRA matrices into a weight matrix."""

from __future__ import annotations

import fnmatch
import math
from typing import Any

import torch


def fold(weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, scale: float) -> torch.Tensor:
    """Return ``weight + scale * (lora_b @ lora_a)``, computed in float64 and rounded once.

    Args:
        weight: Shape ``(rows, columns)``.
        lora_a: Shape ``(rank, columns)``.
        lora_b: Shape ``(rows, rank)``.
        scale: See ``scale_of``.

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    """
    product = lora_b.to(torch.float64) @ lora_a.to(torch.float64)
    return (weight.to(torch.float64) + scale * product).to(weight.dtype)


def scale_of(config: dict[str, Any], module: str) -> float:
    """Return the factor of a module's LoRA product: alpha / rank, or alpha / sqrt(rank) with ``use_rslora``.

    Args:
        config: The adapter's ``adapter_config.json``.
        module: Dotted name of the module, such as ``model.layers.0.mlp.up_proj``.

    Source: PEFT's ``LoraConfig``; rank-stabilized scaling: Kalajdzievski 2023, arXiv:2312.03732.
    """
    rank = _pattern(config.get("rank_pattern"), module, config["r"])
    alpha = _pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _pattern(patterns: dict[str, float] | None, module: str, default: float) -> float:
    """Return the value of the first pattern that is ``module`` or ends it at a dot, as PEFT reads them."""
    for pattern, value in (patterns or {}).items():
        if module == pattern or module.endswith(f".{pattern}") or fnmatch.fnmatchcase(module, pattern):
            return value
    return default
