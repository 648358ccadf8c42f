"""``herdbook import``: a recipe from a mergekit configuration."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from herdbook.cli import options
from herdbook.errors import RecipeError
from herdbook.visible import say


@click.command(
    epilog=options.examples(
        "herdbook import mergekit_moe_config.yml -o config/mine.yaml",
        "herdbook import README.md --name Mine-4x7B --license apache-2.0",
    )
)
@click.argument("file", type=options.PATH)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    metavar="FILE",
    help="Where to write the recipe (default: standard output).",
)
@click.option("--name", help="Name of the release.")
@click.option("--license", "license_", help="Its license, by the Hub's identifier, such as apache-2.0.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
def command(file: Path, output: Path | None, name: str | None, license_: str | None, *, force: bool) -> None:
    """Make a recipe from a mergekit configuration.

    FILE is a mergekit_moe_config.yml or mergekit_config.yml, or a model card
    (README.md) that contains one. Facts that the configuration lacks are assumed;
    each assumption is printed.
    """
    from herdbook.files import write_text
    from herdbook.recipe.mergekit import import_recipe

    if output and output.exists() and not force:
        raise RecipeError("the file exists; pass --force to replace it", str(output))
    beside = output.parent if output else Path()
    text, assumptions = import_recipe(file, name=name, license_=license_, relative_to=beside)
    for line in assumptions:
        say(f"assumed: {line}", file=sys.stderr)
    if output is None:
        say(*text.removesuffix("\n").split("\n"))
        return
    write_text(output, text)
    say(output)
