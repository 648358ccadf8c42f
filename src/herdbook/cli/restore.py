"""``herdbook restore``: restore a result from the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from herdbook.cli import options, repository

if TYPE_CHECKING:
    from pathlib import Path


@click.command(cls=repository.Command)
@click.argument("file", type=options.PATH)
@options.recipe
@options.results
def command(file: Path, recipe: Path, results: Path) -> None:
    """Restore a result from the cache, and check its digest.

    FILE is its path in the results folder.
    """
    from herdbook import plan as plans
    from herdbook.cache.step import restore

    restore(plans.load(recipe, results), file)
