"""Recipes that name their releases alike: in one folder of results, the release of one takes the place of the other's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import limits, yamlio
from herdbook.layout import RECIPE, RECIPE_SUFFIXES

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.plan.plan import Plan


def namesakes(plan: Plan) -> list[Path]:
    """Return the other recipes in the folder of a plan's recipe whose release has the same name, sorted."""
    here = plan.recipe_path
    return [
        path
        for path in sorted(here.parent.iterdir())
        if path.suffix in RECIPE_SUFFIXES
        and path.name != here.name
        and _release_name(path) == plan.recipe.release.name
    ]


def replaced(plan: Plan) -> Path | None:
    """Return the recipe whose release a build of a plan would replace by that of another recipe; None if there is none."""
    try:
        released = (plan.layout.release_folder / RECIPE).read_bytes()
    except OSError:
        return None
    if released == plan.recipe_path.read_bytes():
        return None
    return next((path for path in namesakes(plan) if path.read_bytes() == released), None)


def _release_name(path: Path) -> str | None:
    try:
        limits.check_size(path.stat().st_size, limits.YAML_CHARACTERS)
        name = yamlio.load(path.read_text(encoding="utf-8"))["release"]["name"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return name if isinstance(name, str) else None
