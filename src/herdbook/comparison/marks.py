"""Marks: the results that a release must reach, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.comparison.verdict import ALPHA, Comparison, from_json
from herdbook.layout import COMPARISONS, EVALUATIONS
from herdbook.plan.evaluate import measured_as

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from herdbook.plan import Plan
    from herdbook.recipe.evaluate import Mark


class MarkError(ValueError):
    """A mark cannot be compared with what was measured; the message names it."""


@dataclass(frozen=True)
class Outcome:
    """Whether a mark is reached.

    Args:
        mark: The mark.
        value: The released model's result.
        met: Whether it is reached.
        why: What decides it, for people.
    """

    mark: Mark
    value: Any
    met: bool
    why: str

    @property
    def asked(self) -> str:
        """The requirement of the mark, for people."""
        if self.mark.no_worse_than is not None:
            return f"no worse than {self.mark.no_worse_than}"
        if self.mark.at_least is not None:
            return f"at least {self.mark.at_least:g}"
        return f"at most {self.mark.at_most:g}"

    @property
    def json(self) -> dict[str, Any]:
        """The outcome in a claim."""
        required = self.mark.model_dump(mode="json", exclude_none=True)
        return {**required, "value": self.value, "met": self.met, "why": self.why}


def outcomes(plan: Plan, read_json: Callable[[str], Any]) -> tuple[Outcome, ...]:
    """Return the outcomes of a plan's marks.

    Args:
        plan: The plan.
        read_json: Returns a JSON file of the release by its name.

    Raises:
        MarkError: See ``judge_marks``.
        LookupError: If a file is damaged.
    """
    if not plan.recipe.marks:
        return ()
    own = measured_as(plan.evaluations, plan.released.name)
    compares = any(mark.no_worse_than for mark in plan.recipe.marks)
    comparisons = from_json(read_json(COMPARISONS)) if compares else ()
    tasks = {
        task: result
        for item in own
        for task, result in results_of(read_json(f"{EVALUATIONS}/{item.id}.json")).items()
    }
    return judge_marks(plan, tasks, comparisons)


def results_of(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results that a measurement states, of tasks and of groups as a whole, by name."""
    return {**measured["tasks"], **measured.get("groups", {})}


def judge_marks(
    plan: Plan, tasks: Mapping[str, Any], comparisons: Sequence[Comparison]
) -> tuple[Outcome, ...]:
    """Return the outcomes of a plan's marks.

    A model is no worse than another unless by the paired test, with its own probability: were that corrected for the
    number of comparisons, each further comparison would make marks easier to reach.

    Args:
        plan: The plan.
        tasks: The released model's results, as its measurement states them.
        comparisons: The comparisons.

    Raises:
        MarkError: If a metric was not measured, or not tested, or a limit is on the side of the better results.
    """
    found = []
    for index, mark in enumerate(plan.recipe.marks):
        where = f"marks.{index}"
        metrics = tasks[mark.task]["metrics"]
        if mark.metric not in metrics:
            raise MarkError(
                f"{where}.metric: {mark.task} has no {mark.metric!r}; it has {'; '.join(metrics)}"
            )
        score = metrics[mark.metric]
        higher = score["higher_is_better"]
        if (mark.at_least is not None and not higher) or (mark.at_most is not None and higher):
            raise MarkError(
                f"{where}: of {mark.metric}, {'higher' if higher else 'lower'} results are better: "
                f"use `{'at_least' if higher else 'at_most'}`"
            )
        if mark.no_worse_than is None:
            met = (
                score["value"] >= mark.at_least
                if mark.at_least is not None
                else score["value"] <= (mark.at_most or 0)
            )
            found.append(Outcome(mark, score["value"], bool(met), "the measured value"))
            continue
        wanted = (plan.released.name, mark.no_worse_than, mark.task, mark.metric)
        test = next(c for c in comparisons if (c.model, c.other, c.task, c.metric) == wanted)
        if test.p is None or test.difference is None:
            raise MarkError(f"{where}: {test.verdict}")
        worse = test.p <= ALPHA and (test.difference > 0) != higher and bool(test.difference)
        why = f"difference {test.difference:+.4g}, p {test.p:.4f}, uncorrected"
        found.append(Outcome(mark, score["value"], not worse, why))
    return tuple(found)
