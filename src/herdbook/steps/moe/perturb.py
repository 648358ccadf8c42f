"""Noise and residual scale: the changes that a recipe may make to an expert's matrices."""

from __future__ import annotations

import torch

from herdbook.weights.tensors import generator


def perturb(
    tensor: torch.Tensor, name: str, seed: int, noise_scale: float | None, residual_scale: float | None
) -> torch.Tensor:
    """Add noise to an expert's matrix and scale it, in its own dtype, as mergekit-moe does.

    Args:
        tensor: The matrix.
        name: Canonical name in the mixture, which seeds the noise together with ``seed``. mergekit draws from one
            generator in the order of writing, so that its noise depends on layout, threads and neighbors.
        seed: The recipe's seed.
        noise_scale: Standard deviation of the noise; None for no noise.
        residual_scale: Factor of a ``down_proj``; None for no factor, and for all other matrices.
    """
    if noise_scale is not None:
        noise = torch.randn(tensor.shape, generator=generator(seed, name)).to(tensor.dtype)
        tensor = tensor + noise * noise_scale
    return tensor if residual_scale is None else tensor * residual_scale
