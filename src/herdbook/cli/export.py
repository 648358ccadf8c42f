"""``herdbook export``: a release in the words of others."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.layout import SUMS

if TYPE_CHECKING:
    import argparse

    from herdbook.cli.command import Add


def register(add: Add) -> None:
    """Add the command."""
    command = add("export", "write a release's provenance in a format of others", _export, recipe=False)
    command.add_argument(
        "format", choices=("ro-crate",), help="ro-crate: a Provenance Run Crate 0.5 for workflow registries"
    )
    command.add_argument("release", help="a release's folder, or owner/name[@revision] on the Hub")
    command.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="PLACE",
        help="a new folder, or FILE.zip; weights are referred to, all other files of the release are copied",
    )
    command.add_argument(
        "--published",
        type=_day,
        required=True,
        metavar="YYYY-MM-DD",
        help="the day of publication: RO-Crate requires it, and a release tells no times",
    )


def _day(text: str) -> str:
    return date.fromisoformat(text).isoformat()


def _export(options: argparse.Namespace) -> None:
    from herdbook.export.archive import pack
    from herdbook.export.crate import METADATA
    from herdbook.release.subject import open_subject

    subject = open_subject(options.release)
    held, referred = pack(subject, options.to, options.published)
    print(f"{options.to}: {held} files and {METADATA}; {referred} files of weights are referred to")
    if subject.uri == "":
        print(f"Their digests are those of {SUMS}; `herdbook verify` reads them.")
