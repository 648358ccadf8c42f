"""``herdbook schema``: the JSON Schema of recipes."""

from __future__ import annotations

import click


@click.command
def command() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from herdbook import recipe as recipes
    from herdbook.files import dump_json

    print(dump_json(recipes.json_schema()), end="")
