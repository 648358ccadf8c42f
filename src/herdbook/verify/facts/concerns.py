"""What a recipe has, and so which facts its releases contain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.quantization.schemes import SCHEMES
from herdbook.recipe import Compress, HubFile, Laser, Merge, Moe, is_file, search_of
from herdbook.recipe.evaluate import AskedSuite
from herdbook.recipe.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from herdbook.recipe import Recipe, Section


def has(*kinds: type) -> Callable[[Recipe], bool]:
    """Return what tells whether a recipe has a model of one of some kinds."""
    return lambda recipe: any(isinstance(model, kinds) for model in recipe.models.values())


def lines_up(recipe: Recipe) -> bool:
    """Return whether models are joined whose vocabularies are lined up."""
    joined = (
        model.moe if isinstance(model, Moe) else model.merge
        for model in recipe.models.values()
        if isinstance(model, Moe | Merge)
    )
    chosen = (one.tokenizer for one in joined)
    return any(isinstance(one, Tokenizer) and one.source is not None for one in chosen)


def stacks(recipe: Recipe) -> bool:
    """Return whether the experts of a mixture are stacked in single tensors."""
    mixtures = [model for model in recipe.models.values() if isinstance(model, Moe)]
    models: Iterable[Section] = recipe.models.values()
    encoded = (SCHEMES[model.scheme] for model in models if isinstance(model, Compress))
    for_macs = any(scheme.library == "mlx" for scheme in encoded)
    return bool(mixtures and for_macs) or any(model.moe.layout == "fused" for model in mixtures)


def spreads(recipe: Recipe) -> bool:
    """Return whether LASER spreads budgets of rank over matrices."""
    lasered = (model for model in recipe.models.values() if isinstance(model, Laser))
    return any(rule.spreads is not None for model in lasered for rule in model.ranks)


def tunes(recipe: Recipe) -> bool:
    """Return whether numbers of a model are searched for."""
    return any(map(search_of, recipe.models.values()))


def reads_texts(recipe: Recipe) -> bool:
    """Return whether texts are read, to measure on or to calibrate with."""
    return bool(recipe.evaluate or recipe.calibration)


def evaluates(recipe: Recipe) -> bool:
    """Return whether models are measured."""
    return recipe.evaluate is not None


def reports(recipe: Recipe) -> bool:
    """Return whether there are measurements, reports on routers or ranks in leaderboards."""
    return bool(recipe.evaluate or recipe.routing or recipe.leaderboards)


def resolves(recipe: Recipe) -> bool:
    """Return whether lm-eval resolves tasks: those that a recipe names, and those of suites, which may be its own."""
    tasks = recipe.evaluate.tasks if recipe.evaluate else ()
    return any(
        isinstance(task, AskedSuite) or not is_file(task if isinstance(task, str) else task.task)
        for task in tasks
    )


def quantizes(recipe: Recipe) -> bool:
    """Return whether GGUF files are made."""
    return bool(recipe.gguf)


def draws(recipe: Recipe) -> bool:
    """Return whether the card has templates or a picture of the author's."""
    return bool(recipe.card.templates or recipe.release.image)


def names_hub_ids(recipe: Recipe) -> bool:
    """Return whether a source is said to be a model of the Hub."""
    return any(getattr(model, "hub_id", None) for model in recipe.models.values())


def succeeds(recipe: Recipe) -> bool:
    """Return whether the release replaces another one."""
    return recipe.publish.replaces is not None


def names_signer(recipe: Recipe) -> bool:
    """Return whether the recipe names who signs."""
    return recipe.release.signer is not None


def weighs(recipe: Recipe) -> bool:
    """Return whether an importance matrix is used."""
    return bool(recipe.quantize and recipe.quantize.imatrix)


def takes_files(recipe: Recipe) -> bool:
    """Return whether quantized files or an importance matrix of other publishers are used."""
    section = recipe.quantize
    return bool(section and ((section.loss and section.loss.others) or isinstance(section.imatrix, HubFile)))


def fetches(recipe: Recipe) -> bool:
    """Return whether snapshots of leaderboards are fetched from data sets."""
    return any(board.fetch and board.fetch.dataset for board in recipe.leaderboards.values())


def releases_samples(recipe: Recipe) -> bool:
    """Return whether the results of each document are released."""
    return bool(recipe.evaluate and recipe.evaluate.release_samples)


def compares(recipe: Recipe, *, samples: bool) -> bool:
    """Return whether measurements are compared, and their samples released or not."""
    section = recipe.evaluate
    if section is None or section.release_samples is not samples:
        return False
    marked = any(mark.no_worse_than for mark in recipe.marks)
    cut = any(
        isinstance(model, Laser) and {name, model.laser} <= set(section.models)
        for name, model in recipe.models.items()
    )
    return bool(section.compare) or marked or cut


def measures_losses(recipe: Recipe) -> bool:
    """Return whether the losses of quantized files are measured."""
    return bool(recipe.quantize and recipe.quantize.loss)
