"""Planning the comparisons: which models are compared with which, on what they were measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.errors import RecipeError
from herdbook.humanize import did_you_mean
from herdbook.plan.material import ancestry
from herdbook.recipe import Laser

if TYPE_CHECKING:
    from herdbook.lock import Lock
    from herdbook.plan.evaluate import Evaluation
    from herdbook.plan.plan import Plan
    from herdbook.recipe import Recipe


def compared_pairs(plan: Plan) -> tuple[tuple[str, str], ...]:
    """Return the pairs of models that are compared, a model and another: the recipe's, then those of LASER.

    A lasered model of the release's lineage is compared with the model that it was made from, if both are measured.
    """
    section = plan.recipe.evaluate
    if section is None:
        return ()
    pairs = [(name, other) for name, others in section.compare.items() for other in others]
    pairs += [
        (node.name, node.recipe.laser)
        for node in ancestry(plan)
        if isinstance(node.recipe, Laser) and {node.name, node.recipe.laser} <= set(section.models)
    ]
    return tuple(dict.fromkeys(pairs))


def check_tasks(recipe: Recipe, lock: Lock) -> None:
    """Check that marks, benchmarks and leaderboards are on tasks of the recipe, before anything is measured. Raises RecipeError."""
    names = [task.name for task in lock.tasks.values()]
    asked = {f"marks.{index}": mark.task for index, mark in enumerate(recipe.marks)}
    asked |= {f"benchmarks.{index}": one.task for index, one in enumerate(recipe.benchmarks)}
    asked |= {f"leaderboards.{key}": board.task for key, board in recipe.leaderboards.items() if board.task}
    problems = [
        f"{where}.task: no task is named {task!r}{did_you_mean(task, names)}"
        for where, task in asked.items()
        if task not in names
    ]
    if problems:
        raise RecipeError(problems)


def compared(plan: Plan) -> tuple[Evaluation, ...]:
    """Return the measurements whose samples are compared, in the order of the card's table."""
    names = {name for pair in compared_pairs(plan) for name in pair}
    for mark in plan.recipe.marks:
        if mark.no_worse_than is not None:
            names |= {plan.released.name, mark.no_worse_than}
    return tuple(item for item in plan.evaluations if item.quantized is None and item.name in names)
