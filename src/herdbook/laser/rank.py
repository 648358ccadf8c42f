"""Rank rules: how many singular values of a matrix are kept."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLES = 20_000  # of the Marchenko-Pastur law's distribution function; its median is then good to ten digits


def keep_fraction(count: int, fraction: float) -> int:
    """Return the rank that keeps ``fraction`` of ``count`` singular values: rounded down, at least one.

    Source: rho in Sharma et al. 2023, arXiv:2312.13558, section 4.
    """
    return max(1, math.floor(fraction * count))


@cache
def marchenko_pastur_median(beta: float) -> float:
    """Return the median of the Marchenko-Pastur law of aspect ratio ``beta`` and unit variance.

    With x = 1 + beta + 2 sqrt(beta) cos(t), the law's mass is (2 / pi) sin(t)^2 / x dt on 0 < t < pi, a smooth
    integrand; the median is where its integral from the right end (t = 0 is the upper edge) reaches one half.

    Args:
        beta: Columns over rows of a tall matrix, 0 < beta <= 1.

    Source: Marchenko and Pastur 1967; the median as a noise estimate: Gavish and Donoho 2014, arXiv:1305.5870, section III-E.
    """
    step = math.pi / SAMPLES

    def at(t: float) -> float:
        return 1 + beta + 2 * math.sqrt(beta) * math.cos(t)

    def density(t: float) -> float:
        # at(pi) is 0 for beta = 1, where the limit of the integrand is (2 / pi) * 1.
        x = at(t)
        return 2 / math.pi * (math.sin(t) ** 2 / x if x > 1e-12 else 1.0)

    mass = 0.0
    for index in range(SAMPLES):
        left, right = index * step, (index + 1) * step
        piece = step / 6 * (density(left) + 4 * density((left + right) / 2) + density(right))
        if mass + piece >= 0.5:
            return at(left + step * (0.5 - mass) / piece)
        mass += piece
    raise AssertionError("the law's mass is one")


def marchenko_pastur_edge(singular_values: Sequence[float], rows: int, columns: int) -> float:
    """Return the largest singular value that pure noise of this shape would have.

    The noise level is estimated from the median singular value: sigma = median / sqrt(n mu), with n the larger side
    and mu the median of the Marchenko-Pastur law; the edge is sigma (sqrt(n) + sqrt(m)), m being the smaller side.

    Args:
        singular_values: All of them, in any order.
        rows: Rows of the matrix.
        columns: Its columns.
    """
    larger, smaller = max(rows, columns), min(rows, columns)
    ordered = sorted(singular_values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    beta = smaller / larger
    return median * (1 + math.sqrt(beta)) / math.sqrt(marchenko_pastur_median(beta))


def keep_above_noise(singular_values: Sequence[float], rows: int, columns: int) -> int:
    """Return how many singular values rise above the Marchenko-Pastur edge, at least one."""
    edge = marchenko_pastur_edge(singular_values, rows, columns)
    return max(1, sum(value > edge for value in singular_values))
