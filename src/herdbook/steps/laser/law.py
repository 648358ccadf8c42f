"""The Marchenko-Pastur law: the distribution of the singular values of pure noise.

For a matrix of independent entries of standard deviation sigma, with n the larger side and m the smaller side, both large,
the values x = s^2 / (n sigma^2) follow the law of aspect ratio beta = m / n. Source: Marchenko and Pastur 1967.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

CELLS = (
    20_000  # cells of the law's distribution function; quantiles are then accurate to at least eight digits
)


class NoiseLaw:
    """The law of singular values of noise of one shape, in units of sigma sqrt(n): y = s / (sigma sqrt(n)).

    With y^2 = 1 + beta + 2 sqrt(beta) cos(t), the law's mass is (2 / pi) sin(t)^2 / y^2 dt on 0 < t < pi, a smooth
    integrand; t = 0 is the upper edge.

    Args:
        rows: Rows of the matrix.
        columns: Columns of the matrix. Exchanging the two changes nothing.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.larger, self.smaller = max(rows, columns), min(rows, columns)
        self.beta = self.smaller / self.larger
        step = math.pi / CELLS
        t = np.arange(2 * CELLS + 1) * (step / 2)
        squares = 1 + self.beta + 2 * math.sqrt(self.beta) * np.cos(t)
        # For beta = 1 the integrand at t = pi is 0 / 0; its limit is (2 / pi).
        density = 2 / math.pi * np.divide(np.sin(t) ** 2, squares, out=np.ones_like(t), where=squares > 1e-12)
        cells = step / 6 * (density[:-1:2] + 4 * density[1::2] + density[2::2])  # Simpson's rule
        mass = 1 - np.concatenate([[0.0], np.cumsum(cells)])
        self._y = np.sqrt(np.maximum(squares[::2], 0))[::-1]  # ascending
        self._mass = mass[::-1]

    @property
    def edge(self) -> float:
        """Upper end: 1 + sqrt(beta)."""
        return 1 + math.sqrt(self.beta)

    def quantile(self, share: float) -> float:
        """Return the value below which a ``share`` of the noise's singular values lies."""
        return float(np.interp(share, self._mass, self._y))

    def below(self, y: np.ndarray | float) -> np.ndarray:
        """Return the share of the noise's singular values below ``y`` (the distribution function)."""
        return np.asarray(np.interp(y, self._y, self._mass, left=0.0, right=1.0))

    def expected(self, sigma: float, ranks: Iterable[int]) -> list[tuple[int, float]]:
        """Return the singular values of noise of a level, as pairs with their ranks; rank 1 is the largest value."""
        scale = sigma * math.sqrt(self.larger)
        return [(rank, scale * self.quantile(1 - (rank - 0.5) / self.smaller)) for rank in ranks]

    def noise_level(self, values: np.ndarray) -> float:
        """Estimate sigma from the median singular value.

        The estimate is right if more than half of the values, including those in the middle, are noise.

        Args:
            values: All singular values, in any order, shape ``(m,)``.

        Source: Gavish and Donoho 2014, arXiv:1305.5870, section III-E.
        """
        return float(np.median(values)) / (math.sqrt(self.larger) * self.quantile(0.5))

    def misfit(self, values: np.ndarray) -> float:
        """Return the distance of the values below the noise's edge from the law: Kolmogorov-Smirnov, 0 to 1.

        Noise, also with a low-rank signal added, gives about 1 / m; the bulk of trained weights 0.1 and more. Both
        distributions are taken below the edge, so that a signal above it does not count.

        Args:
            values: All singular values, in any order, shape ``(m,)``.
        """
        sigma = self.noise_level(values)
        if sigma == 0:
            return 1.0
        scaled = np.sort(np.asarray(values)) / (sigma * math.sqrt(self.larger))
        bulk = scaled[scaled <= self.edge]
        steps = np.arange(len(bulk) + 1) / len(bulk)
        expected = self.below(bulk)
        return float(np.maximum(steps[1:] - expected, expected - steps[:-1]).max())


@cache
def noise_law(rows: int, columns: int) -> NoiseLaw:
    """Return the law of a shape, computed once."""
    return NoiseLaw(rows, columns)
