"""The editions of a release: with or without the quantized files, which may have a repository of their own."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from herdbook.layout import WEIGHTS_INDEX

if TYPE_CHECKING:
    from herdbook.recipe import Recipe


class Edition(StrEnum):
    """Which files of a build a release has."""

    WHOLE = "whole"  # all of them
    WEIGHTS = "weights"  # as if the recipe had no `quantize`
    GGUF = "gguf"  # the quantized files, and all that they are proven by

    def has(self, name: str) -> bool:
        """Return whether a release of this edition has a file of the build."""
        return self is not Edition.GGUF or not (name.endswith(".safetensors") or name == WEIGHTS_INDEX)


def title_of(recipe: Recipe, edition: Edition) -> str:
    """Return the name of a release of an edition."""
    return recipe.release.name + ("-GGUF" if edition is Edition.GGUF else "")
