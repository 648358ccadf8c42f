"""Pinning what a recipe measures: suites, tasks and their data sets. What is wrong with one does not hide the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.errors import RecipeError
from herdbook.lock.data_set import pin_data_sets
from herdbook.lock.searches import tasks_of_searches
from herdbook.lock.suite import check_scores, pin_suites
from herdbook.lock.task import pin_tasks, refuse_equal_names, refuse_idle
from herdbook.recipe import AskedTask, beside_suite, is_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from herdbook.errors import Gathered
    from herdbook.lock.evaluation import LockedDataSet, LockedSuite, LockedTask
    from herdbook.recipe import Evaluate, Recipe


@dataclass(frozen=True)
class Measured:
    """What a recipe measures, pinned, as far as nothing is wrong with it.

    Args:
        suites: The suites, by their files.
        every: All tasks, by their names and files: those that are measured, and those of searches.
        tasks: Those that are measured.
        data_sets: The data sets that these read.
    """

    suites: dict[str, LockedSuite]
    every: dict[str, LockedTask]
    tasks: dict[str, LockedTask]
    data_sets: dict[str, LockedDataSet]


def pin_measured(recipe: Recipe, beside: Path, report: Callable[[str], None], found: Gathered) -> Measured:
    """Pin suites, tasks and data sets.

    Args:
        recipe: The recipe.
        beside: Its folder.
        report: Called with a line for each name that is resolved.
        found: Takes the errors.
    """
    tasks_of_trials = tasks_of_searches(recipe)
    suites, every, measured = pin_tasks_of(recipe.evaluate, tasks_of_trials, beside, report, found)
    tasks = {task: every[task] for task in measured if task in every}
    return Measured(suites, every, tasks, pin_data_sets(tasks, report, found))


def pin_tasks_of(
    evaluate: Evaluate | None,
    others: Mapping[str, str],
    beside: Path,
    report: Callable[[str], None],
    found: Gathered,
) -> tuple[dict[str, LockedSuite], dict[str, LockedTask], Collection[str]]:
    """Pin suites and tasks.

    Args:
        evaluate: The section that names them.
        others: Further tasks, each with the key that names it.
        beside: The recipe's folder.
        report: Called with a line before names are looked up.
        found: Takes the errors.

    Returns:
        The suites and all tasks that nothing is wrong with; and the names and files of the tasks that the section names.
    """
    before = len(found.errors)
    suites = pin_suites(evaluate, beside, found) if evaluate else {}
    measured: dict[str, str] = {}
    for task, place in _places(evaluate, suites):
        if task in measured:
            other = measured[task]
            found.add(
                RecipeError(f"{place}: {task} is measured twice, also by {other}. Leave one of them out")
            )
        measured.setdefault(task, place)
    places = {**others, **measured}
    if any(not is_file(task) for task in places):
        report("tasks: names are looked up in lm-eval")
    trust = evaluate.trust if evaluate else []
    every = pin_tasks(places, trust, beside, found)
    with found.one():
        refuse_equal_names(every, places)
    if (
        len(found.errors) == before
    ):  # else a score may be of what could not be read, and that may run what is trusted
        with found.one():
            check_scores(suites, {task: every[task] for task in measured})
        with found.one():
            refuse_idle(trust, every)
    return suites, every, measured


def _places(evaluate: Evaluate | None, suites: Mapping[str, LockedSuite]) -> Iterator[tuple[str, str]]:
    """Yield the tasks of ``evaluate``, those of suites included, each with its key; a suite that could not be read has none."""
    for index, entry in enumerate(evaluate.entries if evaluate else ()):
        place = f"evaluate.tasks.{index}"
        if isinstance(entry, AskedTask):
            yield entry.task, place
        elif entry.suite in suites:
            for number, task in enumerate(suites[entry.suite].suite.tasks):
                yield beside_suite(entry.suite, task.task), f"{place}: {entry.suite}: tasks.{number}"
