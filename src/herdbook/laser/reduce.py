"""The reduction itself: the best approximation of a matrix by one of lower rank, exact and reproducible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from herdbook.laser.rank import keep_above_noise, keep_fraction, marchenko_pastur_edge


@dataclass(frozen=True)
class Reduction:
    """A reduced matrix and the evidence.

    Args:
        matrix: The approximation, of the original's shape and dtype.
        rank: How many singular values were kept.
        of: How many there were.
        energy: Kept share of the sum of squared singular values.
        change: Frobenius norm of the difference over that of the original, as measured after rounding.
        noise_edge: Largest singular value that noise of this shape and this median would have.
    """

    matrix: torch.Tensor
    rank: int
    of: int
    energy: float
    change: float
    noise_edge: float


def reduce(matrix: torch.Tensor, rank: Any) -> Reduction:
    """Return the best approximation of ``matrix`` whose rank a rule chooses.

    The right singular vectors are the eigenvectors of the Gram matrix, both in float64; the matrix (tall; transposed
    if it is wide) is projected on the leading ones, and rounded once at the end. Compared with a full SVD this gives
    the same rank and the same bits in the dtypes of weights, in a fraction of the time.

    Args:
        matrix: Shape ``(rows, columns)``, any floating-point dtype, finite.
        rank: ``"marchenko-pastur"``, or ``{"fraction": share}``.

    Source: Eckart and Young 1936 (best approximation); Sharma et al. 2023, arXiv:2312.13558 (the use).
    """
    rows, columns = matrix.shape
    tall = matrix.to(torch.float64)
    if rows < columns:
        tall = tall.T
    values, vectors = torch.linalg.eigh(tall.T @ tall)  # ascending
    squares = values.clamp(min=0).flip(0)
    singular = squares.sqrt().tolist()
    edge = marchenko_pastur_edge(singular, rows, columns)
    if rank == "marchenko-pastur":
        kept = keep_above_noise(singular, rows, columns)
    else:
        kept = keep_fraction(len(singular), rank["fraction"])
    total = float(squares.sum())
    if kept == len(singular) or total == 0.0:
        return Reduction(matrix, len(singular) if total else 0, len(singular), 1.0, 0.0, edge)
    leading = vectors[:, -kept:]
    reduced = (tall @ leading) @ leading.T
    if rows < columns:
        reduced = reduced.T
    rounded = reduced.to(matrix.dtype).contiguous()
    original = matrix.to(torch.float64)
    change = float(torch.linalg.norm(rounded.to(torch.float64) - original) / torch.linalg.norm(original))
    return Reduction(rounded, kept, len(singular), float(squares[:kept].sum()) / total, change, edge)
