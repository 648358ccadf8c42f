"""Searches over models, recomputed: whether the trials are those that seed and scores propose, and who won."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.comparison.verdict import ALPHA
from herdbook.errors import StepError
from herdbook.layout import LOCK
from herdbook.lock.definition import labels_of
from herdbook.recipe import search_of
from herdbook.release.reader import damaged
from herdbook.tuning.proposals import follow, optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.lock import LockedResult, LockedSearch
    from herdbook.plan import Plan
    from herdbook.recipe import Search
    from herdbook.release.finding import Check, Finding


def searches(plan: Plan, check: Check) -> Iterator[Finding]:
    """Check the searches over a plan's models: proposals from the seed and the recorded scores, the winner from these.

    Args:
        plan: The plan.
        check: The check that findings belong to.
    """
    for name in plan.nodes:
        search = search_of(plan.recipe.models[name])
        result = plan.lock.tuned[name].result if search else None
        if search is None or result is None:
            continue
        what = f"search of {name}"
        with damaged(LOCK):
            problem = _unlike(search, plan.lock.tuned[name])
        if problem:
            yield check.failed(what, problem, file=LOCK)
            continue
        if result.kept != _kept(result):
            detail = f"the {result.kept} is kept, and by the recorded test it must be the {_kept(result)}"
            yield check.failed(what, detail, file=LOCK, expected=_kept(result), found=result.kept)
            continue
        try:
            installed = optimizer()
        except StepError as error:
            yield check.unverified(what, f"its proposals are not recomputed: {error}", file=LOCK)
            continue
        points, scores = zip(*((trial.point, trial.score) for trial in result.trials), strict=True)
        count = len(points)
        if follow(search, points, scores, higher_is_better=result.higher_is_better):
            detail = (
                f"seed and recorded scores propose its {count} trials, and its winner follows from the scores"
            )
            yield check.passed(what, detail)
        elif installed != result.optimizer:
            detail = f"its trials are not those that {installed} proposes; {result.optimizer} made them"
            yield check.unverified(what, detail, file=LOCK)
        else:
            yield check.failed(what, "its trials are not those that its seed and scores propose", file=LOCK)


def _unlike(search: Search, locked: LockedSearch) -> str | None:
    """Return what a search's metric is not by the definitions of its tasks, where these state it; None if all agrees."""
    for task in locked.tasks.values():
        for config in task.definitions.values():
            if search.metric not in labels_of(config):
                return f"its metric is {search.metric}, which its task {task.name} does not have"
            name = search.metric.partition(",")[0]
            listed = [one for one in config.get("metric_list") or [] if isinstance(one, dict)]
            stated = {one.get("higher_is_better") for one in listed if one.get("metric") == name}
            if locked.result and not stated <= {None, locked.result.higher_is_better}:
                return f"the best trial was taken by the other direction than its task {task.name} states for {name}"
    return None


def _kept(result: LockedResult) -> str:
    """Return what a search has to keep, by the test of its winner."""
    if result.test is None or result.test.p > ALPHA or not result.test.difference:
        return "start"
    return "winner" if (result.test.difference > 0) == result.higher_is_better else "start"
