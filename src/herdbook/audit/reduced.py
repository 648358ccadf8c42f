"""Whether a matrix is another one with its rank reduced, as LASER makes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from herdbook.weights.tensors import DTYPES

# The largest ratio of what is left to roundings (root mean square).
LARGEST_REST = 2.0


@dataclass(frozen=True)
class Reduced:
    """A reduced matrix.

    Args:
        rank: Its rank.
        full: The rank of the matrix that it was made of, at most.
        lost: The share of the energy (squared singular values) that was cut off.
    """

    rank: int
    full: int
    lost: float


def reduced(found: torch.Tensor, source: torch.Tensor, dtype: str) -> Reduced | None:
    """Return to which rank a matrix was reduced; None if it is not the other one with a lower rank.

    The singular values of the reduced matrix beyond its rank are those of its roundings, far below those of the source. So the
    rank is where they fall apart, and the source cut to that rank must be the matrix but for roundings.

    Args:
        found: The matrix, rows x columns.
        source: The matrix that it may have been made of, of the same shape.
        dtype: The dtype in which the matrix is stored, by safetensors' code.
    """
    u, values, v = torch.linalg.svd(source.double(), full_matrices=False)
    full = len(values)
    energies = values.square()
    lost = float((found.double() - source.double()).square().sum())
    # what was cut off has the energy of the last singular values: their number follows
    tails = energies.flip(0).cumsum(0)
    cut = int((tails < lost).sum())
    best: tuple[float, int] | None = None
    rounding = torch.finfo(DTYPES[dtype]).eps * found.double().abs() / 12**0.5
    for dropped in range(max(1, cut - 2), min(full, cut + 3)):
        rank = full - dropped
        rest = float((found.double() - (u[:, :rank] * values[:rank]) @ v[:rank]).norm())
        if best is None or rest < best[0]:
            best = rest, rank
    if best is None or best[0] > LARGEST_REST * float(rounding.norm()):
        return None
    return Reduced(best[1], full, float(energies[best[1] :].sum() / energies.sum()))
