"""What searches found, put into the models of a recipe: numbers that the lock pins, as it pins commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from herdbook.errors import RecipeError
from herdbook.faults import first_in_words
from herdbook.key import digest
from herdbook.lock import splits_of
from herdbook.recipe import Space, ancestry, search_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.jsonio import JsonObject
    from herdbook.lock import Lock
    from herdbook.recipe import Recipe, Section


def search_key(name: str, recipe: Recipe, lock: Lock) -> str:
    """Return the digest of all that decides what a search finds, but for code: each trial has a key of its own with that.

    Args:
        name: The model that is searched.
        recipe: The recipe, as it is written.
        lock: The lock, in which the search's tasks are pinned.
    """
    needed = ancestry(recipe, name)
    texts = {text for one in needed if (text := getattr(recipe.models[one], "calibration", None))}
    return digest(
        {
            "operation": "tune",
            "models": {
                one: recipe.models[one].model_dump(mode="json", by_alias=True, exclude_unset=True)
                for one in needed
            },
            "pinned": [
                _json({one: pinned[one] for one in names if one in pinned})
                for pinned, names in (
                    (lock.sources, needed),
                    (lock.adapters, needed),
                    (lock.vocabularies, needed),
                    (lock.calibration, texts),
                )
            ],
            "found": {
                one: tuned.result.point
                for one in needed
                if one != name and (tuned := lock.tuned.get(one)) and tuned.result
            },
            "search": lock.tuned[name].model_dump(mode="json", exclude={"result"}),
        }
    )


def _json(pinned: Mapping[str, Section]) -> JsonObject:
    return {name: one.model_dump(mode="json") for name, one in sorted(pinned.items())}


def with_found(name: str, recipe: Recipe, lock: Lock) -> Recipe:
    """Return a recipe in which a model has what its search found; the recipe itself if it has no search.

    Args:
        name: The model.
        recipe: The recipe.
        lock: The lock.

    Raises:
        RecipeError: If nothing was found yet, or by another search.
    """
    model = recipe.models[name]
    search = search_of(model)
    if search is None:
        return recipe
    where = f"models.{name}.search"
    result = lock.tuned[name].result if name in lock.tuned else None
    if result is None:
        raise RecipeError(f"{where}: nothing was tried yet. Run `herdbook tune`")
    space = Space(model, search)
    fits = (
        result.key == search_key(name, recipe, lock)
        and len(result.trials) == search.trials
        and all(len(trial.point) == len(space.start) for trial in result.trials)
        and result.trials[0].point == space.start
    )
    if not fits:
        raise RecipeError(
            f"{where}: what the lock has was found by another search, or for other models or tasks. Run `herdbook tune`, or write "
            "the numbers into the recipe, and leave `search` out"
        )
    try:
        found = {**recipe.models, name: space.model(result.point)}
        return type(recipe).model_validate({**dict(recipe), "models": found})
    except ValidationError as error:
        raise RecipeError(f"{where}: what the lock has is no model: {first_in_words(error)}") from error


def warnings_of(recipe: Recipe, lock: Lock) -> list[str]:
    """Return which measurements are of what trials were judged by, one line each."""
    found = []
    for name, model in recipe.models.items():
        search, pinned = search_of(model), lock.tuned.get(name)
        if search is None or pinned is None:
            continue
        used = splits_of(pinned.tasks[search.tasks[0].task])
        found += [
            f"evaluate.tasks: {task} reads {read}, by which models.{name}.search chose: results on it are better than on other text"
            for task, locked in lock.tasks.items()
            for what, read in splits_of(locked).items()
            if what in used
        ]
    return found
