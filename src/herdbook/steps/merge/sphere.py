"""Means on a sphere as mergekit computes them: of two models along an arc, of several in a tangent space.

As in ``as_mergekit``, which calls these, each formula takes the operations of torch that mergekit takes, in its order.

Source: mergekit 0.1.5, ``merge_methods``; tests compare the bits with those of the installed mergekit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Tensors = Sequence[torch.Tensor]
    Values = Mapping[str, Any]

PARALLEL = 0.9995  # cosine beyond which slerp takes the straight line
PIECE = 1 << 20  # elements that slerp adds up at a time


def work_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Return the dtype that mergekit computes in: float32, or float64 for tensors of that dtype."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def slerp(start: torch.Tensor, end: torch.Tensor, share: float) -> torch.Tensor:
    """The angle is that between the directions; norms and inner product are summed piece by piece."""
    dtype = work_dtype(start)
    t = torch.tensor([[share]], dtype=dtype)
    pieces = [
        [piece.to(dtype) for piece in tensor.reshape(1, -1).split(PIECE, dim=1)] for tensor in (start, end)
    ]
    norms = []
    for side in pieces:
        parts = torch.stack([torch.linalg.vector_norm(piece, dim=1, keepdim=True) for piece in side])
        norm = torch.linalg.vector_norm(parts, dim=0)
        norms.append(torch.where(norm > 1e-8, norm, 1))
    dots = [
        ((one / norms[0]) * (other / norms[1])).sum(dim=1, keepdim=True)
        for one, other in zip(*pieces, strict=True)
    ]
    dot = torch.stack(dots).sum(dim=0).clamp(-1, 1)
    straight = dot.abs() > PARALLEL
    angle = torch.acos(torch.where(straight, 0, dot))
    sine = torch.sin(angle)
    first = torch.where(straight, 1 - t, torch.sin((1 - t) * angle) / sine)
    second = torch.where(straight, t, torch.sin(t * angle) / sine)
    made = [(first * one + second * other).to(start.dtype) for one, other in zip(*pieces, strict=True)]
    return torch.cat(made, dim=1).reshape(start.shape)


def nuslerp(inputs: Tensors, values: Values) -> torch.Tensor:
    """Interpolate two models, or their task vectors with a base, as whole tensors, by row or by column."""
    *bases, one, other = inputs
    weights = values["weights"]
    total = sum(weights)
    t = 0.5 if abs(total) < 1e-6 else weights[1] / total
    if bases:
        one, other = one - bases[0], other - bases[0]
    if values["nuslerp_flatten"]:
        made = _arc(t, one.reshape(-1), other.reshape(-1)).reshape(one.shape)
    elif values["nuslerp_row_wise"]:
        made = _arc(t, one.transpose(0, -1), other.transpose(0, -1)).transpose(0, -1)
    else:
        made = _arc(t, one, other)
    return bases[0] + made if bases else made


def _arc(t: float, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    units = [tensor / torch.norm(tensor, dim=-1, keepdim=True).clamp(min=1e-7) for tensor in (one, other)]
    cosine = torch.sum(units[0] * units[1], dim=-1, keepdim=True).clamp(-1, 1)
    straight = (1 - cosine.square()) <= 1e-8**2
    angle = torch.acos(torch.where(straight, 0, cosine))
    bent = (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * other) / torch.sin(angle)
    return torch.where(straight, (1 - t) * one + t * other, bent)


def karcher(inputs: Tensors, steps: int, tolerance: float) -> torch.Tensor:
    """The mean of the directions on the sphere, by steps along its tangent; the length is the mean of the lengths."""
    if len(inputs) == 1:
        return inputs[0]
    dtype = work_dtype(inputs[0])

    def length(tensor: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(tensor.to(dtype))

    def unit(tensor: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        return (tensor / norm).to(tensor.dtype)

    norms = [length(tensor) for tensor in inputs]
    kept = [unit(tensor, norm) for tensor, norm in zip(inputs, norms, strict=True) if norm.item() > tolerance]
    if not kept:
        return torch.zeros_like(inputs[0])
    weight = 1.0 / len(inputs)
    share = weight / sum([weight] * len(kept))
    mean = torch.zeros_like(kept[0])
    for one in kept:
        mean += share * one
    norm = length(mean)
    mean = kept[0].clone() if norm.item() < tolerance else unit(mean, norm)
    for _ in range(steps):
        tangent = torch.zeros_like(mean)
        for one in kept:
            dot = torch.clamp(torch.dot(mean.flatten(), one.flatten()), -1.0, 1.0)
            angle = torch.arccos(dot)
            if angle.item() >= tolerance:
                tangent += share * (angle / torch.sin(angle)) * (one - dot * mean)
        norm = length(tangent)
        if norm.item() < tolerance:
            break
        mean = (torch.cos(norm) * mean + torch.sin(norm) * (tangent / norm)).to(mean.dtype)
        norm = length(mean)
        if norm.item() > tolerance:
            mean = unit(mean, norm)
    return sum((weight * norm for norm in norms), start=torch.zeros(())) * mean


def multislerp(inputs: Tensors, values: Values) -> torch.Tensor:
    """The weighted mean of the directions in the tangent space at their weighted mean, put back on the sphere.

    Raises:
        ArithmeticError: If the weighted directions of three or more models sum to zero.
    """
    count = len(values["weights"])
    bases, models = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    if count == 1:
        return models[0]
    tensors = torch.stack(list(models))
    if bases:
        tensors -= bases[0]
    flat = tensors.reshape(count, -1)
    weights = torch.tensor(values["weights"], dtype=tensors.dtype)
    if values["normalize_weights"]:
        weights = weights / weights.sum()
    norms = torch.norm(flat, dim=-1, keepdim=True)
    units = flat / (norms + values["eps"])
    mean = (units * weights.view(-1, 1)).sum(0)
    length = torch.norm(mean)
    if length < values["eps"]:
        if count > 2:
            raise ArithmeticError("the weighted directions of the models sum to zero; change a weight")
        result = tensors[0] * weights[0] + tensors[1] * weights[1]
    else:
        mean = mean / length
        tangents = units - (units * mean).sum(-1, keepdim=True) * mean
        tangent = (tangents * weights.view(-1, 1)).sum(0)
        angle = torch.norm(tangent) + values["eps"]
        result = mean * torch.cos(angle) + tangent * (torch.sin(angle) / angle)
        result = (result * (norms.squeeze(-1) * weights).sum()).reshape(models[0].shape)
    return result + bases[0] if bases else result
