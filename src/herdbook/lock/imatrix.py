"""Pinning an importance matrix that another program has computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.lock.local import pin_local
from herdbook.recipe.quantize import GivenImatrix

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.lock.file import LockedFile
    from herdbook.recipe import Recipe


def given_imatrix(recipe: Recipe) -> GivenImatrix | None:
    """Return the importance matrix that a recipe names; None if it names none, or has it computed."""
    matrix = recipe.quantize.imatrix if recipe.quantize else None
    return matrix if isinstance(matrix, GivenImatrix) else None


def pin_imatrix(recipe: Recipe, beside: Path) -> LockedFile | None:
    """Pin the importance matrix that a recipe names. Raises as ``pin_local``."""
    given = given_imatrix(recipe)
    return pin_local(beside, given.file, "quantize.imatrix") if given else None
