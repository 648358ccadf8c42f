"""Merge methods as mergekit computes them: in the dtype of the inputs, operation by operation, so that the bits are mergekit's.

A sum in another order or another precision has other last digits, so each formula takes the operations of torch that mergekit
takes. The caller limits torch to one thread. Random numbers are other ones than mergekit's, which come from one stream for all
tensors: here the tensor's name seeds them.

Source: mergekit 0.1.5, ``merge_methods`` and ``sparsify.py``; tests compare the bits with those of the installed mergekit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from herdbook.steps.merge.sphere import karcher, multislerp, nuslerp, slerp, work_dtype
from herdbook.weights.tensors import generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Tensors = Sequence[torch.Tensor]
    Values = Mapping[str, Any]

CONSENSUS = ("ties", "dare_ties", "breadcrumbs_ties", "della")


def merge_as_mergekit(method: str, inputs: Tensors, name: str, values: Values) -> torch.Tensor:
    """Return the merged tensor, in the dtype of the inputs.

    Args:
        method: A method of the recipe.
        inputs: The tensors of all models, of one shape and floating-point dtype; the base first, if any.
        name: The tensor's name, which seeds random numbers.
        values: The method's settings, and the parameters of this tensor.

    Raises:
        ArithmeticError: If the method has no result for these tensors.
    """
    match method:
        case "linear":
            return _linear(inputs, values)
        case "slerp":
            return slerp(inputs[0], inputs[1], values["t"])
        case "model_stock":
            return _model_stock(inputs[0], inputs[1:], by_row=values.get("filter_wise", False))
        case "passthrough":
            return inputs[0] if values["scale"] is None else inputs[0] * values["scale"]
        case "nuslerp":
            return nuslerp(inputs, values)
        case "nearswap":
            base, other = inputs
            share = (values["t"] / (base - other).abs().clamp(min=1e-6)).clamp(min=0, max=1)
            return share * other + (1 - share) * base
        case "karcher":
            return karcher(inputs, values["max_iter"], values["tol"])
        case "multislerp":
            return multislerp(inputs, values)
        case "ram" | "ramplus_tl":
            return _ram(inputs[0], inputs[1:], method, values)
        case "sce":
            return _sce(inputs[0], inputs[1:], values["select_topk"])
        case "arcee_fusion":
            return _fusion(inputs[0], inputs[1])
        case _:
            return _task_vectors(method, inputs[0], inputs[1:], name, values)


def _linear(inputs: Tensors, values: Values) -> torch.Tensor:
    dtype = work_dtype(inputs[0])
    weights = torch.tensor([values["weights"]], dtype=dtype)
    shape = (1,) * (inputs[0].dim() + 1)
    total = torch.zeros((1, *inputs[0].shape), dtype=dtype)
    for tensor, weight in zip(inputs, weights.unbind(1), strict=True):
        total.addcmul_(tensor[None], weight.reshape(shape))
    if values["normalize"]:
        total.div_(weights.sum(dim=1).reshape(shape))
    return total[0].to(inputs[0].dtype)


def _model_stock(base: torch.Tensor, models: Tensors, *, by_row: bool) -> torch.Tensor:
    shape = base.shape
    if by_row:
        base, *models = (one[None] if one.dim() == 1 else one for one in (base, *models))
    else:
        base, *models = (one.reshape(-1) for one in (base, *models))
    deltas = [model - base for model in models]
    count = len(deltas)
    cosines = [
        ((one * other).sum(dim=-1) / (one.norm(dim=-1) * other.norm(dim=-1)).clamp(min=1e-6)).clamp(-1, 1)
        for index, one in enumerate(deltas)
        for other in deltas[index + 1 :]
    ]
    cosine = torch.stack(cosines).mean(dim=0).unsqueeze(-1)
    divisor = 1 + (count - 1) * cosine
    undefined = divisor.abs() < 1e-6
    share = torch.where(undefined, 0.0, (count * cosine) / torch.where(undefined, 1.0, divisor))
    total = torch.zeros_like(base)
    for model in models:
        total = total + model
    return (share * (total / count) + (1 - share) * base).reshape(shape)


# -- task vectors ------------------------------------------------------------------------------------------------------------


def _task_vectors(
    method: str, base: torch.Tensor, models: Tensors, name: str, values: Values
) -> torch.Tensor:
    deltas = torch.empty((len(models), *base.shape), dtype=base.dtype)
    for index, model in enumerate(models):
        deltas[index] = _sparse(method, model - base, index, name, values)
    return base + sum_of_task_vectors(deltas, values, consensus=method in CONSENSUS)


def sum_of_task_vectors(deltas: torch.Tensor, values: Values, *, consensus: bool) -> torch.Tensor:
    """Return the weighted sum of task vectors.

    Args:
        deltas: The task vectors, one of each model; they are overwritten.
        values: ``weights``, ``normalize`` and ``scale``.
        consensus: Whether elements with another sign than the sum are left out.
    """
    weights = torch.tensor(values["weights"], dtype=deltas.dtype).reshape(-1, *(1,) * (deltas.dim() - 1))
    deltas.mul_(weights)
    if consensus:
        agrees = _agree(deltas)
        total, divisor = (deltas * agrees).sum(dim=0), (weights * agrees).sum(dim=0)
        divisor[divisor == 0] = 1
    else:
        total, divisor = deltas.sum(dim=0), weights.sum(dim=0)
        divisor[divisor.abs() < 1e-8] = 1
    if values["normalize"]:
        total /= divisor
    if values["scale"] != 1:
        total *= values["scale"]
    return total


def _agree(deltas: torch.Tensor) -> torch.Tensor:
    """Return which elements have the sign of the sum over all models; a sum of zero counts as positive."""
    return deltas.sign() == torch.where(deltas.sum(dim=0) >= 0, 1, -1).to(deltas.dtype)


def _sparse(method: str, delta: torch.Tensor, index: int, name: str, values: Values) -> torch.Tensor:
    """Return a task vector with some of its elements; others are zero, and with ``rescale`` the sum of magnitudes stays."""
    density = values["densities"][index] if "densities" in values else 1.0
    if density >= 1 or method == "task_arithmetic":
        return delta
    if method in {"ties", "breadcrumbs", "breadcrumbs_ties"}:
        gamma = values["gammas"][index] if "gammas" in values else None
        return _masked(delta, _by_size(delta, density, gamma), values)
    # mergekit draws, and rescales, half-precision numbers in float32
    wide = delta if delta.dtype == torch.bfloat16 else delta.to(torch.float32)
    shares = probabilities(delta, density, values["epsilons"][index] if "epsilons" in values else None)
    shares = shares.to(wide.dtype)
    drawn = torch.rand(shares.shape, generator=generator(values["seed"], f"{name}:{index}"))
    return _masked(wide, (drawn < shares).to(wide.dtype), values).to(delta.dtype)


def _by_size(delta: torch.Tensor, density: float, gamma: float | None) -> torch.Tensor:
    """Return which elements are kept, as ones: the largest ones; with ``gamma``, those below this share of the largest ones."""
    sizes = delta.abs().reshape(-1).float()
    count = len(sizes)
    target, start = int(density * count), 0
    if gamma is None:
        target = max(1, target)
    else:
        start = max(0, count - target - int(gamma * count))
    order = torch.empty(0, dtype=torch.int64)
    # Sorted in place, for the memory. Which of equal elements comes first is up to torch, as in mergekit.
    torch.sort(sizes, descending=gamma is None, out=(sizes, order))
    del sizes
    kept = torch.zeros(count, dtype=delta.dtype)
    kept[order[start : start + target]] = 1
    return kept.reshape(delta.shape)


def probabilities(delta: torch.Tensor, density: float, spread: float | None = None) -> torch.Tensor:
    """Return the probability with which each element is kept: the density, or with a spread (DELLA) one by size.

    This grows with the rank in the row, from ``density - spread`` for the smallest element to ``density + spread``.

    Raises:
        ArithmeticError: If rows have one element, which has no rank.
    """
    if spread is None:
        return torch.full_like(delta, density, dtype=torch.float32)
    rows = delta.abs() if delta.dim() > 1 else delta.abs().unsqueeze(0)
    if rows.shape[1] == 1:
        raise ArithmeticError("rows of a single number have no smallest and largest one")
    dtype = delta.dtype if delta.dtype == torch.bfloat16 else torch.float32
    ranks = torch.argsort(rows, dim=1).argsort(dim=1).to(dtype) + 1
    first, last = (one(dim=1, keepdim=True).values for one in (ranks.min, ranks.max))
    place = ((ranks - first) / (last - first)).clamp(0, 1)
    return ((density - spread) + place * 2 * spread).reshape(delta.shape)


def _masked(delta: torch.Tensor, kept: torch.Tensor, values: Values) -> torch.Tensor:
    masked = delta * kept
    if not values.get("rescale"):
        return masked
    before, after = delta.abs().sum(), masked.abs().sum()
    return masked if before < 1e-7 or after < 1e-7 else masked * (before / after)


def _fusion(base: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """Take the elements that matter most from the model, the others from the base.

    An element matters by its change times the divergence of its row, as a distribution. Those above the median by one and a
    half times the range of the middle half are taken. mergekit draws a million elements of larger tensors for these quartiles;
    here they are those of all elements.
    """
    change = (model - base).abs()
    new, old = (torch.nn.functional.softmax(one, dim=-1) + 1e-8 for one in (model, base))
    scores = change * torch.sum(new * torch.log(new / old), dim=-1, keepdim=True)
    ordered = torch.sort(scores.reshape(-1)).values
    low, middle, high = ordered[(torch.tensor([0.25, 0.5, 0.75]) * (ordered.numel() - 1)).long()]
    taken = (scores >= middle + 1.5 * (high - low)).float()
    return base + (model - base) * taken


def _ram(base: torch.Tensor, models: Tensors, method: str, values: Values) -> torch.Tensor:
    """Elements that one model changed are taken, those that several changed are averaged."""
    deltas = torch.stack([model - base for model in models]).reshape(len(models), -1)
    changed = deltas.abs() > values["epsilon"]
    counts = changed.sum(dim=0, keepdim=True)
    shared, alone = counts > 1, counts == 1
    deltas_kept = deltas * changed
    unique = deltas_kept * alone
    if method == "ramplus_tl":
        overlap = (changed & shared).sum(dim=1) / (changed & alone).sum(dim=1).clamp(min=values["epsilon"])
        unique = unique * (1 + values["r"] * overlap.clamp(min=0, max=values["alpha"])).unsqueeze(-1)
    total = (unique + (deltas_kept * shared / counts.clamp(min=1))).sum(dim=0, keepdim=True)
    return base + total.reshape(base.shape)


def _sce(base: torch.Tensor, models: Tensors, share: float) -> torch.Tensor:
    """Select the elements of the largest variance, weigh models by their size, erase the signs of the minority."""
    deltas = torch.stack([model - base for model in models])
    if share < 1:
        spread = torch.var(deltas, dim=0, unbiased=False)
        selected = torch.zeros_like(spread)
        count = int(torch.count_nonzero(spread) * share)
        if share > 0 and count:
            selected.view(-1)[torch.topk(spread.abs().view(-1), k=count).indices] = 1
        deltas = deltas * selected[None]
    agrees = _agree(deltas)
    weights = deltas.square().reshape(len(models), -1).mean(dim=1)
    total = torch.sum(weights).item()
    weights = torch.ones_like(weights) / len(models) if abs(total) < 1e-6 else weights / total
    weights = weights.reshape(-1, *(1,) * base.dim()) * agrees
    return base + (deltas * weights).sum(dim=0) / torch.sum(weights, dim=0).clamp(min=1e-6)
