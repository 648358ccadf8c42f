"""Making a search: generation after generation is proposed, measured and judged, then the winner is tested.

Nothing is kept but measurements, each under its key: a search that was interrupted reads those that exist, and goes on.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import ValidationError

from herdbook import plan as plans
from herdbook.comparison.verdict import BETTER
from herdbook.errors import RecipeError
from herdbook.faults import first_in_words
from herdbook.lock import LockedResult, LockedTrial, best_of
from herdbook.plan.jobs import model_jobs
from herdbook.plan.tuned import search_key, with_found
from herdbook.recipe import Space, ancestry, search_of
from herdbook.tuning.build import path_of_trials
from herdbook.tuning.measured import Trial, check_splits, compared, gain_of, read_trial
from herdbook.tuning.proposals import optimizer, proposed
from herdbook.tuning.trials import trial_lock, trial_name, trial_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from herdbook.lock import Lock
    from herdbook.plan import Plan
    from herdbook.recipe import Point, Recipe
    from herdbook.recipe.evaluate import AskedTask

    # Makes files of a plan: those of measurements, and what they need.
    Build = Callable[[Plan, Sequence[Path]], None]


class Tuning:
    """A search over one model.

    Args:
        name: The model.
        recipe: The recipe.
        lock: Its lock; what it is made from may have been searched before.
        recipe_path: The recipe's file.
        results: The results folder.
        build: Makes measurements, in whatever number of processes.
        report: Called with a line of text for people.

    Raises:
        RecipeError: If a model that it is made from is to be searched first.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        lock: Lock,
        recipe_path: Path,
        results: Path,
        build: Build,
        report: Callable[[str], None],
    ) -> None:
        search = search_of(recipe.models[name])
        assert search is not None  # noqa: S101 - the caller's choice
        self._name, self._search, self._lock = name, search, lock
        self._space = Space(recipe.models[name], search)
        self._key = search_key(name, recipe, lock)
        found = {
            one: with_found(one, recipe, lock).models[one] for one in ancestry(recipe, name) if one != name
        }
        self._recipe = recipe.model_copy(update={"models": {**recipe.models, **found}})
        self._path, self._results = path_of_trials(recipe_path), results
        self._build, self._report = build, report
        self._where = f"models.{name}.search"

    def run(self) -> LockedResult:
        """Make all trials that were not made before, and test the winner.

        Raises:
            RecipeError: If a trial cannot be built, or the winner could not be tested.
            StepError: If a trial fails.
        """
        search, start = self._search, self._space.start
        validation, test = search.tasks
        made_by = optimizer()
        self._check_ends()
        (first,) = self._measure({0: start}, validation)
        (tested,) = self._measure({0: start}, test)
        self._remove_weights({0: start}, test)
        check_splits(self._where, first, tested)
        trials, points = [first], [start]
        sign = -1 if first.higher_is_better else 1
        for generation in range(search.generations):
            scores = [sign * trial.score for trial in trials[1:]]
            new = proposed(search, start, scores)[len(scores) :]
            numbered = dict(enumerate(new, start=len(points)))
            trials += self._measure(numbered, validation)
            self._remove_weights(numbered, validation)
            points += new
            best = trials[self._best(trials)].score
            self._report(
                f"{self._name}: generation {generation + 1} of {search.generations}: best {search.metric} {best:g}, start "
                f"{first.score:g}"
            )
        winner = self._best(trials)
        gains, kept = {}, "start"
        if winner:
            (confirmed,) = self._measure({winner: points[winner]}, test)
            self._remove_weights({winner: points[winner]}, test)
            on_test = compared(confirmed, tested)
            gains = {"validation": gain_of(compared(trials[winner], first)), "test": gain_of(on_test)}
            kept = "winner" if on_test.verdict == BETTER else "start"
        measured = [
            LockedTrial(point=point, score=trial.score, key=trial.key)
            for point, trial in zip(points, trials, strict=True)
        ]
        return LockedResult.model_validate(
            {
                "key": self._key,
                "optimizer": made_by,
                "higher_is_better": first.higher_is_better,
                "trials": measured,
                "kept": kept,
                **gains,
            }
        )

    @staticmethod
    def _best(trials: Sequence[Trial]) -> int:
        return best_of([trial.score for trial in trials], higher_is_better=trials[0].higher_is_better)

    def _check_ends(self) -> None:
        """Plan the model with each thing at either end of its range, so that no trial is refused halfway."""
        validation, _ = self._search.tasks
        for place, name in enumerate(self._space.names):
            for end, word in ((0.0, "low"), (1.0, "high")):
                point = (*self._space.start[:place], end, *self._space.start[place + 1 :])
                try:
                    self._plan({0: point}, validation)
                except RecipeError as error:
                    raise RecipeError(
                        [
                            f"{self._where}.over: {name} at its {word} end: {problem}"
                            for problem in error.problems
                        ]
                    ) from error

    def _measure(self, points: Mapping[int, Point], task: AskedTask) -> list[Trial]:
        """Return trials on a task, by number; those that are not measured yet are built."""
        plan = self._plan(points, task)
        items = {item.name: item for item in plan.evaluations}
        files = {
            name: (plan.layout.evaluation(item), plan.layout.samples(item)) for name, item in items.items()
        }
        missing = [path for both in files.values() for path in both if not path.exists()]
        if missing:
            self._build(plan, list(dict.fromkeys(missing)))
        return [
            read_trial(plan, items[trial_name(self._name, number)], self._search.metric) for number in points
        ]

    def _remove_weights(self, points: Mapping[int, Point], task: AskedTask) -> None:
        """Remove the files that trials' models consist of, which have the trials' names and are not read again."""
        trials = {trial_name(self._name, number) for number in points}
        for job in model_jobs(self._plan(points, task)):
            if set(job.models) <= trials:
                for path in job.outputs:
                    path.unlink(missing_ok=True)
                with suppress(OSError):  # a folder of other models, too
                    job.outputs[0].parent.rmdir()

    def _plan(self, points: Mapping[int, Point], task: AskedTask) -> Plan:
        try:
            trials = trial_recipe(self._recipe, self._name, points, task)
        except ValidationError as error:
            raise RecipeError(f"{self._where}: a trial is no model: {first_in_words(error)}") from error
        return plans.make(trials, trial_lock(self._lock, self._name, trials), self._path, self._results)
