"""``herdbook lock``: pin everything that a recipe names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from herdbook.cli import options, repository
from herdbook.cli.checks import check
from herdbook.progress import waiting
from herdbook.visible import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(
    cls=repository.Command,
    epilog=options.examples(
        "herdbook lock",
        "herdbook lock recipes/mine.yaml",
        "herdbook lock --requests recipes/mine.yaml",
    ),
)
@click.option(
    "--requests",
    is_flag=True,
    help="After a build: add digests of what models were asked, from its results; nothing else changes.",
)
@options.recipe_or_argument
def command(recipe: Path, requests: bool) -> None:
    """Pin everything that a recipe names.

    Commits, digests, tensors and facts of every source are written to a lock
    beside the recipe. No weights are downloaded from the Hub. Commit the lock.
    """
    from herdbook import lock as locks
    from herdbook import plan as plans
    from herdbook.plan.requests import with_requests

    if requests:
        path = locks.path_for(recipe)
        locks.write(with_requests(plans.load(recipe)), path)
        say(path)
    else:
        lock_recipe(recipe)


def lock_recipe(recipe: Path) -> None:
    """Pin everything that a recipe names, and write its lock.

    Raises:
        HerdbookError: If something is unavailable, or the recipe cannot be built.
    """
    from herdbook import lock as locks
    from herdbook import recipe as recipes
    from herdbook.errors import RecipeError
    from herdbook.lock.available import with_missing_sources
    from herdbook.lock.pin import pin
    from herdbook.lock.searches import with_results
    from herdbook.plan.searched import at_least_start

    path = locks.path_for(recipe)
    try:
        content = recipes.load(recipe)
    except RecipeError as error:
        with waiting(f"{recipe}: looking for its sources"):
            raise with_missing_sources(error, recipe, lambda line: say(line, file=sys.stderr)) from error
    with waiting(str(recipe)) as doing:

        def report(line: str) -> None:
            say(line, file=sys.stderr)
            doing(line)

        lock = with_results(pin(content, recipe, report), path)
        doing(f"{recipe}: checking what was locked")
        try:
            plan, stale = at_least_start(content, lock, recipe)
            warnings = [*check(plan), *stale]
        except RecipeError as error:
            raise recipes.located(error.problems, recipe) from error
    for warning in warnings:
        say(f"warning: {warning}", file=sys.stderr)
    locks.write(lock, path)
    say(path)
