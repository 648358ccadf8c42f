"""Pinning an importance matrix that another program has computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import limits
from herdbook.errors import SourceError
from herdbook.lock.local import pin_local
from herdbook.recipe.quantize import GivenImatrix, HubImatrix

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.lock.file import LockedFile, LockedHubFile
    from herdbook.recipe import Recipe


def given_imatrix(recipe: Recipe) -> GivenImatrix | HubImatrix | None:
    """Return the importance matrix that a recipe names; None if it names none, or has it computed."""
    matrix = recipe.quantize.imatrix if recipe.quantize else None
    return matrix if isinstance(matrix, (GivenImatrix, HubImatrix)) else None


def pin_imatrix(recipe: Recipe, beside: Path) -> LockedFile | LockedHubFile | None:
    """Pin the importance matrix that a recipe names. Raises as ``pin_local`` and ``pin_hub_file``."""
    where, given = "quantize.imatrix", given_imatrix(recipe)
    if not isinstance(given, HubImatrix):
        return pin_local(beside, given.file, where) if given else None
    from herdbook.lock.hub_file import (
        pin_hub_file,  # its client is slow to import, and few recipes need it here
    )

    pinned = pin_hub_file(given, where)
    try:
        limits.check_size(pinned.file.size_bytes, limits.TEXTS_BYTES)
    except limits.OverLimitError as error:
        raise SourceError(f"{where}: {given.repo}: {given.file}: refused: it {error}") from error
    return pinned
