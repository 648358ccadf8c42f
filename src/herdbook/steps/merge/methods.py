"""Merge methods: how the tensors with one name in several models become one.

Sums over a whole tensor are computed in float64 and in a fixed order, everything else in float32. The caller limits torch
to one thread, so that the result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from herdbook.weights.tensors import generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Tensors = Sequence[torch.Tensor]

PARALLEL = 0.9995  # cosine beyond which an arc is approximated by a line
PIECE = 1 << 22
TINY = 1e-8


def merge_tensors(
    method: str, inputs: Tensors, name: str, values: Mapping[str, Any], settings: Mapping[str, Any]
) -> torch.Tensor:
    """Return the merged tensor in float32.

    Args:
        method: A method of the recipe.
        inputs: The tensors of all models, of one shape, any floating-point dtype; the base first, if any.
        name: The tensor's name, which seeds random numbers.
        values: The parameters of this tensor: ``weights``, ``densities``, ``scale``, ``t``.
        settings: The settings of the method: ``normalize``, ``rescale``, ``filter_wise``, ``seed``.
    """
    if method == "linear":
        return linear(inputs, values["weights"], normalize=settings["normalize"])
    if method == "slerp":
        return slerp(inputs[0], inputs[1], values["t"])
    if method == "model_stock":
        return model_stock(inputs[0], inputs[1:], by_row=settings.get("filter_wise", False))
    if method == "passthrough":
        return inputs[0].float() * values["scale"]
    base = inputs[0].float()
    deltas = [tensor.float() - base for tensor in inputs[1:]]
    if method == "ties":
        deltas = [
            trim(delta, density, rescale=settings.get("rescale", False))
            for delta, density in zip(deltas, values["densities"], strict=True)
        ]
    if method in {"dare_linear", "dare_ties"}:
        deltas = [
            drop(delta, density, f"{name}:{index}", settings["seed"], rescale=settings["rescale"])
            for index, (delta, density) in enumerate(zip(deltas, values["densities"], strict=True))
        ]
    join = consensus if method in {"ties", "dare_ties"} else task_sum
    return base + values["scale"] * join(deltas, values["weights"], normalize=settings["normalize"])


def linear(inputs: Tensors, weights: Sequence[float], *, normalize: bool) -> torch.Tensor:
    """Return the weighted sum, with ``normalize`` divided by the sum of the weights.

    Source: Wortsman et al. 2022, arXiv:2203.05482.
    """
    total = torch.zeros(inputs[0].shape)
    for tensor, weight in zip(inputs, weights, strict=True):
        total += weight * tensor.float()
    return total / _divisor(sum(weights)) if normalize else total


def slerp(start: torch.Tensor, end: torch.Tensor, t: float) -> torch.Tensor:
    """Return the point at ``t`` on the great circle from ``start`` to ``end``, which are treated as vectors.

    The angle is the one between their directions; if it is nearly zero, or a tensor is zero, the straight line is used.

    Source: Shoemake 1985, "Animating rotation with quaternion curves", section 3.3.
    """
    start, end = start.float(), end.float()
    lengths = math.sqrt(_dot(start, start)), math.sqrt(_dot(end, end))
    cosine = _dot(start, end) / (lengths[0] * lengths[1]) if min(lengths) > TINY else 1.0
    if abs(cosine) > PARALLEL:
        return start * (1 - t) + end * t
    angle = math.acos(cosine)
    return start * (math.sin((1 - t) * angle) / math.sin(angle)) + end * (
        math.sin(t * angle) / math.sin(angle)
    )


def model_stock(base: torch.Tensor, inputs: Tensors, *, by_row: bool = False) -> torch.Tensor:
    """Return the point between the base and the mean of its fine-tunes that is nearest to the center of such models.

    With N fine-tunes and the mean cosine c of the angles between their task vectors, the mean has the share
    ``N c / (1 + (N - 1) c)``. Where that is undefined, the base is returned. With ``by_row``, each row is such a vector.

    Source: Jang et al. 2024, arXiv:2403.19522, section 4.
    """
    if by_row and base.dim() > 1:
        rows = zip(base, *inputs, strict=True)
        return torch.stack([model_stock(row, others) for row, *others in rows])
    base = base.float()
    deltas = [tensor.float() - base for tensor in inputs]
    count = len(deltas)
    lengths = [math.sqrt(_dot(delta, delta)) for delta in deltas]
    cosines = [
        _dot(deltas[i], deltas[j]) / max(lengths[i] * lengths[j], TINY**2)
        for i in range(count)
        for j in range(i + 1, count)
    ]
    cosine = sum(cosines) / len(cosines)
    divisor = 1 + (count - 1) * cosine
    share = count * cosine / divisor if abs(divisor) > 1e-6 else 0.0
    total = torch.zeros_like(base)
    for delta in deltas:
        total += delta
    return base + total * (share / count)


def trim(delta: torch.Tensor, density: float, *, rescale: bool = False) -> torch.Tensor:
    """Return a task vector with its elements of smallest magnitude set to zero; ties with the last kept one are kept.

    With ``rescale``, the kept elements are multiplied so that the sum of magnitudes is that of the whole vector, as in mergekit.

    Source: Yadav et al. 2023, arXiv:2306.01708, section 3.2, "Trim"; by tensor, not over the whole model.
    """
    kept = max(1, round(density * delta.numel()))
    if kept >= delta.numel():
        return delta
    sizes = delta.abs().reshape(-1)
    threshold = sizes.kthvalue(delta.numel() - kept + 1).values
    trimmed = torch.where(delta.abs() >= threshold, delta, 0.0)
    left = _size(trimmed) if rescale else 0.0
    return trimmed * (_size(delta) / left) if left > TINY else trimmed


def drop(delta: torch.Tensor, density: float, name: str, seed: int, *, rescale: bool) -> torch.Tensor:
    """Keep each element of a task vector with probability ``density``, with ``rescale`` divided by the density.

    Source: Yu et al. 2023, arXiv:2311.03099, section 3.2.
    """
    if density >= 1:
        return delta
    kept = torch.rand(delta.shape, generator=generator(seed, name)) < density
    return torch.where(kept, delta / density if rescale else delta, 0.0)


def task_sum(deltas: Tensors, weights: Sequence[float], *, normalize: bool) -> torch.Tensor:
    """Return the weighted sum of task vectors, with ``normalize`` divided by the sum of the weights.

    Source: Ilharco et al. 2022, arXiv:2212.04089, section 2.
    """
    return linear(deltas, weights, normalize=normalize)


def consensus(deltas: Tensors, weights: Sequence[float], *, normalize: bool) -> torch.Tensor:
    """Return the sum of the weighted elements that have the sign of the whole sum, with ``normalize`` divided by their weights.

    Elements that are zero are ignored.

    Source: Yadav et al. 2023, arXiv:2306.01708, section 3.2, "Elect" and "Disjoint merge".
    """
    elected = torch.sign(linear(deltas, weights, normalize=False))
    total, divisor = torch.zeros_like(elected), torch.zeros_like(elected)
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = (torch.sign(delta * weight) == elected) & (elected != 0)
        total += torch.where(agrees, delta * weight, 0.0)
        divisor += agrees * weight
    if not normalize:
        return total
    return total / torch.where(divisor.abs() < TINY, 1.0, divisor)


def _dot(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return the inner product in float64, piece by piece."""
    pairs = zip(left.reshape(-1).split(PIECE), right.reshape(-1).split(PIECE), strict=True)
    return math.fsum(float(torch.dot(a.double(), b.double())) for a, b in pairs)


def _size(tensor: torch.Tensor) -> float:
    """Return the sum of magnitudes in float64, piece by piece."""
    return math.fsum(float(piece.double().abs().sum()) for piece in tensor.reshape(-1).split(PIECE))


def _divisor(total: float) -> float:
    return total if abs(total) > TINY else 1.0
