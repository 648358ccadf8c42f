"""Trials as an ordinary recipe: one model for each, measured on one task. Their jobs and keys are those of any build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.recipe import Evaluate, Space, ancestry, search_of, tokenizer_of, without_searches
from herdbook.recipe.whole import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.lock import Lock
    from herdbook.recipe import Point
    from herdbook.recipe.evaluate import AskedTask


def trial_name(model: str, number: int) -> str:
    """Return the name of a trial's model."""
    return f"{model}-trial-{number}"


def trial_recipe(recipe: Recipe, name: str, points: Mapping[int, Point], task: AskedTask) -> Recipe:
    """Return a recipe that measures a model at some points.

    Args:
        recipe: The recipe, with what other searches found.
        name: The model that is searched.
        points: The points, by the number of the trial.
        task: What it is measured on.

    Raises:
        ValidationError: If a model is none at a point.
    """
    model = recipe.models[name]
    search = search_of(model)
    assert search is not None  # noqa: S101 - the caller's choice
    space = Space(model, search)
    needed = set(ancestry(recipe, name)) - {name}
    plain = without_searches(recipe)
    trials = {trial_name(name, number): space.model(point) for number, point in points.items()}
    models = {**{one: entry for one, entry in plain.models.items() if one in needed}, **trials}
    given = recipe.evaluate
    return Recipe.model_validate(
        {
            "models": models,
            "release": recipe.release.model_copy(update={"model": next(iter(trials)), "image": None}),
            "evaluate": Evaluate(
                tasks=[task],
                models=list(trials),
                batch_size=given.batch_size if given else 1,
                dtype=given.dtype if given else "float32",
                trust=given.trust if given else [],
            ),
            "calibration": {
                text: section
                for text, section in recipe.calibration.items()
                if any(getattr(entry, "calibration", None) == text for entry in models.values())
            },
            "shard_size": recipe.shard_size,
        }
    )


def trial_lock(lock: Lock, name: str, trials: Recipe) -> Lock:
    """Return the lock of such a recipe: the sources, and the tasks of the search."""
    pinned = lock.tuned[name]
    made = {
        one: lock.vocabularies[one if one in lock.vocabularies else name]
        for one, model in trials.models.items()
        if tokenizer_of(model)
    }
    return lock.model_copy(
        update={
            "tasks": pinned.tasks,
            "data_sets": pinned.data_sets,
            "harness": pinned.harness,
            "vocabularies": made,
            "suites": {},
            "requests": {},
            "leaderboards": {},
            "others": {},
            "imatrix": None,
            "templates": {},
            "image": None,
            "tuned": {},
        }
    )
