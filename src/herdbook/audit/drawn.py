"""Merges that drop elements of task vectors at random (DARE, DELLA): what a number can be, as the drawn ones are not known.

Each element of each task vector is either dropped, or kept and rescaled. So an element of the merge has two to the power of the
number of models possible values, and for every number the nearest one is found. mergekit rescales what is kept so that the sum of
magnitudes stays; this factor is fitted, and then follows from what is found to be kept.

Source: mergekit 0.1.5, ``sparsify.py`` and ``merge_methods/generalized_task_arithmetic.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, cast

import torch

from herdbook.errors import UnverifiedError
from herdbook.steps.merge.as_mergekit import CONSENSUS, probabilities, sum_of_task_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from herdbook.plan.operation import MergeTensors, Values

MOST_MODELS = 6  # 64 possible values of each element
AT_ONCE = 1 << 24  # possible values that are in memory
FITTED = 1 << 11  # elements to which the factors are fitted
GRID = 25  # factors that are tried for each model
WIDTHS = (1.0, 1.0, 0.1, 0.1, 0.02)  # of the grid, as shares of the first one's
FAR = 20.0  # a distance beyond which a number counts as far, whatever the distance is
SMALLEST = 1e-7  # a sum of magnitudes below which mergekit does not rescale
# How many standard deviations the share of kept elements may be from the probability with which they are kept.
DEVIATIONS = 6.0
# The distance to the nearest possible value, in units in the last place of the largest number involved.
LARGEST_DISTANCE = 8.0


@dataclass(frozen=True)
class Drawn:
    """What is found of a tensor that random numbers decide.

    Args:
        count: The number of elements.
        impossible: How many are none of the possible values.
        distance: The distance of the farthest one, in units in the last place of the largest number involved.
        kept: The share of each model's elements that was kept, of those that show it.
        densities: The probability with which these are kept, on average.
        deviations: How far each share is from its density, in standard deviations.
    """

    count: int
    impossible: int
    distance: float
    kept: tuple[float, ...]
    densities: tuple[float, ...]
    deviations: tuple[float, ...]

    @property
    def is_possible(self) -> bool:
        """Whether the numbers may be what was drawn."""
        return not self.impossible and max(self.deviations, default=0.0) <= DEVIATIONS


def drawn(
    found: torch.Tensor, inputs: Sequence[torch.Tensor], operation: MergeTensors, values: Values
) -> Drawn:
    """Return what a merge's numbers can be.

    Args:
        found: The merge's tensor.
        inputs: The models' tensors, the base first.
        operation: How they are merged.
        values: The parameters of the tensor.

    Raises:
        UnverifiedError: If there are more models than can be tried.
    """
    densities = cast("list[float]", values["densities"])
    if len(densities) > MOST_MODELS:
        raise UnverifiedError(f"{len(densities)} models are merged; up to {MOST_MODELS} are tried")
    parameters = {**operation.settings, **values}
    chances = _chances(inputs, densities, cast("list[float] | None", values.get("epsilons")))
    base, *others = (one.reshape(-1).float() for one in inputs)
    deltas = torch.stack([one - base for one in others])
    numbers = found.reshape(-1).float()
    sizes = deltas.abs()
    whole = sizes.sum(dim=1)
    factors = torch.ones(len(densities))
    if parameters.get("rescale"):
        factors = _ratio(whole, (sizes * chances).sum(dim=1), factors)
    largest = torch.stack([one.abs() for one in (base, *others, numbers)]).amax(dim=0)
    unit = (largest * torch.finfo(found.dtype).eps).clamp(min=torch.finfo(torch.float32).tiny)
    consensus = operation.method in CONSENSUS
    fit = partial(_nearest, parameters=parameters, densities=densities, consensus=consensus)
    if parameters.get("rescale"):
        spreads = (sizes.square() * chances * (1 - chances)).sum(dim=1).sqrt()
        spreads = spreads / (sizes * chances).sum(dim=1).clamp(min=SMALLEST)
        factors = _fitted(fit, numbers - base, deltas, unit, factors, spreads)
        if not consensus:  # otherwise elements of the minority's sign do not show whether they are kept
            _, kept, _ = fit(numbers - base, deltas, factors)
            factors = _ratio(whole, (sizes * kept).sum(dim=1), factors)
    nearest, kept, second = fit(numbers - base, deltas, factors)
    distance = nearest / unit
    # Elements of the minority's sign vanish, kept or not; so only those on whose sign all models agree show what was kept.
    shown = second > 4 * nearest + unit
    if consensus:
        shown &= (deltas >= 0).all(dim=0) | (deltas <= 0).all(dim=0)
    shares, expected, deviations = [], [], []
    for mask, delta, chance in zip(kept, deltas, chances, strict=True):
        where = shown & (delta != 0)
        count = max(1, int(where.sum()))
        share, mean = (float((one * where).sum()) / count for one in (mask, chance))
        spread = math.sqrt(float((chance * (1 - chance) * where).sum())) / count
        shares.append(share)
        expected.append(mean)
        deviations.append(abs(share - mean) / spread if spread > 0 else 0.0)
    return Drawn(
        numbers.numel(),
        int((distance > LARGEST_DISTANCE).sum()),
        float(distance.max()),
        tuple(shares),
        tuple(expected),
        tuple(deviations),
    )


def _chances(
    inputs: Sequence[torch.Tensor], densities: Sequence[float], spreads: Sequence[float] | None
) -> torch.Tensor:
    """Return the probability with which each element of each task vector is kept; a row for each model."""
    base, *others = inputs
    chances = [
        probabilities(other - base, density, None if spreads is None else spreads[index])
        if density < 1
        else torch.ones_like(base, dtype=torch.float32)
        for index, (other, density) in enumerate(zip(others, densities, strict=True))
    ]
    return torch.stack([one.reshape(-1).float() for one in chances])


def _fitted(
    fit: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]],
    change: torch.Tensor,
    deltas: torch.Tensor,
    unit: torch.Tensor,
    factors: torch.Tensor,
    spreads: torch.Tensor,
) -> torch.Tensor:
    """Return the factors by which what is kept was multiplied, near the expected ones: those that leave the least distances.

    They differ from the expected ones as the drawn elements differ from their number; a few thousand elements show them.
    """
    step = max(1, change.numel() // FITTED)
    change, deltas, unit = change[::step], deltas[:, ::step], unit[::step]

    def rest(tried: torch.Tensor) -> float:
        nearest, *_ = fit(change, deltas, tried)
        return float((nearest / unit).clamp(max=FAR).mean())

    for width in WIDTHS:
        for model in range(len(factors)):
            candidates = []
            for place in torch.linspace(-DEVIATIONS, DEVIATIONS, GRID):
                tried = factors.clone()
                tried[model] *= 1 + place * width * spreads[model]
                candidates.append(tried)
            factors = min([factors, *candidates], key=rest)
    return factors


def _ratio(whole: torch.Tensor, kept: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Return the factors that keep the sum of magnitudes; mergekit's, if nearly nothing is kept."""
    return torch.where((whole < SMALLEST) | (kept < SMALLEST), factors, whole / kept.clamp(min=SMALLEST))


def _nearest(
    change: torch.Tensor,
    deltas: torch.Tensor,
    factors: torch.Tensor,
    *,
    parameters: Values,
    densities: Sequence[float],
    consensus: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the distance to the nearest possible change, which elements this keeps, and the distance to the nearest other one."""
    may_drop = [(True,) if density >= 1 else (True, False) for density in densities]
    choices = torch.tensor(list(product(*may_drop))).T  # models, choices
    scales = (factors[:, None] * choices)[:, :, None]
    size = max(1, AT_ONCE // choices.numel())
    best, second, kept = [], [], []
    for some, of_models in zip(change.split(size), deltas.split(size, dim=1), strict=True):
        totals = sum_of_task_vectors(of_models[:, None] * scales, parameters, consensus=consensus)
        distances = (some - totals).abs()  # choices, elements
        order = distances.topk(min(2, len(distances)), dim=0, largest=False)
        best.append(order.values[0])
        second.append(order.values[-1] if len(distances) > 1 else torch.full_like(some, math.inf))
        kept.append(choices[:, order.indices[0]])
    return torch.cat(best), torch.cat(kept, dim=1), torch.cat(second)
