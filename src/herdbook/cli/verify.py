"""``herdbook verify``: is a release what it says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.errors import VerificationError

if TYPE_CHECKING:
    import argparse

    from herdbook.cli.command import Add


def register(add: Add) -> None:
    """Add the command."""
    command = add("verify", "verify a release's folder, without the recipe", _verify, recipe=False)
    command.add_argument("folder", type=Path, help="the release")
    command.add_argument("--json", type=Path, help="write the findings here, for machines")


def _verify(options: argparse.Namespace) -> None:
    from herdbook.files import write_json
    from herdbook.verify.checks import as_json, verify

    findings = verify(options.folder)
    for finding in findings:
        print(
            f"{'ok  ' if finding.passed else 'FAIL'} {finding.check:10} {finding.subject}: {finding.detail}"
        )
    if options.json:
        write_json(options.json, as_json(findings))
    failed = sum(not finding.passed for finding in findings)
    if failed:
        raise VerificationError(f"{options.folder}: {failed} of {len(findings)} checks failed")
    print(f"{options.folder}: all {len(findings)} checks passed")
