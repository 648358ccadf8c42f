"""Pinning searches: the tasks of validation and test, with what they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.errors import LockError, RecipeError
from herdbook.lock import harness
from herdbook.lock.data_set import pin_data_sets
from herdbook.lock.definition import labels_of
from herdbook.lock.evaluation import LockedHarness
from herdbook.lock.format import load
from herdbook.lock.tuned import LockedSearch, splits_of
from herdbook.recipe import search_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from herdbook.errors import Gathered
    from herdbook.lock.evaluation import LockedTask
    from herdbook.lock.lock import Lock
    from herdbook.recipe import Recipe


def tasks_of_searches(recipe: Recipe) -> dict[str, str]:
    """Return the tasks of a recipe's searches, as it names them, each with the first key that names it."""
    places: dict[str, str] = {}
    for name, model in recipe.models.items():
        if search := search_of(model):
            for key, one in zip(("validation", "test"), search.tasks, strict=True):
                places.setdefault(one.task, f"models.{name}.search.{key}")
    return places


def pin_searches(
    recipe: Recipe, tasks: Mapping[str, LockedTask], report: Callable[[str], None], found: Gathered
) -> dict[str, LockedSearch]:
    """Return a lock's entries on searches, without what they found.

    Args:
        recipe: The recipe.
        tasks: All tasks that could be pinned. A search with another one has no entry.
        report: Called with a line for each data set.
        found: Takes the errors: of trials that would be judged by what the winner is tested on, metrics that do not exist, and
            data sets that are unavailable.
    """
    pinned = {}
    for name, model in recipe.models.items():
        search = search_of(model)
        if search is None or not all(one.task in tasks for one in search.tasks):
            continue
        own = {one.task: tasks[one.task] for one in search.tasks}
        with found.one():
            _check(f"models.{name}.search", search.metric, *own.values())
            pinned[name] = LockedSearch(
                tasks=own,
                data_sets=pin_data_sets(own, report, found),
                harness=LockedHarness(lm_eval=harness.version()),
            )
    return pinned


def with_results(lock: Lock, before: Path) -> Lock:
    """Return a lock with what searches found, as the lock before it has it; whether it still holds is a question of the plan.

    Args:
        lock: The lock.
        before: The path of the lock before it, which need not exist.
    """
    try:
        known = load(before).tuned if lock.tuned else {}
    except LockError:
        known = {}  # there is none, or of another format: then nothing is known to be found
    tuned = {
        name: search.model_copy(update={"result": known[name].result}) if name in known else search
        for name, search in lock.tuned.items()
    }
    return lock.model_copy(update={"tuned": tuned})


def _check(where: str, metric: str, validation: LockedTask, test: LockedTask) -> None:
    """Refuse tasks by which nothing can be found, or shown. Raises RecipeError."""
    problems = []
    for key, locked in (("validation", validation), ("test", test)):
        if len(locked.definitions) != 1:
            problems.append(f"{where}.{key}: {locked.name} is a group of tasks; name one of them")
            continue
        (config,) = locked.definitions.values()
        if metric not in labels_of(config):
            has = "; ".join(labels_of(config))
            problems.append(f"{where}.metric: {locked.name} has no {metric!r}; it has {has}")
    used = splits_of(validation)
    shared = [name for what, name in splits_of(test).items() if what in used]
    if shared:
        problems.append(
            f"{where}.test: reads {shared[0]}, as `validation` does. What trials are judged by cannot show that their winner is "
            "better: use another split"
        )
    if problems:
        raise RecipeError(problems)
