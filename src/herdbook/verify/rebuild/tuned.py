"""Searches over models, recomputed: whether the trials are those that seed and scores propose, and who won."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.comparison.verdict import ALPHA
from herdbook.errors import StepError
from herdbook.layout import LOCK
from herdbook.recipe import search_of
from herdbook.tuning.proposals import follow, optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.lock import LockedResult
    from herdbook.plan import Plan
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


def _kept(result: LockedResult) -> str:
    """Return what a search has to keep, by the test of its winner."""
    if result.test is None or result.test.p > ALPHA or not result.test.difference:
        return "start"
    return "winner" if (result.test.difference > 0) == result.higher_is_better else "start"
