"""Numbers of a merge that are not the recomputed ones: whether these are roundings, and otherwise what they are instead."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice, permutations
from typing import TYPE_CHECKING

import torch

from herdbook.audit.closeness import Closeness
from herdbook.audit.drawn import drawn
from herdbook.humanize import joined

if TYPE_CHECKING:
    from herdbook.audit.planned import PlannedMerge
    from herdbook.audit.recomputation import Computed

MOST_ORDERS = 24
# Methods that select elements by their rank, of which equal ones are chosen in any order; and how many these may be.
RANKING = ("ties", "breadcrumbs", "breadcrumbs_ties", "sce", "arcee_fusion")
MOST_TIES = 1e-3


@dataclass(frozen=True)
class Difference:
    """Numbers of a merge, and the recomputed ones, of which at least one is another.

    Args:
        planned: The plan of the merge.
        found: The merge's numbers.
        computed: The recomputed ones.
    """

    planned: PlannedMerge
    found: torch.Tensor
    computed: Computed

    @cached_property
    def result(self) -> torch.Tensor:
        """The recomputed numbers in the merge's dtype."""
        return self.computed.result.to(self.found.dtype)

    @cached_property
    def closeness(self) -> Closeness:
        """How near the numbers are."""
        weights = self.computed.values.get("weights")
        weight = max(map(abs, weights)) if isinstance(weights, list) and weights else 1.0
        dtype = max((self.computed.dtype, self.found.dtype), key=lambda one: torch.finfo(one).eps)
        same = all(one.shape == self.found.shape for one in self.computed.inputs)
        inputs = self.computed.inputs if same else ()
        closeness = Closeness(len(inputs), dtype, weight=weight)
        closeness.add(self.found, self.result, self.computed.exact(), inputs)
        return closeness

    @cached_property
    def _inputs(self) -> list[str]:
        parts = self.planned.plan.parts
        return [self.planned.title(parts[origin.part].model) for origin in self.computed.tensor.origins]

    def of_copy(self) -> str:
        """Return what is wrong with numbers that must be a copy, or put together of rows."""
        count = int((self.found != self.result).sum())
        source = self.planned.title(self.computed.part.model)
        return f"{count:,} of {self.found.numel():,} numbers differ from {source}, which it is a copy of"

    def of_drawn(self) -> str:
        """Return what is wrong with numbers that random numbers decide; empty if they are possible.

        Raises:
            UnverifiedError: If there are more models than can be tried.
        """
        assert self.computed.operation  # noqa: S101 - only merges are drawn
        outcome = drawn(self.found, self.computed.inputs, self.computed.operation, self.computed.values)
        if outcome.is_possible:
            return ""
        if outcome.impossible:
            return (
                f"{outcome.impossible:,} of {outcome.count:,} numbers are none of the values that dropping or keeping elements "
                "can give"
            )
        worst = max(range(len(outcome.deviations)), key=lambda index: outcome.deviations[index])
        return (
            f"{outcome.kept[worst]:.4f} of the elements of {self._inputs[worst + 1]} are kept; the configuration keeps "
            f"{outcome.densities[worst]:.4f} of them"
        )

    def beyond_roundings(self, *, explain: bool = True) -> str:
        """Return what is wrong with the numbers of a merge; empty if they may differ by roundings alone.

        Args:
            explain: Whether to look for what the numbers are instead, which recomputes them many times.
        """
        assert self.computed.operation  # noqa: S101 - only merges are compared so
        closeness = self.closeness
        few = closeness.outliers <= MOST_TIES * closeness.count
        ties = self.computed.operation.method in RANKING and few
        if closeness.outliers and not ties:
            return self._problem(f"{closeness.outliers:,} of them by more than roundings do", explain=explain)
        if closeness.is_rounded or (ties and closeness.outliers and not closeness.systematic()):
            return ""
        along = "or along the models' differences"
        return self._problem(f"by {closeness.ratio:.3g} times as much as roundings, {along}", explain=explain)

    def _problem(self, problem: str, *, explain: bool) -> str:
        """Return a problem, and what the numbers are instead, as far as that can be found out."""
        computed, found, closeness = self.computed, self.found, self.closeness
        assert computed.operation  # noqa: S101 - only merges are explained
        text = f"{closeness.differing:,} of {closeness.count:,} numbers differ, {problem}"
        if not explain:
            return text
        for title, numbers in zip(self._inputs, computed.inputs, strict=True):
            if numbers.shape == found.shape and bool((numbers.to(found.dtype) == found).all()):
                return f"{text}. They are those of {title} alone"
        if order := self._order():
            return f"{text}. They are what the configuration gives with the models in the order {order} (swapped)"
        if closeness.outliers and closeness.differing < 0.01 * closeness.count:
            return f"{text}; the others are equal, so single numbers were altered"
        weights, systematic = computed.values.get("weights"), closeness.systematic()
        if (
            systematic
            and closeness.is_explained
            and isinstance(weights, list)
            and computed.operation.method in {"linear", "task_arithmetic"}
        ):
            changes = _changes(systematic, weights)
            fitted = joined(f"{weight + change:.3f}" for weight, change in zip(weights, changes, strict=True))
            given = joined(f"{weight:.3f}" for weight in weights)
            return f"{text}. They fit the weights {fitted} best; the configuration gives {given}"
        return (
            f"{text}. Another model, another weight or another version of a source was merged, or the numbers were changed "
            "afterwards"
        )

    def _order(self) -> str:
        """Return the order of the models that gives exactly the numbers that were found; empty if none does."""
        computed, titles = self.computed, self._inputs
        if "rows" in computed.values:
            return ""
        for order in islice(permutations(range(len(titles))), 1, MOST_ORDERS):
            result = computed.with_inputs([computed.inputs[place] for place in order]).to(self.found.dtype)
            if bool((result == self.found).all()):
                return joined(titles[place] for place in order)
        return ""


def _changes(systematic: list[float], weights: list[float]) -> list[float]:
    """Return how much each weight differs, from the coefficients of the first model and of the others' differences from it."""
    if len(systematic) == len(weights):  # linear: the first coefficient is the change of the weights' sum
        return [systematic[0] - sum(systematic[1:]), *systematic[1:]]
    return systematic[1:]
