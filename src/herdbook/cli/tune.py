"""``herdbook tune``: find what a recipe's searches are for, by trial."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from herdbook.cli import options, repository
from herdbook.visible import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(
    cls=repository.Command,
    epilog=options.examples(
        "herdbook tune",
        "herdbook tune recipes/mine.yaml",
        "herdbook tune recipes/mine.yaml -- --profile profiles/slurm",
        "herdbook tune recipes/small.yaml --results small/results -- --cores all",
    ),
)
@options.recipe_if_needed
@options.results
@click.argument("words", nargs=-1, metavar="[RECIPE] [-- SNAKEMAKE_OPTIONS]")
def command(recipe: Path | None, results: Path, words: tuple[str, ...]) -> None:
    """Find the numbers that a recipe's searches are for, by trial.

    Each trial of a model's `search` is built and measured by Snakemake, on all
    cores or as the options after -- have it. What was found is written into the
    lock: commit it, then build. Run it again after an interruption: what was
    measured is not measured again. --results is where Snakemake builds: below
    the prefix, if the recipe is that of a module of another workflow.
    """
    from pathlib import Path

    from herdbook import lock as locks
    from herdbook import plan as plans
    from herdbook import recipe as recipes
    from herdbook.errors import LockError, RecipeError
    from herdbook.plan.tuned import search_key
    from herdbook.tuning.build import Snakemake, path_of_trials, remove_recipe
    from herdbook.tuning.report import lines
    from herdbook.tuning.tune import Tuning

    if words and not words[0].startswith("-"):
        recipe, words = options.either(Path(words[0]), recipe), words[1:]
    if words and not words[0].startswith("-"):  # Snakemake would take it for a target
        raise click.UsageError(
            f"Got unexpected extra argument ({words[0]}). One recipe is searched at a time; what follows -- begins with an option"
        )
    recipe = options.named(recipe)
    content = recipes.load(recipe)
    path = locks.path_for(recipe)
    lock = locks.load(path)
    locks.check_fits(lock, content, path)
    names = recipes.searched(content)
    if not names:
        raise RecipeError("no model has a `search`, so there is nothing to find", str(recipe))
    try:
        for name in names:
            tuning = Tuning(name, content, lock, recipe, results, Snakemake(words), _report)
            result = tuning.run()
            # Hours later, the lock may be another one: what was found belongs to the pins that it was found with.
            lock = locks.load(path)
            if name not in lock.tuned or search_key(name, content, lock) != result.key:
                raise LockError(
                    f"{path}: was changed while models.{name}.search was made with what it had before, so nothing was written. Run "
                    "`herdbook tune` again"
                )
            found = lock.tuned[name].model_copy(update={"result": result})
            lock = lock.model_copy(update={"tuned": {**lock.tuned, name: found}})
            locks.write(lock, path)
            say(*lines(name, content.models[name], result))
        plans.make(content, lock, recipe, results)
    except RecipeError as error:
        remove_recipe(path_of_trials(recipe))  # no job is running, and none will
        raise recipes.located(error.problems, recipe) from error
    remove_recipe(path_of_trials(recipe))
    say(path)


def _report(line: str) -> None:
    say(line, file=sys.stderr)
