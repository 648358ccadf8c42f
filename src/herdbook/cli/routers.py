"""``herdbook routers``: find routers that cannot choose between experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from herdbook.cli import options
from herdbook.visible import line, say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(
    epilog=options.examples("herdbook routers owner/name")
    + options.table(
        "Exit status", {"0": "every row is usable", "1": "some rows are zero, equal or nearly parallel"}
    )
)
@click.argument("model")
@options.json
def command(model: str, json: Path | None) -> int:
    """Find routers that cannot choose.

    Finds rows that are zero, equal or nearly parallel in the routers of any
    mixture. MODEL is a folder, a safetensors file, or owner/name[@revision] on the
    Hub.
    """
    from herdbook.audit.routers import as_json, as_text, read_routers
    from herdbook.cli.output import keep_apart, write_report
    from herdbook.steps.routing.rows import verdict

    keep_apart((model,), {"--json": json})
    routers = read_routers(model)
    say(*as_text(line(model), routers).split("\n"))
    if json:
        write_report(json, as_json(model, routers))
    return 1 if verdict(routers) else 0
