"""Two factors of low rank whose product is the best approximation of a difference, and how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from herdbook.errors import CheckpointError
from herdbook.steps.laser.decompose import UNIT_ROUNDOFF, decompose
from herdbook.steps.laser.rank import keep

if TYPE_CHECKING:
    import torch

    from herdbook.recipe.rank import RankRule


@dataclass(frozen=True)
class Factors:
    """LoRA matrices.

    Args:
        a: Shape ``(rank, columns)``, float32.
        b: Shape ``(rows, rank)``, float32.
        energy: The share of the difference's squared norm that ``b @ a`` has.
    """

    a: np.ndarray
    b: np.ndarray
    energy: float

    @property
    def rank(self) -> int:
        """The rank of their product."""
        return len(self.a)


def factorize(difference: torch.Tensor, rule: RankRule, what: str, device: str = "cpu") -> Factors:
    """Return the factors of a difference's best approximation (Eckart and Young 1936), rounded once to float32.

    The difference is projected on its leading directions in float64. Both factors have the same norms, the square roots of
    the singular values. Directions whose singular value is zero up to rounding are dropped, whatever the rule keeps.

    Args:
        difference: Shape ``(rows, columns)``, float64, not zero.
        rule: How many singular values are kept.
        what: The tensor, for error messages.
        device: Where the matrix is decomposed.

    Raises:
        CheckpointError: If the factors have values that float32 cannot represent.
    """
    decomposition = decompose(difference, device)
    rows, columns = difference.shape
    rank = keep(rule, decomposition.values, rows, columns).rank
    directions = decomposition.basis[:, :rank]
    tall = rows > columns  # the smaller side's directions are known, see `Decomposition`
    wide = difference.numpy()
    images = (wide if tall else wide.T) @ directions
    norms = np.linalg.norm(images, axis=0)
    kept = norms > norms.max() * max(rows, columns) * UNIT_ROUNDOFF
    roots = np.sqrt(norms[kept])
    left, right = directions[:, kept] * roots, images[:, kept] / roots
    b, a = (right, left.T) if tall else (left, right.T)
    with np.errstate(over="ignore"):
        rounded = Factors(
            np.ascontiguousarray(a, dtype=np.float32),
            np.ascontiguousarray(b, dtype=np.float32),
            min(1.0, float((norms[kept] ** 2).sum() / np.vdot(wide, wide))),
        )
    if not (np.isfinite(rounded.a).all() and np.isfinite(rounded.b).all()):
        raise CheckpointError(f"{what}: its difference has values that float32 cannot represent")
    return rounded
