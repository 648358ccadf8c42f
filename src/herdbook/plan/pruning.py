"""How much of each model is needed: all of it, or the MLPs alone, as experts give nothing else to a mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import recipe as recipes
from herdbook.graph import reachable
from herdbook.recipe import Adapter, Laser, Moe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.recipe import Recipe


def needed_whole(recipe: Recipe, needed: Iterable[str]) -> set[str]:
    """Return the names of the models of which all tensors are needed; of the others in ``needed``, the MLPs are.

    Whole are the released model, what is measured, what gives a mixture its base or tokenizer, what a merge is made of,
    and what a whole model, or one whose LASER reads text or searches, is made from.
    """
    models = recipe.models
    whole = {recipe.release.model, *(recipe.evaluate.models if recipe.evaluate else [])}
    for name in needed:
        model = models[name]
        if isinstance(model, Moe):
            whole |= {model.moe.base, *([model.moe.tokenizer] if model.moe.tokenizer else [])}
        elif isinstance(model, Laser) and (model.reads_text or model.select or model.guard):
            whole.add(name)
        elif not isinstance(model, Laser | Adapter):
            whole |= set(recipes.parents(model))
    # A mixture takes of its experts the MLPs alone, whole as it is.
    return set(
        reachable(whole, lambda name: () if isinstance(models[name], Moe) else recipes.parents(models[name]))
    )
