"""Which sources, tasks and texts of a recipe do not exist, for one that is not pinned since something else is wrong with it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import Gathered, RecipeError, SourceError, UnreachableError
from herdbook.lock.local import pin_local
from herdbook.lock.measured import pin_tasks_of
from herdbook.lock.paths import is_absolute
from herdbook.recipe import Adapter, Folder, Hub, located, read_text, readable_models, readable_section

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from herdbook.recipe import Section


def with_missing_sources(error: RecipeError, recipe_path: Path, report: Callable[[str], None]) -> RecipeError:
    """Return what is wrong with a recipe together with which of its sources do not exist, so that all is told at once.

    So are its tasks, with what is wrong with them, and its texts, if the sections that name them have the right form. Nothing is
    downloaded: repositories are looked up, and files and folders looked for. If a server does not answer, no other is asked;
    that is not reported, since the recipe must be changed first, and may name the same sources then.

    Args:
        error: What is wrong with the recipe.
        recipe_path: Its path.
        report: Called with a line for each repository that is looked up.
    """
    found, beside = Gathered(partial(located, path=recipe_path)), recipe_path.parent
    found.add(error)
    try:
        text = read_text(recipe_path)
    except RecipeError:  # which is that error
        return error
    for name, model in readable_models(text).items():
        try:
            _look_up(name, model, beside, report)
        except UnreachableError:
            break
        except SourceError as missing:
            found.add(missing, f"models.{name}")
    if evaluate := readable_section(text, "evaluate"):
        pin_tasks_of(evaluate, {}, beside, report, found)
    for name, entry in (readable_section(text, "calibration") or {}).items():
        for index, file in enumerate(entry.data):
            with found.one():
                pin_local(beside, file, f"calibration.{name}.data.{index}")
    try:
        found.end()
    except RecipeError as whole:
        return whole
    return error


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
