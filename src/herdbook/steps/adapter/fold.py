"""Folding LoRA matrices into a weight matrix."""

from __future__ import annotations

import torch


def fold(
    weight: torch.Tensor,
    lora_a: torch.Tensor,
    lora_b: torch.Tensor,
    scale: float,
    magnitude: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return ``weight + scale * (lora_b @ lora_a)`` in float64; with a magnitude (DoRA), its rows get these norms.

    Args:
        weight: Shape ``(rows, columns)``; of an embedding, its transpose.
        lora_a: Shape ``(rank, columns)``.
        lora_b: Shape ``(rows, rank)``.
        scale: See ``scale_of``.
        magnitude: Shape ``(rows,)``.

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1; DoRA: Liu et al. 2024, arXiv:2402.09353, equation 5.
    """
    product = lora_b.to(torch.float64) @ lora_a.to(torch.float64)
    folded = weight.to(torch.float64) + scale * product
    if magnitude is None:
        return folded
    return folded * (magnitude.to(torch.float64) / torch.linalg.vector_norm(folded, dim=1)).unsqueeze(1)
