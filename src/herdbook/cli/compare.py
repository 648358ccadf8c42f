"""``herdbook compare``: what differs between two releases, and whether one model is measurably better."""

from __future__ import annotations

from pathlib import Path

import click

from herdbook.cli import options
from herdbook.errors import SourceError


@click.command(
    epilog=options.examples("herdbook compare results/Mine/release owner/name@v1.0.0 --json report.json")
)
@click.argument("first", metavar="A", type=options.PLACE)
@click.argument("second", metavar="B", type=options.PLACE)
@options.json
def command(first: str, second: str, json: Path | None) -> None:
    """Compare release A with release B.

    Says which of recipe, lock, code and results differ, and whether A is
    measurably better or worse on the documents that both were measured on, by a
    paired test that is corrected for the number of tasks. The results of documents
    come from the releases (`release_samples`) or from the builds around them.
    Nothing is verified.

    A and B are folders, or owner/name[@revision] on the Hub.
    """
    from herdbook.cli.output import keep_apart, write_report
    from herdbook.explain.releases import differences
    from herdbook.release.reader import open_release
    from herdbook.visible import say

    keep_apart((first, second), {"--json": json})
    releases = []
    for place in (first, second):
        try:
            releases.append(open_release(place))
        except SourceError as error:
            if Path(place).is_dir():
                raise
            raise SourceError(
                f"{error}\n(there is no folder {place} here, so it was looked up on the Hub)"
            ) from error
    for label, release in zip("AB", releases, strict=True):
        say(f"{label}        {release.name}, {release.recipe.release.name}, {release.digest[:12]}")
    found = differences(*releases)
    for line in found.lines():
        say(line)
    if json:
        write_report(json, found.json)
