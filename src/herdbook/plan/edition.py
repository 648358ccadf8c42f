"""The editions of a release: what a build makes may be released in several repositories."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from herdbook.layout import WEIGHTS_INDEX
from herdbook.quantization.schemes import SCHEMES

if TYPE_CHECKING:
    from herdbook.quantization.scheme import SchemeName
    from herdbook.recipe import Recipe


class Edition(StrEnum):
    """Which files of a build a release has."""

    WHOLE = "whole"  # all of them
    MAIN = "main"  # all but the formats for GPU servers and Macs
    WEIGHTS = "weights"  # as if the recipe had no `quantize`
    GGUF = "gguf"  # the quantized files, and all that they are proven by
    FP8_DYNAMIC = "FP8_DYNAMIC"  # the model in this format for GPU servers
    W4A16 = "W4A16"
    MLX_4BIT = "MLX_4BIT"  # for Macs
    MLX_6BIT = "MLX_6BIT"
    MLX_8BIT = "MLX_8BIT"

    @property
    def scheme(self) -> SchemeName | None:
        """The format for GPU servers or Macs that the model has in it; None if it has its full width."""
        return next((scheme for scheme in SCHEMES if scheme == self.value), None)

    def has(self, name: str) -> bool:
        """Return whether a release of this edition has a file of the build."""
        return self is not Edition.GGUF or not (name.endswith(".safetensors") or name == WEIGHTS_INDEX)


def title_of(recipe: Recipe, edition: Edition) -> str:
    """Return the name of a release of an edition."""
    ending = "GGUF" if edition is Edition.GGUF else SCHEMES[edition.scheme].ending if edition.scheme else ""
    return recipe.release.name + (f"-{ending}" if ending else "")


def repo_of(recipe: Recipe, edition: Edition) -> str | None:
    """Return the repository of a release of an edition."""
    if edition.scheme:
        return recipe.publish.scheme_repos.get(edition.scheme)
    return recipe.publish.gguf_repo if edition is Edition.GGUF else recipe.release.repo


def editions_of(recipe: Recipe) -> tuple[Edition, ...]:
    """Return the editions that a recipe's build is released in."""
    whole = Edition.MAIN if recipe.schemes else Edition.WHOLE
    main = (Edition.WEIGHTS, Edition.GGUF) if recipe.publish.gguf_repo else (whole,)
    return (*main, *map(Edition, recipe.schemes))
