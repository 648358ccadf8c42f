"""How much of each model is needed: all of it, or only the MLPs, since a mixture takes nothing else from its experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import recipe as recipes
from herdbook.graph import reachable
from herdbook.recipe import Adapter, Laser, Moe
from herdbook.recipe.tokenizer import named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.recipe import Recipe


def needed_whole(recipe: Recipe, needed: Iterable[str]) -> set[str]:
    """Return the names of the models that are needed whole; of the others in ``needed``, only the MLPs are needed.

    Needed whole are the released model, measured models, the base and the tokenizer's model of a mixture, all of its models if
    rows of their embeddings are lined up, the models of a merge, models whose LASER reads text or searches, and the parents of models that are needed whole.
    """
    models = recipe.models
    whole = {recipe.release.model, *(recipe.evaluate.models if recipe.evaluate else [])}
    for name in needed:
        model = models[name]
        if isinstance(model, Moe):
            whole |= {model.moe.base, *named(model.moe.tokenizer)}
            if (tokenizer := recipes.tokenizer_of(model)) and tokenizer.source:  # rows of its embeddings
                whole |= set(recipes.parents(model))
        elif isinstance(model, Laser) and (model.reads_text or model.select or model.guard):
            whole.add(name)
        elif not isinstance(model, Laser | Adapter):
            whole |= set(recipes.parents(model))
    # A mixture, even if it is needed whole, takes only the MLPs of its experts.
    return set(
        reachable(whole, lambda name: () if isinstance(models[name], Moe) else recipes.parents(models[name]))
    )
