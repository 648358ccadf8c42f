"""The reduction of one matrix, with its evidence: rank, spectrum, and how well the rule's assumption holds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from herdbook.recipe.rank import Clustered
from herdbook.steps.laser.clusters import cluster, join, joint_tolerance
from herdbook.steps.laser.decompose import approximate, tolerance
from herdbook.steps.laser.evidence import describe_spectrum, is_noise, rounded
from herdbook.steps.laser.rank import keep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.recipe import RankRule
    from herdbook.steps.laser.clusters import Cluster
    from herdbook.steps.laser.decompose import Decomposition
    from herdbook.weights.record import Evidence


class Cut:
    """What a rule keeps of a matrix, before the reduced matrix is made.

    Args:
        matrix: Shape ``(rows, columns)``, a floating-point dtype.
        decomposition: The matrix's own decomposition; for ``svd-llm``, the whitened one.
        rule: The rank rule.
        device: Where to compute.

    Attributes:
        rank: How many singular values are kept, of all clusters together, if any.
        of: Out of how many.
        energy: The share of the sum of their squares that is kept; 1 for a matrix of zeros.
        threshold: The rule's threshold, if it has one.
        clusters: The clusters of the rows; empty if the rule makes none.
    """

    def __init__(
        self, matrix: torch.Tensor, decomposition: Decomposition, rule: RankRule, device: str = "cpu"
    ) -> None:
        self._matrix, self._decomposition, self._device = matrix, decomposition, device
        self.clusters: tuple[Cluster, ...] = ()
        self.threshold: float | None = None
        if isinstance(rule, Clustered):
            self.clusters = cluster(matrix, rule, device)
            parts = [(each.decomposition.values**2, each.rank) for each in self.clusters]
        else:
            values = decomposition.values
            kept = keep(rule, values, *matrix.shape)
            self.threshold = kept.threshold
            parts = [(values**2, kept.rank)]
        self.rank, self.of = sum(rank for _, rank in parts), sum(len(squares) for squares, _ in parts)
        total = sum(float(squares.sum()) for squares, _ in parts)
        self.is_zero = total == 0.0
        self.energy = (
            1.0 if self.is_zero else sum(float(squares[:rank].sum()) for squares, rank in parts) / total
        )

    def make(self) -> torch.Tensor:
        """Return the reduced matrix; the same bits if nothing is removed."""
        if self.clusters:
            return join(self._matrix, self.clusters, self._device)
        return approximate(self._matrix, self._decomposition, self.rank, self._device)

    @property
    def tolerance(self) -> float:
        """See ``herdbook.steps.laser.decompose.tolerance``."""
        if self.clusters:
            return joint_tolerance(self.clusters, self._matrix.shape[1])
        return tolerance(self._decomposition, self.rank, *self._matrix.shape)


@dataclass(frozen=True)
class Reduction:
    """A reduced matrix, with the original's shape and dtype, and its evidence for the record."""

    matrix: torch.Tensor
    evidence: Evidence


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
        ``rule``, ``rank`` kept out of ``of``, ``threshold`` and ``clusters``, if any, ``energy`` kept (share of the
        sum of squared singular values, of the outputs for ``svd-llm``), ``change`` (Frobenius norm of the difference,
        after rounding, divided by that of the original), ``tolerance`` before rounding (not for ``svd-llm``),
        ``spectrum`` of the matrix, and ``assumption_holds`` for rules that assume noise.

    Source: Sharma et al. 2023, arXiv:2312.13558.
    """
    rows, columns = matrix.shape
    values = decomposition.values
    cut = Cut(matrix, decomposition, rule, device)
    rank, reduced = (0, matrix) if cut.is_zero else (cut.rank, cut.make())
    evidence: Evidence = {
        "rule": rule.canonical,
        "rank": rank,
        "of": cut.of,
        "energy": rounded(cut.energy),
        "change": rounded(relative_change(matrix, reduced)),
    }
    if cut.clusters:
        evidence["clusters"] = _describe(cut.clusters, rows)
    if cut.threshold is not None:
        evidence["threshold"] = rounded(cut.threshold)
    if device != "cpu":
        evidence["device"] = device.partition(":")[0]
    if rule.needs_text:
        if own_values is not None:
            evidence["spectrum"] = describe_spectrum(own_values, rows, columns)
        return Reduction(reduced, evidence)
    bound = 0.0 if cut.is_zero else cut.tolerance
    evidence["tolerance"] = rounded(bound, 2) if np.isfinite(bound) else None
    evidence["spectrum"] = spectrum = describe_spectrum(values, rows, columns)
    if rule.assumes_noise:
        evidence["assumption_holds"] = is_noise(spectrum["misfit"], len(values))
    return Reduction(reduced, evidence)


def _describe(clusters: Sequence[Cluster], rows: int) -> dict[str, Any]:
    """Describe clusters: how many rows and which rank each has, and a digest of which row is in which, as bytes."""
    places = np.zeros(rows, dtype=np.uint8)
    for number, each in enumerate(clusters):
        places[each.rows] = number
    return {
        "rows": [len(each.rows) for each in clusters],
        "ranks": [each.rank for each in clusters],
        "places_sha256": hashlib.sha256(places.tobytes()).hexdigest(),
    }


def relative_change(before: torch.Tensor, after: torch.Tensor) -> float:
    """Return the Frobenius norm of the difference divided by that of the original, row by row in float64."""
    lost = kept = 0.0
    for old, new in zip(before, after, strict=True):
        wide = old.to(torch.float64)
        lost += float(((new.to(torch.float64) - wide) ** 2).sum())
        kept += float((wide**2).sum())
    return (lost / kept) ** 0.5 if kept else 0.0
