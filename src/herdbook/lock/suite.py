"""Pinning suites: the file of each, and its content, read like a recipe's own sections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.errors import RecipeError
from herdbook.humanize import did_you_mean
from herdbook.lock.definition import labels_of
from herdbook.lock.evaluation import LockedSuite
from herdbook.lock.local import pin_local
from herdbook.recipe import AskedSuite, parse_suite, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from herdbook.errors import Gathered
    from herdbook.lock.evaluation import LockedTask
    from herdbook.recipe import Evaluate


def pin_suites(evaluate: Evaluate, beside: Path, found: Gathered) -> dict[str, LockedSuite]:
    """Pin the suites that a recipe names, by their files.

    Args:
        evaluate: What the recipe measures.
        beside: The recipe's folder.
        found: Takes the errors: of suites that are wrong, have the name of another one, or do not exist.

    Returns:
        The others.
    """
    pinned: dict[str, LockedSuite] = {}
    for path, where in suite_places(evaluate).items():
        with found.one():
            file = pin_local(beside, path, where)
            suite = parse_suite(read_text(beside / path), path)
            if other := next((name for name, one in pinned.items() if one.suite.suite == suite.suite), None):
                raise RecipeError(f"{where}: {other} and {path} are both suites named {suite.suite!r}")
            pinned[path] = LockedSuite(file=file, suite=suite)
    return pinned


def suite_places(evaluate: Evaluate) -> dict[str, str]:
    """Return the suites that a recipe names, by their files, each with the first key that names it."""
    places: dict[str, str] = {}
    for index, entry in enumerate(evaluate.entries):
        if isinstance(entry, AskedSuite):
            places.setdefault(entry.suite, f"evaluate.tasks.{index}")
    return places


def check_scores(suites: Mapping[str, LockedSuite], tasks: Mapping[str, LockedTask]) -> None:
    """Refuse scores of suites from tasks or metrics that do not exist. Raises RecipeError."""
    results = {
        name: labels_of(config) for task in tasks.values() for name, config in task.definitions.items()
    }
    for task in tasks.values():
        for name in task.groups:
            of_tasks = [results[leaf] for leaf in task.leaves(name)]
            results[name] = tuple(label for label in of_tasks[0] if all(label in own for own in of_tasks))
    problems = []
    for path, locked in suites.items():
        for score, parts in locked.suite.scores.items():
            where = f"{path}: scores.{score}"
            for part in parts:
                if part.task not in results:
                    problems.append(
                        f"{where}: no task is named {part.task!r}{did_you_mean(part.task, results)}"
                    )
                elif part.metric not in results[part.task]:
                    near = did_you_mean(part.metric, results[part.task])
                    problems.append(f"{where}: {part.task} has no metric {part.metric!r}{near}")
    if problems:
        raise RecipeError(problems)
