"""How near numbers are to those that a merge must have: equal in bits, equal but for roundings, or others.

Another version of mergekit, a GPU or another library rounds in another order. Such roundings are about as large as those of the
reference, and they do not depend on the models. So numbers count as rounded if their errors are as small as the reference's
own, and if they do not go along with the models' numbers: other weights, however small the models' differences are, leave
errors that are a combination of these, which a least-squares fit over many elements finds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

# How much larger than the reference's own rounding errors those of others may be (root mean square).
LARGEST_RATIO = 1.5
# How far, in units in the last place of the largest number involved, a rounded number may be off.
LARGEST_DISTANCE = 8
# A coefficient is not of roundings if it is that many standard errors from zero, and larger than what rounding a weight to the
# dtype of the computation can change it by.
SIGNIFICANT = 8.0


@dataclass
class Closeness:
    """The comparison of numbers with what they must be, over as many blocks as are added.

    Args:
        directions: The number of models.
        dtype: The dtype that the merge is computed in, or that is written, whichever is coarser.
        weight: The largest weight.
    """

    directions: int
    dtype: torch.dtype
    weight: float = 1.0
    count: int = 0
    differing: int = 0
    outliers: int = 0
    distance: float = 0.0
    _errors: float = 0.0
    _reference: float = 0.0
    _products: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    _errors_along: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    def __post_init__(self) -> None:
        self._products = torch.zeros(self.directions, self.directions, dtype=torch.float64)
        self._errors_along = torch.zeros(self.directions, dtype=torch.float64)

    def add(
        self,
        found: torch.Tensor,
        result: torch.Tensor,
        exact: torch.Tensor,
        inputs: Sequence[torch.Tensor],
    ) -> None:
        """Add numbers.

        Args:
            found: The merge's numbers.
            result: What the reference gives, in the same dtype.
            exact: The same in float32, before it is rounded.
            inputs: The models' numbers; the first model's, then those that others are compared with it by.
        """
        found, result, exact = (one.reshape(-1).double() for one in (found, result, exact))
        models = [one.reshape(-1).double() for one in inputs]
        error, reference = found - exact, result - exact
        largest = torch.stack([one.abs() for one in (*models, exact)]).amax(dim=0)
        unit = largest * torch.finfo(self.dtype).eps
        far = error.abs() / unit.clamp(min=torch.finfo(torch.float64).tiny)
        far = torch.where(error == 0, 0.0, far)
        self.count += found.numel()
        self.differing += int((found != result).sum())
        self.outliers += int((far > LARGEST_DISTANCE).sum())
        self.distance = max(self.distance, float(far.max()) if found.numel() else 0.0)
        self._errors += float(error.square().sum())
        # an exact result still has the rounding of one number
        self._reference += float(torch.maximum(reference.square(), (unit / 4).square()).sum())
        if models:
            along = torch.stack([models[0], *(one - models[0] for one in models[1:])])
            self._products += along @ along.T
            self._errors_along += along @ error

    def merge(self, other: Closeness) -> None:
        """Add all that was added to another comparison of as many models."""
        self.count += other.count
        self.differing += other.differing
        self.outliers += other.outliers
        self.distance = max(self.distance, other.distance)
        self._errors += other._errors
        self._reference += other._reference
        self._products += other._products
        self._errors_along += other._errors_along

    @property
    def is_equal(self) -> bool:
        """Whether all numbers are equal in bits, but for the sign of zero."""
        return not self.differing

    @property
    def ratio(self) -> float:
        """The errors' root mean square, divided by that of the reference's roundings."""
        if not self._reference:
            return math.inf if self._errors else 0.0
        return math.sqrt(self._errors / self._reference)

    @property
    def tolerance(self) -> float:
        """How far rounding the weights to the dtype of the computation can change a coefficient."""
        return 2 * float(torch.finfo(self.dtype).eps) * max(1.0, self.weight)

    def coefficients(self) -> list[tuple[float, float]]:
        """Return the combination of the models' numbers that the errors fit best.

        Returns:
            For the first model's numbers, and for the difference of each other model from it: the coefficient, and its standard
            error. A direction that has no numbers has coefficient 0.
        """
        scale = self._products.diagonal().sqrt().clamp(min=torch.finfo(torch.float64).tiny)
        products = self._products / scale / scale[:, None]
        inverse = torch.linalg.pinv(products, hermitian=True, rtol=1e-9)
        found = inverse @ (self._errors_along / scale)
        rest = max(0.0, self._errors - float(found @ (self._errors_along / scale)))
        variance = rest / max(1, self.count - self.directions)
        errors = (variance * inverse.diagonal().clamp(min=0)).sqrt()
        return [
            (float(value / size), float(error / size))
            for value, error, size in zip(found, errors, scale, strict=True)
        ]

    @property
    def is_explained(self) -> bool:
        """Whether nothing but roundings is left of the errors without the combination that they fit best."""
        found = torch.tensor([value for value, _ in self.coefficients()], dtype=torch.float64)
        rest = self._errors - float(found @ self._errors_along)
        return rest <= LARGEST_RATIO**2 * self._reference

    def systematic(self) -> list[float] | None:
        """Return the errors' coefficients if they are no roundings; None if they may be."""
        if not self.directions or self.is_equal:
            return None
        found = self.coefficients()
        wrong = any(
            abs(value) > self.tolerance and abs(value) > SIGNIFICANT * error for value, error in found
        )
        return [value for value, _ in found] if wrong else None

    @property
    def is_rounded(self) -> bool:
        """Whether the numbers may differ by roundings alone; ties of a ranking, which selects others, are outliers."""
        return self.ratio <= LARGEST_RATIO and self.systematic() is None
