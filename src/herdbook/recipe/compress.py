"""A model in a format for GPU servers or Macs. No recipe has such a model itself: ``quantize.schemes`` stands for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.quantization.scheme import SchemeName
from herdbook.quantization.schemes import SCHEMES
from herdbook.recipe.section import Section

if TYPE_CHECKING:
    from herdbook.recipe.whole import Recipe


class Compress(Section):
    """A model whose matrices are encoded."""

    compress: str
    scheme: SchemeName


def compressed_name(model: str, scheme: SchemeName) -> str:
    """Return the name of an encoded model, which no model of a recipe can have, since theirs are in lower case."""
    return f"{model}-{SCHEMES[scheme].ending.upper()}"


def with_compressed(recipe: Recipe) -> Recipe:
    """Return a recipe with the models for which its ``quantize.schemes`` stands."""
    model = recipe.release.model
    added = {
        compressed_name(model, scheme): Compress(compress=model, scheme=scheme) for scheme in recipe.schemes
    }
    return recipe.model_copy(update={"models": {**recipe.models, **added}}) if added else recipe


def without_compressed(recipe: Recipe) -> Recipe:
    """Return the recipe as it was written."""
    models = {name: model for name, model in recipe.models.items() if not isinstance(model, Compress)}
    return recipe.model_copy(update={"models": models}) if len(models) < len(recipe.models) else recipe


def of_scheme(recipe: Recipe, scheme: SchemeName) -> Recipe:
    """Return the recipe of the release that has the model in a format, and of what was measured its loss alone.

    Args:
        recipe: The recipe, as it was written.
        scheme: The scheme.
    """
    name = compressed_name(recipe.release.model, scheme)
    release = recipe.release.model_copy(
        update={
            "model": name,
            "name": f"{recipe.release.name}-{SCHEMES[scheme].ending}",
        }
    )
    added = Compress(compress=recipe.release.model, scheme=scheme)
    left_out = dict.fromkeys(("evaluate", "routing"))
    section, measured = recipe.quantize, None
    if section and section.loss:
        loss = section.loss.model_copy(update={"others": {}})
        none: dict[str, object] = {
            "methods": [],
            "schemes": [],
            "imatrix": None,
            "split": None,
            "runtime": None,
        }
        measured = section.model_copy(update={**none, "loss": loss})
    return recipe.model_copy(
        update={
            "models": {**recipe.models, name: added},
            "release": release,
            **left_out,
            "quantize": measured,
            "marks": [],
            "benchmarks": [],
            "leaderboards": {},
            "claims": [],
        }
    )
