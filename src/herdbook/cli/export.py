"""``herdbook export``: a release's provenance in the formats of registries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from herdbook.cli import options
from herdbook.layout import SUMS

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


@click.command(
    epilog=options.examples("herdbook export ro-crate owner/name --to crate.zip --published 2026-05-01")
)
@click.argument("format", metavar="FORMAT", type=click.Choice(["ro-crate"]))
@click.argument("release", type=options.PLACE)
@click.option(
    "--to",
    type=options.PATH,
    required=True,
    metavar="PLACE",
    help="A new folder, or FILE.zip. Weights are referenced by URL; all other files of the release are copied.",
)
@click.option(
    "--published",
    type=click.DateTime(["%Y-%m-%d"]),
    required=True,
    metavar="YYYY-MM-DD",
    help="Day of publication: RO-Crate requires it, and a release contains no dates.",
)
def command(format: str, release: str, to: Path, published: datetime) -> None:  # noqa: A002 - the argument's name
    """Write a release's provenance in another format.

    FORMAT ro-crate is a Provenance Run Crate 0.5, for workflow registries.
    RELEASE is a folder, or owner/name[@revision] on the Hub.
    """
    del format
    from herdbook import progress
    from herdbook.export.archive import pack
    from herdbook.export.crate import METADATA
    from herdbook.release.reader import open_release
    from herdbook.visible import say

    subject = open_release(release).subject
    copied, referenced, left_out = pack(subject, to, published.date().isoformat())
    for line in left_out:
        progress.say(line)
    say(f"{to}: {copied} files and {METADATA}; {referenced} weights files are referenced")
    if subject.uri == "":
        say(f"The digests of the weights are those in {SUMS}; `herdbook verify` checks them.")
