"""Rows clustered around several subspaces, each cluster reduced by itself (Sreeram et al. 2025, arXiv:2510.20800).

For clusters C_1, ..., C_j of the rows a_i of a matrix and subspaces S_c of k dimensions, the sum over all rows of the squared
distance |a_i - P_c a_i|^2 is to be small. For given clusters, S_c is spanned by the leading k right singular vectors of the
cluster's rows; for given subspaces, a row belongs to the nearest. Each of the two steps makes the sum smaller or leaves it, so
they are repeated in turn (Bradley and Mangasarian 2000, "k-plane clustering", for any k), from j runs of consecutive rows. The
best clusters cannot be found in reasonable time; these are at least as good as the runs that they begin with.

Where k is near the number of rows of a cluster, its subspace contains nearly all of them, and no row has a reason to move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from herdbook.steps.laser.decompose import approximate, decompose, tolerance

if TYPE_CHECKING:
    from herdbook.recipe.rank import Clustered
    from herdbook.steps.laser.decompose import Decomposition

ROUNDS = 8  # at most; each decomposes every cluster once
ROWS_AT_ONCE = 1024
# A row moves if its squared distance falls by more than this share of its squared norm. Less is left to rounding.
GAIN = 1e-9


@dataclass(frozen=True)
class Cluster:
    """Some rows of a matrix, decomposed.

    Args:
        rows: Their indices, ascending.
        decomposition: That of the matrix of these rows.
        rank: How many of its values are kept.
    """

    rows: np.ndarray
    decomposition: Decomposition
    rank: int


def cluster(matrix: torch.Tensor, rule: Clustered, device: str = "cpu") -> tuple[Cluster, ...]:
    """Cluster the rows of a matrix.

    Args:
        matrix: Shape ``(rows, columns)``.
        rule: How many clusters, and what is kept of each.
        device: Where clusters are decomposed.

    Returns:
        The clusters that have rows, in the order of the runs that they began as.
    """
    count, rank = rule.clustered.clusters, rule.rank_of_each(*matrix.shape)
    labels = np.repeat(np.arange(count), [len(run) for run in np.array_split(np.arange(len(matrix)), count)])
    for _ in range(ROUNDS):
        found = _decomposed(matrix, labels, rank, device)
        moved = _nearest(matrix, found, labels)
        if np.array_equal(moved, labels):
            return tuple(found.values())
        labels = moved
    return tuple(_decomposed(matrix, labels, rank, device).values())


def join(matrix: torch.Tensor, clusters: tuple[Cluster, ...], device: str = "cpu") -> torch.Tensor:
    """Return the matrix with each cluster's rows replaced by their best approximation, rounded once."""
    out = torch.empty_like(matrix, memory_format=torch.contiguous_format)
    for each in clusters:
        rows = torch.from_numpy(each.rows)
        out[rows] = approximate(matrix[rows], each.decomposition, each.rank, device)
    return out


def joint_tolerance(clusters: tuple[Cluster, ...], columns: int) -> float:
    """Return ``tolerance`` for the matrix of all clusters; it does not cover a row that is as near to another cluster."""
    norms = [float((each.decomposition.values**2).sum()) for each in clusters]
    total = sum(norms)
    if not total:
        return 0.0
    parts = (
        tolerance(each.decomposition, each.rank, len(each.rows), columns) ** 2 * norm
        for each, norm in zip(clusters, norms, strict=True)
    )
    return math.sqrt(sum(parts) / total)


def _decomposed(matrix: torch.Tensor, labels: np.ndarray, rank: int, device: str) -> dict[int, Cluster]:
    found = {}
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        decomposition = decompose(matrix[torch.from_numpy(rows)], device)
        found[int(label)] = Cluster(rows, decomposition, min(rank, len(decomposition.values)))
    return found


def _nearest(matrix: torch.Tensor, clusters: dict[int, Cluster], labels: np.ndarray) -> np.ndarray:
    """Return each row's nearest cluster: its own, unless another one is nearer by more than rounding explains."""
    bases = {label: _basis(matrix, each) for label, each in clusters.items()}
    numbers = np.array(list(bases))
    moved = labels.copy()
    for start in range(0, len(matrix), ROWS_AT_ONCE):
        rows = matrix[start : start + ROWS_AT_ONCE].to(torch.float64).numpy()
        # the nearest subspace is the one with the longest projection
        lengths = np.stack([((rows @ basis) ** 2).sum(axis=1) for basis in bases.values()])
        own = np.searchsorted(numbers, labels[start : start + len(rows)])
        place = np.arange(len(rows))
        best = lengths.argmax(axis=0)
        gains = lengths[best, place] - lengths[own, place] > GAIN * (rows**2).sum(axis=1)
        moved[start : start + len(rows)][gains] = numbers[best[gains]]
    return moved


def _basis(matrix: torch.Tensor, each: Cluster) -> np.ndarray:
    """Return an orthonormal basis of a cluster's subspace: its leading right singular vectors, or others of the same span."""
    leading = each.decomposition.basis[:, : each.rank]
    if len(each.rows) > matrix.shape[1]:
        return leading
    rows = matrix[torch.from_numpy(each.rows)].to(torch.float64).numpy()
    return np.asarray(np.linalg.qr(rows.T @ leading)[0])
