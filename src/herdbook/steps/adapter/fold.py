"""Folding LoRA matrices into a weight matrix."""

from __future__ import annotations

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
