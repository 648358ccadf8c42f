"""What comparing the tensors of a dense merge showed: of single tensors, of all together, and the findings that follow."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from herdbook.audit.closeness import Closeness
from herdbook.audit.level import LEVEL, UNPROVEN
from herdbook.humanize import joined
from herdbook.release.finding import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from herdbook.audit.model import Model
    from herdbook.release.finding import Finding

MADE = Check(LEVEL, "made")
MOST_SHOWN = 8


@dataclass
class Outcomes:
    """What comparing the tensors of a dense merge has shown so far.

    Args:
        equal: Tensors whose compared bytes are all equal.
        near: How near those are that differ by roundings.
        drawn: Tensors that can be what was drawn.
        reordered: Tensors with a row for each token, whose rows may be in another order.
        wrong: What is wrong with others, with the tensor first.
        errors: Why tensors could not be compared.
        compared: The number of bytes that were compared, by tensor.
    """

    equal: set[str] = field(default_factory=set)
    near: dict[str, Closeness] = field(default_factory=dict)
    drawn: set[str] = field(default_factory=set)
    reordered: set[str] = field(default_factory=set)
    wrong: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    compared: Counter[str] = field(default_factory=Counter)

    def judge(self) -> None:
        """Compare all tensors that differ by roundings together: what one does not show, many do."""
        pooled: dict[tuple[int, torch.dtype], Closeness] = {}
        for closeness in self.near.values():
            key = closeness.directions, closeness.dtype
            pooled.setdefault(key, Closeness(*key, weight=closeness.weight)).merge(closeness)
        for (directions, dtype), closeness in pooled.items():
            if closeness.systematic() is None:
                continue
            for name, one in list(self.near.items()):
                if (one.directions, one.dtype) == (directions, dtype):
                    del self.near[name]
                    self.wrong[name] = (
                        f"{one.differing:,} of {one.count:,} numbers differ by no more than roundings, but over all tensors along "
                        "the models' differences: another weight was used"
                    )

    def findings(self, merge: Model, methods: str) -> Iterator[Finding]:
        """Yield what was found of the tensors.

        Args:
            merge: The merge.
            methods: The methods that made it, for people.
        """
        known = {*self.wrong, *self.errors, *self.near}
        if equal := self.equal - known:
            size = sum(self.compared[name] for name in equal)
            yield MADE.passed(f"{len(equal)} tensors", f"{methods}: equal in bits in {size:,} bytes")
        if near := [one for name, one in self.near.items() if name not in self.wrong]:
            count, differing = sum(one.count for one in near), sum(one.differing for one in near)
            distance = max(one.distance for one in near)
            yield MADE.passed(
                f"{len(near)} tensors",
                f"{methods}: equal but for roundings: {differing:,} of {count:,} numbers differ, by at most {distance:.2g} units in "
                "the last place",
            )
        if self.drawn - self.wrong.keys():
            yield MADE.passed(
                f"{len(self.drawn - self.wrong.keys())} tensors",
                f"{methods}: each number is what dropping or keeping elements of the task vectors gives, and as many are kept as "
                "the densities state",
            )
        shown = sorted(islice(self.wrong.items(), MOST_SHOWN))  # the first ones, which are explained
        for name, problem in shown:
            piece = merge.pieces[name]
            yield MADE.failed(name, problem, file=piece.file, tensor=piece.tensor)
        if rest := sorted(self.wrong.keys() - dict(shown).keys()):
            yield MADE.failed(f"{len(rest)} more tensors", f"differ, such as {rest[0]}")
        by_reason: dict[str, list[str]] = defaultdict(list)
        for name, error in self.errors.items():
            by_reason[str(error)].append(name)
        for names in by_reason.values():
            yield MADE.error(f"{len(names)} tensors", self.errors[names[0]], tensor=names[0])

    def unproven(self) -> Iterator[Finding]:
        """Yield what is not excluded by it."""
        if self.near:
            yield UNPROVEN.unverified(
                "roundings",
                f"{len(self.near)} tensors are equal but for roundings, as other versions of mergekit and GPUs make them. "
                "Changes as small as roundings are not excluded.",
            )
        if self.drawn:
            yield UNPROVEN.unverified(
                "drawn",
                f"Which elements of {len(self.drawn)} tensors were dropped is not proven: mergekit drew random numbers.",
            )
        if self.reordered:
            yield UNPROVEN.unverified(
                "embeddings",
                f"{joined(sorted(self.reordered))} are not proven: they are made for a vocabulary of several models, and have "
                "other rows than here; the order in which mergekit adds tokens is not fixed.",
            )
