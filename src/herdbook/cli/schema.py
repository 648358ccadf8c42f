"""``herdbook schema``: the JSON Schemas of recipes and settings."""

from __future__ import annotations

import click

from herdbook.visible import say


@click.command
@click.option("--settings", "of_settings", is_flag=True, help="That of config/config.yaml.")
def command(*, of_settings: bool) -> None:
    """Print the JSON Schema of recipes, for editors."""
    from herdbook import recipe as recipes
    from herdbook import settings
    from herdbook.files import dump_json

    schema = settings.json_schema() if of_settings else recipes.json_schema()
    say(*dump_json(schema).removesuffix("\n").split("\n"))
