"""Decompositions of weight matrices, and their best approximations: exact, in float64, reproducible bit for bit.

The right singular vectors of a tall matrix are the eigenvectors of its Gram matrix; a wide or square matrix is transposed.
This takes a third of a full SVD's operations. With n the larger side, m the smaller side, and k the rank:

=========================================== ============================== ====================
step                                        operations                     4096 x 14336, k 1024
=========================================== ============================== ====================
Gram matrix (half of it; it is symmetric)   n m^2                          241 GFLOP
tridiagonal form, its eigenvectors, back    4/3 m^3, about 4/3 m^3, 2 m^3  321 GFLOP
approximation, by the smaller side          4 n m min(k, m - k)            241 GFLOP
=========================================== ============================== ====================

Each matrix is decomposed by one thread, so that the bits do not depend on the number of threads; threads work on different
matrices. A matrix is read in pieces of rows, so that in addition to it only squares of the smaller side are in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE_ELEMENTS = 1 << 23  # elements of a matrix that are converted to float64 at a time: 64 MB
UNIT_ROUNDOFF = 2.0**-53


@dataclass(frozen=True)
class Decomposition:
    """A matrix's singular values, and the bases that project it on its leading directions; see ``approximate``.

    Args:
        values: Singular values, descending, float64, shape ``(m,)``.
        basis: Columns that span the smaller side, in the order of ``values``, float64, shape ``(m, m)``.
        dual: The dual basis; None if the basis is orthonormal, and so its own dual.
    """

    values: np.ndarray
    basis: np.ndarray
    dual: np.ndarray | None = None


def decompose(matrix: torch.Tensor, device: str = "cpu") -> Decomposition:
    """Decompose a matrix.

    Args:
        matrix: Shape ``(rows, columns)``, a floating-point dtype, finite.
        device: Where to compute. The CPU's result is the reference; results of other devices differ within ``tolerance``.

    Returns:
        Singular values, with an absolute error of about 1e-8 of the largest, and right singular vectors of the matrix, or
        of its transpose if it is not tall.
    """
    gram = gram_matrix(matrix, device)
    return Decomposition(*eigen(gram, device))


def singular_values(matrix: torch.Tensor, device: str = "cpu") -> np.ndarray:
    """Return only a matrix's singular values, descending, float64, in a third of the time of a decomposition."""
    squares = torch.linalg.eigvalsh(torch.from_numpy(gram_matrix(matrix, device)).to(device))
    return np.asarray(np.sqrt(np.maximum(squares.cpu().numpy()[::-1], 0)))


def gram_matrix(matrix: torch.Tensor, device: str = "cpu") -> np.ndarray:
    """Return the Gram matrix of the smaller side in float64, shape ``(m, m)``."""
    size = min(matrix.shape)
    if device != "cpu":
        total = torch.zeros(size, size, dtype=torch.float64, device=device)
        for piece in _pieces(matrix.to(device)):
            wide = piece.to(torch.float64)
            total += wide.T @ wide
        return np.asarray(total.cpu())
    gram = np.zeros((size, size))
    for piece in _pieces(matrix):
        wide = piece.to(torch.float64).numpy()
        gram += wide.T @ wide  # NumPy detects the symmetry and computes one half
    return gram


def eigen(gram: np.ndarray, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Return square roots of a Gram matrix's eigenvalues, descending, and the eigenvectors as columns."""
    if device == "cpu":
        squares, vectors = np.linalg.eigh(gram)
    else:
        eigenvalues, eigenvectors = torch.linalg.eigh(torch.from_numpy(gram).to(device))
        squares, vectors = eigenvalues.cpu().numpy(), eigenvectors.cpu().numpy()
    return np.sqrt(np.maximum(squares[::-1], 0)), np.ascontiguousarray(vectors[:, ::-1])


def approximate(
    matrix: torch.Tensor, decomposition: Decomposition, rank: int, device: str = "cpu"
) -> torch.Tensor:
    """Return the approximation of a given rank, rounded once to the matrix's dtype.

    The matrix is projected on the kept directions, or its projection on the others is subtracted, whichever are fewer. The
    result is the best of its rank in the Frobenius norm (Eckart and Young 1936) if the decomposition is the matrix's own.

    Args:
        matrix: The matrix that was decomposed, shape ``(rows, columns)``.
        decomposition: Its decomposition.
        rank: At least zero, at most ``min(rows, columns)``.
        device: Where to compute.
    """
    size = len(decomposition.values)
    if rank >= size:
        return matrix
    orthonormal = decomposition.dual is None
    dual = decomposition.basis if decomposition.dual is None else decomposition.dual
    subtract = orthonormal and rank > size - rank
    side = slice(rank, size) if subtract else slice(0, rank)
    onto, back = np.ascontiguousarray(decomposition.basis[:, side]), np.ascontiguousarray(dual[:, side].T)
    project = _projection(onto, back, device)
    out = torch.empty_like(matrix, memory_format=torch.contiguous_format)
    for piece, target in zip(_pieces(matrix), _pieces(out), strict=True):
        wide = piece.to(torch.float64)
        part = project(wide)
        target.copy_(round_once(wide - part if subtract else part, matrix.dtype))
    return out


def _projection(onto: np.ndarray, back: np.ndarray, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that multiplies rows by two matrices; for another device, these are moved to it once."""
    if device == "cpu":
        return lambda rows: torch.from_numpy((rows.numpy() @ onto) @ back)
    moved_onto, moved_back = torch.from_numpy(onto).to(device), torch.from_numpy(back).to(device)
    return lambda rows: (rows.to(device) @ moved_onto @ moved_back).cpu()


def round_once(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Round float64 to a dtype, to nearest, ties to even, in one step.

    torch converts through float32, which rounds twice: about one bfloat16 in 10^5 is then rounded to the wrong side. Here
    the intermediate float32 is rounded to odd, which the second rounding cannot mistake for a tie.

    Source: Boldo and Melquiond 2008, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding
    to odd", theorem 3.
    """
    if dtype in {torch.float64, torch.float32}:
        return values.to(dtype)
    single = values.to(torch.float32)
    back = single.to(torch.float64)
    beyond = back.abs() > values.abs()
    bits = single.view(torch.int32) - beyond.to(torch.int32)  # toward zero: one less in magnitude
    odd = bits | (back != values).to(torch.int32)
    return odd.view(torch.float32).to(dtype)


def tolerance(decomposition: Decomposition, rank: int, rows: int, columns: int) -> float:
    """Return how far two float64 computations of an approximation may differ before rounding.

    To first order, an error E of the Gram matrix turns the projector by E_ij / (s_i^2 - s_j^2) between a kept
    direction i and a dropped one j, which moves the matrix by that times sqrt(s_i^2 + s_j^2). E is bounded in norm by
    n u s_1^2 (u = 2^-53; Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.5, and LAPACK's
    backward error for eigenvectors); an entry of it in the basis of eigenvectors is taken as sqrt(n) u s_1^2.

    Returns:
        The Frobenius norm of the difference divided by that of the matrix. Infinite if the spectrum is cut between equal
        values, where the best approximation is not unique.
    """
    squares = decomposition.values**2
    total = float(squares.sum())
    if rank in {0, len(squares)} or total == 0:
        return 0.0
    error = math.sqrt(max(rows, columns)) * UNIT_ROUNDOFF * float(squares[0])
    kept, dropped = squares[:rank, None], squares[None, rank:]
    gaps = kept - dropped
    if float(gaps.min()) <= error:
        return math.inf
    return error * math.sqrt(float(((kept + dropped) / gaps**2).sum()) / total)


def _pieces(matrix: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield a matrix, transposed if it is not tall, in pieces of rows: views, not copies."""
    tall = matrix if matrix.shape[0] > matrix.shape[1] else matrix.T
    rows = max(1, PIECE_ELEMENTS // tall.shape[1])
    for start in range(0, tall.shape[0], rows):
        yield tall[start : start + rows]
