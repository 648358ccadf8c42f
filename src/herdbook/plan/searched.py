"""Planning right after a lock was written, when searches may have found nothing that holds for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import lock as locks
from herdbook.errors import RecipeError
from herdbook.plan.plan import make
from herdbook.plan.tuned import with_found
from herdbook.recipe import load, located, searched, without_searches

if TYPE_CHECKING:
    from herdbook.lock import Lock
    from herdbook.plan.plan import Plan
    from herdbook.recipe import Recipe


def at_least_start(
    recipe: Recipe, lock: Lock, recipe_path: Path, results: Path = Path("results")
) -> tuple[Plan, list[str]]:
    """Return the plan of a recipe, and why a search has found nothing that holds; then the plan is that of the numbers as written.

    Raises:
        RecipeError: If the recipe cannot be built for another reason.
    """
    stale: list[str] = []
    for name in searched(recipe):
        try:
            with_found(name, recipe, lock)
        except RecipeError as error:
            stale += error.problems
    return make(without_searches(recipe) if stale else recipe, lock, recipe_path, results), stale


def load_at_least_start(recipe_path: Path, results: Path = Path("results")) -> Plan:
    """Read a recipe and its lock, and make the plan as ``at_least_start`` does.

    Raises:
        RecipeError: If the recipe is wrong, or cannot be built for another reason than its searches.
        LockError: If the lock does not exist, or does not fit the recipe.
    """
    recipe = load(recipe_path)
    lock_path = locks.path_for(recipe_path)
    lock = locks.load(lock_path)
    locks.check_fits(lock, recipe, lock_path)
    try:
        return at_least_start(recipe, lock, recipe_path, results)[0]
    except RecipeError as error:
        raise located(error.problems, recipe_path) from error
