"""The reduction of one matrix, with its evidence: rank, spectrum, and how well the rule's assumption holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from herdbook.steps.laser.decompose import approximate, tolerance
from herdbook.steps.laser.evidence import describe_spectrum, is_noise, rounded
from herdbook.steps.laser.rank import keep

if TYPE_CHECKING:
    from herdbook.recipe import RankRule
    from herdbook.steps.laser.decompose import Decomposition


@dataclass(frozen=True)
class Reduction:
    """A reduced matrix, with the original's shape and dtype, and its evidence for the record."""

    matrix: torch.Tensor
    evidence: dict[str, Any]


def reduce(
    matrix: torch.Tensor,
    decomposition: Decomposition,
    rule: RankRule,
    device: str = "cpu",
    own_values: np.ndarray | None = None,
) -> Reduction:
    """Reduce a matrix by a rule.

    Args:
        matrix: Shape ``(rows, columns)``, a floating-point dtype.
        decomposition: The matrix's own decomposition; for ``svd-llm``, the whitened one.
        rule: The rank rule.
        device: Where to compute.
        own_values: The matrix's own singular values, if the decomposition is whitened.

    Returns:
        The best approximation of the rank that the rule chooses; the same bits if nothing is removed. The evidence:
        ``rule``, ``rank`` kept out of ``of``, ``threshold`` if there is one, ``energy`` kept (share of the sum of squared
        singular values, of the outputs for ``svd-llm``), ``change`` (Frobenius norm of the difference, after rounding,
        divided by that of the original), ``tolerance`` before rounding (not for ``svd-llm``), ``spectrum`` of the matrix,
        and ``assumption_holds`` for rules that assume noise.

    Source: Sharma et al. 2023, arXiv:2312.13558.
    """
    rows, columns = matrix.shape
    values = decomposition.values
    squares = values**2
    total = float(squares.sum())
    kept = keep(rule, values, rows, columns)
    if total == 0.0:
        rank, reduced = 0, matrix
    else:
        rank = kept.rank
        reduced = approximate(matrix, decomposition, rank, device)
    evidence: dict[str, Any] = {
        "rule": rule.canonical,
        "rank": rank,
        "of": len(values),
        "energy": rounded(float(squares[:rank].sum()) / total) if total else 1.0,
        "change": rounded(relative_change(matrix, reduced)),
    }
    if kept.threshold is not None:
        evidence["threshold"] = rounded(kept.threshold)
    if device != "cpu":
        evidence["device"] = device.partition(":")[0]
    if rule.needs_text:
        if own_values is not None:
            evidence["spectrum"] = describe_spectrum(own_values, rows, columns)
        return Reduction(reduced, evidence)
    bound = tolerance(decomposition, rank, rows, columns)
    evidence["tolerance"] = rounded(bound, 2) if np.isfinite(bound) else None
    evidence["spectrum"] = spectrum = describe_spectrum(values, rows, columns)
    if rule.assumes_noise:
        evidence["assumption_holds"] = is_noise(spectrum["misfit"], len(values))
    return Reduction(reduced, evidence)


def relative_change(before: torch.Tensor, after: torch.Tensor) -> float:
    """Return the Frobenius norm of the difference divided by that of the original, row by row in float64."""
    lost = kept = 0.0
    for old, new in zip(before, after, strict=True):
        wide = old.to(torch.float64)
        lost += float(((new.to(torch.float64) - wide) ** 2).sum())
        kept += float((wide**2).sum())
    return (lost / kept) ** 0.5 if kept else 0.0
