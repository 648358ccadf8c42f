"""Comparisons on the card: made from the samples of the measurements, document by document."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.comparison.compare import Measured, Wanted, compare
from herdbook.comparison.marks import MarkError, judge_marks, results_of
from herdbook.comparison.samples import SamplesError, unpack
from herdbook.comparison.verdict import UNTESTED, judge
from herdbook.errors import StepError
from herdbook.layout import COMPARISONS
from herdbook.plan.comparison import compared, compared_pairs
from herdbook.plan.evaluate import measured_as
from herdbook.steps.card.results import Score, read_json

if TYPE_CHECKING:
    from herdbook.comparison.marks import Outcome
    from herdbook.comparison.verdict import Comparison
    from herdbook.plan import Evaluation, Plan
    from herdbook.steps.card.results import Measurement


@dataclass(frozen=True)
class Compared:
    """A comparison, with the task's title and one model's score, for the metric's name, direction and digits."""

    comparison: Comparison
    title: str
    score: Score

    @property
    def tested(self) -> bool:
        """Whether there is a test."""
        return self.comparison.verdict != UNTESTED


def comparisons_of(
    plan: Plan, measurements: tuple[Measurement, ...], taken: tuple[Comparison, ...] | None
) -> tuple[Comparison, ...]:
    """Compare the models that a plan compares, each in the main metric of each task.

    Args:
        plan: The plan.
        measurements: Its measurements.
        taken: Comparisons that are taken as recorded, where the samples are not at hand: their verdicts must follow from
            their probabilities. None to make them.

    Raises:
        StepError: If samples are missing, damaged or of other documents, or do not give the measured values; or if other
            comparisons are recorded than the plan has.
    """
    by_name = {m.name: m for m in measurements if m.method is None}
    wanted = [
        Wanted(name, other, task, score.metric)
        for name, other in compared_pairs(plan)
        for task, result in by_name[name].tasks.items()
        for score in result.main
    ]
    wanted += [
        Wanted(plan.released.name, mark.no_worse_than, mark.task, mark.metric)
        for mark in plan.recipe.marks
        if mark.no_worse_than
    ]
    wanted = list(dict.fromkeys(wanted))
    try:
        if taken is None:
            return compare(wanted, _measured(plan))
        recorded = [Wanted(item.model, item.other, item.task, item.metric) for item in taken]
        if recorded == wanted:
            directions = [
                by_name[item.model].tasks[item.task].scores[item.metric].higher_is_better for item in wanted
            ]
            return judge(taken, directions)
    except SamplesError as error:
        raise StepError(f"card: compare: {error}. Delete both measurements and rerun `evaluate`.") from error
    except (LookupError, TypeError, ArithmeticError) as error:
        raise StepError(
            f"card: compare: a measurement is damaged ({error!r}). Delete it and rerun `evaluate`."
        ) from error
    raise StepError(f"card: {COMPARISONS}: contains other comparisons than those of the recipe")


def _measured(plan: Plan) -> dict[str, Measured]:
    """Return what the compared models were measured to be, on all groups of tasks."""
    found: dict[str, Measured] = {}
    for item in compared(plan):
        own, before = read_measured(plan, item), found.get(item.name, Measured({}, {}))
        found[item.name] = Measured({**before.tasks, **own.tasks}, {**before.samples, **own.samples})
    return found


def titled(
    comparisons: tuple[Comparison, ...], measurements: tuple[Measurement, ...]
) -> tuple[Compared, ...]:
    """Return comparisons with what the card says of their tasks."""
    by_name = {m.name: m for m in measurements if m.method is None}
    found = []
    for comparison in comparisons:
        result = by_name[comparison.model].tasks[comparison.task]
        found.append(Compared(comparison, result.title, result.scores[comparison.metric]))
    return tuple(found)


def marks_of(plan: Plan, comparisons: tuple[Comparison, ...]) -> tuple[Outcome, ...]:
    """Return the outcomes of a plan's marks. Raises StepError if one cannot be compared with what was measured."""
    if not plan.recipe.marks:
        return ()
    tasks = {
        task: result
        for item in measured_as(plan.evaluations, plan.released.name)
        for task, result in results_of(
            json.loads(plan.layout.evaluation(item).read_text(encoding="utf-8"))
        ).items()
    }
    try:
        return judge_marks(plan, tasks, comparisons)
    except MarkError as error:
        raise StepError(f"card: {error}") from error


def read_measured(plan: Plan, item: Evaluation) -> Measured:
    """Return a measurement with its samples. Raises StepError if they are missing, damaged or others."""
    path = plan.layout.samples(item)
    data = read_json(plan.layout.evaluation(item), f"measurement of {item.name}")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise StepError(f"card: {path}: the samples of {item.name} are missing. Rerun `evaluate`.") from error
    try:
        return Measured(data["tasks"], unpack(content, data["samples"]["sha256"]))
    except SamplesError as error:
        raise StepError(f"card: {path} {error}. Delete it and rerun `evaluate`.") from error
    except (LookupError, TypeError) as error:
        raise StepError(
            f"card: the measurement of {item.name} does not name its samples ({error!r}). Delete it and rerun `evaluate`."
        ) from error
