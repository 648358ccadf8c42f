"""Rank rules: how many singular values of a matrix are kept.

There are three kinds. ``fraction``, ``energy`` and an explicit rank set how much is kept and assume nothing. ``mp-edge``
and ``gavish-donoho`` assume a low-rank signal in white noise and remove what noise could explain; trained weights are
different (see ``NoiseLaw.misfit``), and these rules remove 65 to 100 % of their spectrum. ``laser-rmt`` is the threshold of
the program laserRMT, for parity with models that were made with it.

``svd-llm`` (see ``herdbook.steps.laser.whiten``) applies one of the first three to the spectrum of a matrix's outputs. A
``budget`` is for several matrices together: ``herdbook.steps.laser.budget`` turns it into a rank for each. ``clustered`` is
for clusters of rows, which have spectra of their own: see ``herdbook.steps.laser.clusters``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from herdbook.recipe.rank import Clustered, SvdLlm
from herdbook.recipe.spectral import Budget, Energy, FixedRank, Fraction, KnownNoise, Threshold
from herdbook.steps.laser.law import noise_law

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from herdbook.recipe.rank import RankRule
    from herdbook.recipe.spectral import ThresholdName

NORMAL_IQR = (
    1.349  # interquartile range of a normal distribution in standard deviations, rounded as in laserRMT
)


@dataclass(frozen=True)
class Kept:
    """The result of a rule for a matrix: the rank, and the threshold if it has one (values above it are kept)."""

    rank: int
    threshold: float | None = None


def keep(rule: RankRule, values: np.ndarray, rows: int, columns: int) -> Kept:
    """Apply a rule.

    Args:
        rule: The rule; for ``svd-llm``, its inner rule is applied.
        values: All singular values, descending, shape ``(min(rows, columns),)``.
        rows: Rows of the matrix.
        columns: Columns of the matrix.

    Returns:
        The rank, at least one and at most the number of values, and the threshold.

    Raises:
        TypeError: If it does not apply to a single spectrum: a budget before it is spread, or clusters.
    """
    count = len(values)
    match rule:
        case Budget() | Clustered():
            raise TypeError(f"{rule.label} does not follow from the spectrum of a matrix")
        case FixedRank():
            return Kept(min(rule.rank, count))
        case Fraction():
            return Kept(keep_fraction(count, rule.fraction))
        case Energy():
            return Kept(keep_energy(values, rule.energy))
        case SvdLlm():
            return keep(rule.inner, values, rows, columns)
        case KnownNoise():
            threshold = gavish_donoho(values, rows, columns, rule.gavish_donoho)
        case Threshold():
            threshold = THRESHOLDS[rule.name](values, rows, columns)
    return Kept(max(1, int((values > threshold).sum())), threshold)


def keep_fraction(count: int, fraction: float) -> int:
    """Return the rank that keeps ``fraction`` of ``count`` singular values: rounded down, at least one.

    It does not depend on the values, so it reduces a spectrum without noise as much as one of pure noise.

    Source: rho in Sharma et al. 2023, arXiv:2312.13558, section 4.
    """
    return max(1, math.floor(fraction * count))


def keep_energy(values: np.ndarray, energy: float) -> int:
    """Return the smallest rank whose values contain ``energy`` of the sum of all squares, at least one.

    The error in the Frobenius norm is then sqrt(1 - energy) of the matrix's norm (Eckart and Young 1936) for every
    spectrum. How useful the lost part was is not considered.
    """
    squares = np.asarray(values, dtype=np.float64) ** 2
    total = squares.sum()
    if total == 0:
        return 1
    # From the small end: a sum of the small numbers is exact where a sum of the large ones would not be.
    lost = np.cumsum(squares[::-1])[::-1]
    # A share that is met exactly counts as met despite rounding.
    return max(1, int((lost > (1 - energy) * total * (1 + 1e-12)).sum()))


def mp_edge(values: np.ndarray, rows: int, columns: int) -> float:
    """Return the upper edge of the Marchenko-Pastur law: sigma (sqrt(n) + sqrt(m)).

    sigma = median / sqrt(n mu), with n the larger side and mu the median of the law, so that the edge is
    median (1 + sqrt(beta)) / sqrt(mu): 2.475, 1.567 and 1.614 medians for beta = 1, 1/4 and 2/7. It keeps everything that
    noise cannot explain, also a signal too weak to be recovered well. Assumes white noise in most of the spectrum.

    Source: Marchenko and Pastur 1967; noise level: Gavish and Donoho 2014, section III-E.
    """
    law = noise_law(rows, columns)
    return law.noise_level(values) * math.sqrt(law.larger) * law.edge


def gavish_donoho(values: np.ndarray, rows: int, columns: int, sigma: float | None = None) -> float:
    """Return the optimal hard threshold for recovering a signal of low rank from white noise.

    If the noise's standard deviation is known, the threshold is lambda(beta) sqrt(n) sigma, where
    lambda(beta) = sqrt(2 (beta + 1) + 8 beta / ((beta + 1) + sqrt(beta^2 + 14 beta + 1))), 4 / sqrt(3) for squares.
    Otherwise sigma is estimated from the median singular value, so that the threshold is omega(beta) medians,
    omega(1) = 2.858. It is optimal in mean squared error, asymptotically, if rank / m goes to zero and the noise is white.

    Args:
        values: All singular values, in any order.
        rows: Rows of the matrix.
        columns: Columns of the matrix.
        sigma: Standard deviation of the noise in an entry; None if it is unknown.

    Source: Gavish and Donoho 2014, arXiv:1305.5870, equations 3 and 11 and section III-E.
    """
    law = noise_law(rows, columns)
    beta = law.beta
    factor = math.sqrt(2 * (beta + 1) + 8 * beta / ((beta + 1) + math.sqrt(beta**2 + 14 * beta + 1)))
    level = law.noise_level(values) if sigma is None else sigma
    return factor * math.sqrt(law.larger) * level


def laser_rmt(values: np.ndarray, rows: int, columns: int) -> float:
    """Return laserRMT's threshold: (Q75 - Q25) / 1.349 (1 + sqrt(beta)), quartiles of the singular values.

    It is not the Marchenko-Pastur edge, as laserRMT calls it: the spread of the singular values is used as the entries'
    standard deviation, and sqrt(n) is missing. Of pure noise it keeps 23.7 % for a square matrix and 98.7 % for
    14336 x 4096. For parity with models made with laserRMT, not for new ones.

    Source: cognitivecomputations/laserRMT, ``estimate_sigma_with_full_iqr`` and ``marchenko_pastur_threshold``.
    """
    low, high = np.quantile(values, [0.25, 0.75])
    beta = min(rows, columns) / max(rows, columns)
    return float((high - low) / NORMAL_IQR * (1 + math.sqrt(beta)))


THRESHOLDS: dict[ThresholdName, Callable[[np.ndarray, int, int], float]] = {
    "mp-edge": mp_edge,
    "gavish-donoho": gavish_donoho,
    "laser-rmt": laser_rmt,
}


def thresholds(values: np.ndarray, rows: int, columns: int) -> Mapping[str, float]:
    """Return the thresholds of all rules that need only the spectrum, by the rule's name."""
    return {name: threshold(values, rows, columns) for name, threshold in THRESHOLDS.items()}


def signal_to_noise(values: np.ndarray, rows: int, columns: int) -> float:
    """Return the energy above the Marchenko-Pastur edge divided by that below it: signal to noise for any shape.

    Pure noise of any shape gives zero, and equal signals in equal noise give equal numbers, so that matrices of different
    shapes can be ranked. Infinite if no value is below the edge.
    """
    squares = np.asarray(values, dtype=np.float64) ** 2
    above = np.asarray(values) > mp_edge(values, rows, columns)
    noise = float(squares[~above].sum())
    return float(squares[above].sum()) / noise if noise else math.inf


def laser_rmt_snr(values: np.ndarray, rows: int, columns: int) -> float:
    """Return laserRMT's signal to noise: the sum of the values above its threshold divided by the sum of the rest.

    For parity. It ranks mainly by shape: the more oblong a matrix, the larger the share of pure noise above the threshold,
    so that square q_proj and o_proj rank lowest.

    Source: cognitivecomputations/laserRMT, ``calculate_snr_for_layer``, without its division by the largest value.
    """
    above = np.asarray(values) > laser_rmt(values, rows, columns)
    noise = float(np.asarray(values)[~above].sum())
    return float(np.asarray(values)[above].sum()) / noise if noise else math.inf
