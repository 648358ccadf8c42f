"""What trials were measured to be: scores, and the results of documents for paired tests."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.comparison.compare import Measured, Wanted, compare
from herdbook.comparison.samples import SamplesError, unpack
from herdbook.comparison.verdict import UNTESTED, too_few
from herdbook.errors import RecipeError, StepError
from herdbook.humanize import plural
from herdbook.lock import LockedGain

if TYPE_CHECKING:
    from herdbook.comparison.verdict import Comparison
    from herdbook.plan import Evaluation, Plan


@dataclass(frozen=True)
class Trial:
    """A measured trial.

    Args:
        name: The name of its model.
        task: The task.
        metric: The metric.
        key: The key of the measurement.
        measured: The measurement, with the results of documents.
    """

    name: str
    task: str
    metric: str
    key: str
    measured: Measured

    @property
    def score(self) -> float:
        """Its result."""
        return float(self.measured.tasks[self.task]["metrics"][self.metric]["value"])

    @property
    def higher_is_better(self) -> bool:
        """Whether higher results are better."""
        return bool(self.measured.tasks[self.task]["metrics"][self.metric]["higher_is_better"])

    @property
    def documents(self) -> frozenset[str]:
        """The digests of the documents that it was measured on."""
        return frozenset(sample.sha256 for sample in self.measured.samples[self.task])


def read_trial(plan: Plan, item: Evaluation, metric: str) -> Trial:
    """Return a trial from its measurement.

    Raises:
        StepError: If it is damaged, or no number.
    """
    path = plan.layout.evaluation(item)
    (task,) = (name for locked, _ in item.group.tasks for name in locked.titles)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        samples = unpack(plan.layout.samples(item).read_bytes(), content["samples"]["sha256"])
        trial = Trial(item.name, task, metric, item.key, Measured(content["tasks"], samples))
        score = trial.score
        trial.documents  # noqa: B018 - fails if the task has none
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StepError(
            f"{path}: is damaged ({error!r}). Delete it and run `herdbook tune` again."
        ) from error
    if not math.isfinite(score):
        raise StepError(
            f"{path}: {metric} of {item.name} is {score}, by which nothing can be chosen. Search narrower ranges"
        )
    return trial


def check_splits(where: str, validation: Trial, test: Trial) -> None:
    """Check that a paired test exists, that it can find a gain, and that it is of documents that no trial is judged by.

    Raises:
        RecipeError: If that is not so.
    """
    if shared := validation.documents & test.documents:
        raise RecipeError(
            f"{where}.test: {len(shared)} of {len(test.documents)} documents are also those of `validation`. What trials are "
            "judged by cannot show that their winner is better: use another split"
        )
    if compared(validation, validation).verdict == UNTESTED:
        raise RecipeError(
            f"{where}.metric: {validation.metric} is not a mean over documents, so there is no paired test of it"
        )
    own = compared(test, test)
    if too_few([own]):
        raise RecipeError(
            f"{where}.test: a paired test of {plural(own.documents, 'document')} finds no gain, however large (p is at least "
            f"{own.least_p:.2g}), so the start would always be kept. Use a split of more documents, or a higher `limit`"
        )


def compared(one: Trial, other: Trial) -> Comparison:
    """Return the paired comparison of two trials on one task. Raises StepError if their documents differ."""
    wanted = Wanted(one.name, other.name, one.task, one.metric)
    try:
        (comparison,) = compare([wanted], {one.name: one.measured, other.name: other.measured})
    except SamplesError as error:
        raise StepError(
            f"herdbook tune: {error}. Delete the measurements of the trials and run it again"
        ) from error
    return comparison


def gain_of(comparison: Comparison) -> LockedGain:
    """Return a tested comparison, as the lock states it."""
    return LockedGain(
        documents=comparison.documents,
        difference=_given(comparison.difference),
        low=_given(comparison.low),
        high=_given(comparison.high),
        p=_given(comparison.p),
    )


def _given(value: float | None) -> float:
    assert value is not None  # noqa: S101 - the first trial has shown that the metric can be tested
    return value
