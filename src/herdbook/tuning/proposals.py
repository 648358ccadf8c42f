"""The trials that an optimizer proposes: separable CMA-ES, which learns a scale for each dimension.

Trials are few, so the correlations that full CMA-ES learns would not be known before the last one; the separable form learns its
scales in a number of trials that grows with the number of dimensions, not with its square. It also needs no eigenvectors,
whose signs differ between libraries: the proposals follow from the seed and the scores, on every machine to the last digit that
is written down or nearly so.

Source: Ros and Hansen 2008, A Simple Modification in CMA-ES Achieving Linear Time and Space Complexity.
"""

from __future__ import annotations

import math
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.recipe.search import PLACES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.recipe import Point, Search

MISSING = "cmaes is not installed. Install it with:\n  pip install 'herdbook[tune]'"
FEWEST = 2  # dimensions of the optimizer; a single one is joined by another that decides nothing


def optimizer() -> str:
    """Return the name of the optimizer, with its version. Raises StepError if it is not installed."""
    try:
        return f"SepCMA of cmaes {version('cmaes')}"
    except PackageNotFoundError as error:
        raise StepError(MISSING) from error


def proposed(search: Search, start: Point, scores: Sequence[float]) -> list[Point]:
    """Return the points of all generations that follow from the scores of those before: those that are known, and the next.

    Args:
        search: The search.
        start: The point of the first trial, around which the first generation is drawn.
        scores: The scores of the trials of complete generations, without that of the start; lower is better.

    Raises:
        StepError: If the optimizer is not installed.
    """
    try:
        import numpy as np
        from cmaes import SepCMA
    except ModuleNotFoundError as error:
        raise StepError(MISSING) from error

    size = max(FEWEST, len(start))
    mean = np.array([*start, *[0.5] * (size - len(start))])
    bounds = np.array([[0.0, 1.0]] * size)
    optimizer = SepCMA(mean, search.step, bounds, seed=search.seed, population_size=search.population)
    points: list[Point] = []
    for generation in range(search.generations):
        drawn = [optimizer.ask() for _ in range(search.population)]
        points += [tuple(round(float(place), PLACES) for place in one[: len(start)]) for one in drawn]
        first = generation * search.population
        told = scores[first : first + search.population]
        if len(told) < search.population:
            break
        optimizer.tell(list(zip(drawn, told, strict=True)))
    return points


def follow(
    search: Search, points: Sequence[Point], scores: Sequence[float], *, higher_is_better: bool
) -> bool:
    """Return whether the points of all trials are those that the optimizer proposes from their scores.

    Args:
        search: The search.
        points: The points of all trials; the first is the start.
        scores: Their scores.
        higher_is_better: Of the scores.
    """
    sign = -1 if higher_is_better else 1
    again = [points[0], *proposed(search, points[0], [sign * score for score in scores[1:]])]
    # The last digit that is written down may be rounded to the other side where a logarithm has another last bit.
    return len(again) == len(points) and all(
        math.isclose(ours, theirs, rel_tol=0, abs_tol=1.5 * 10**-PLACES)
        for one, other in zip(again, points, strict=True)
        for ours, theirs in zip(one, other, strict=True)
    )
