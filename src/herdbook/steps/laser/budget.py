"""A budget of rank over several matrices, spread so that as little as possible is lost.

With m_j singular values s_ji of matrix j, descending, rank k_j loses the share l_j(k_j) = sum of s_ji^2 over i > k_j, divided
by the sum over all i: the square of the relative error of the best approximation (Eckart and Young 1936), of the matrix, or
of its outputs if the values are theirs. A budget b looks for ranks that minimize the sum of l_j(k_j) over all matrices,
where the ranks add up to floor(b sum m_j), and each is at least one.

Each l_j falls by less with every value, so the largest shares, whichever matrix they are in, are the exact solution (Fox
1966, "Discrete optimization via marginal analysis"). All matrices count the same, whatever their norm; a value costs the
same in each, since a matrix keeps its shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from herdbook.steps.laser.evidence import rounded

if TYPE_CHECKING:
    from collections.abc import Mapping

DIGITS = 12  # significant digits of the level: more than the singular values have


@dataclass(frozen=True)
class Spread:
    """A budget that was spread.

    Args:
        ranks: The rank of each matrix.
        level: The smallest share of its matrix's energy that a kept value has, beyond the first value of each matrix. A
            matrix's rank follows from it and the matrix alone. 1 if no more than the first values are kept.
    """

    ranks: dict[str, int]
    level: float


def energy_shares(values: np.ndarray) -> np.ndarray:
    """Return each singular value's share of the sum of all squares; zeros for a matrix of zeros."""
    squares = np.asarray(values, dtype=np.float64) ** 2
    total = squares.sum()
    return np.asarray(squares / total) if total else squares


def total_rank(counts: list[int], budget: float) -> int:
    """Return what the ranks of matrices with so many singular values add up to: rounded down, at least one for each."""
    return max(len(counts), math.floor(budget * sum(counts)))


def spread(spectra: Mapping[str, np.ndarray], budget: float) -> Spread:
    """Spread a budget of rank.

    Args:
        spectra: The singular values of each matrix, descending, or those of its outputs.
        budget: The share of all singular values that is kept.

    Returns:
        The ranks and the level. Of equal shares, those of the matrix that comes first by name are kept.
    """
    names = sorted(spectra)
    ranks = dict.fromkeys(names, 1)
    rest = [energy_shares(spectra[name])[1:] for name in names]
    remaining = total_rank([len(spectra[name]) for name in names], budget) - len(names)
    shares = np.concatenate(rest) if rest else np.zeros(0)
    owners = np.repeat(np.arange(len(names)), [len(each) for each in rest])
    kept = np.argsort(-shares, kind="stable")[:remaining]
    for index, count in enumerate(np.bincount(owners[kept], minlength=len(names))):
        ranks[names[index]] += int(count)
    return Spread(ranks, rounded(float(shares[kept[-1]]), DIGITS) if len(kept) else 1.0)
