"""Which sources of a recipe do not exist, for one that is not pinned since something else is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import RecipeError, SourceError, UnreachableError, merged
from herdbook.lock.paths import is_absolute
from herdbook.recipe import Adapter, Folder, Hub, located, read_text, readable_models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from herdbook.recipe import Section


def with_missing_sources(error: RecipeError, recipe_path: Path, report: Callable[[str], None]) -> RecipeError:
    """Return what is wrong with a recipe together with which of its sources do not exist, so that all is told at once.

    Nothing is downloaded: repositories are looked up, and folders looked for. If a server does not answer, no other is asked;
    that is not reported, since the recipe must be changed first, and may name the same sources then.

    Args:
        error: What is wrong with the recipe.
        recipe_path: Its path.
        report: Called with a line for each repository that is looked up.
    """
    problems = []
    try:
        for name, model in readable_models(read_text(recipe_path)).items():
            try:
                _look_up(name, model, recipe_path.parent, report)
            except UnreachableError:
                break
            except SourceError as missing:
                problems.append(f"models.{name}: {missing}")
    except RecipeError:  # the file cannot be read
        return error
    return merged([error, located(problems, recipe_path)]).by_line() if problems else error


def _look_up(name: str, model: Section, beside: Path, report: Callable[[str], None]) -> None:
    match model.adapter if isinstance(model, Adapter) else model:
        case Hub() as place:
            report(f"{name}: {place.hub}")
            repo, _, revision = place.hub.partition("@")
            hub.resolve(repo, revision or None)
        case Folder(folder=path) | str(path):
            if not is_absolute(path) and not (beside / path).is_dir():
                raise SourceError(f"the folder {beside / path} does not exist")
        case _:
            pass
