"""``herdbook schema``: the JSON Schema of recipes."""

from __future__ import annotations

import click

from herdbook.visible import say


@click.command
def command() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from herdbook import recipe as recipes
    from herdbook.files import dump_json

    say(*dump_json(recipes.json_schema()).removesuffix("\n").split("\n"))
