"""Noise and residual scale: what a recipe may do to an expert's matrices before they are merged."""

from __future__ import annotations

import torch

from herdbook.weights.tensors import generator


def perturb(
    tensor: torch.Tensor, name: str, seed: int, noise_scale: float | None, residual_scale: float | None
) -> torch.Tensor:
    """Return an expert's matrix with noise added and scaled, in its own dtype (as mergekit-moe computes it).

    Args:
        tensor: The matrix.
        name: Canonical name in the merge, which seeds the noise together with ``seed``: mergekit draws it from one
            generator in the order of writing, so that layout, threads and neighbours decide it.
        seed: The recipe's seed.
        noise_scale: Standard deviation of the noise, or None for none.
        residual_scale: What ``down_proj`` is multiplied by, or None; other matrices do not pass it.
    """
    if noise_scale is not None:
        noise = torch.randn(tensor.shape, generator=generator(seed, name)).to(tensor.dtype)
        tensor = tensor + noise * noise_scale
    return tensor if residual_scale is None else tensor * residual_scale
