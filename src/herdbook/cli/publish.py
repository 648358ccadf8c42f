"""``herdbook publish``: one commit on the Hub, or the content of a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.errors import StepError

if TYPE_CHECKING:
    import argparse

    from herdbook.cli.command import Add
    from herdbook.publish.local import Release


def register(add: Add) -> None:
    """Add the command."""
    command = add("publish", "publish the release: one commit, read back, tagged, claimed", _publish)
    command.add_argument(
        "--release", type=Path, metavar="FOLDER", help="the release (default: the one that the recipe makes)"
    )
    command.add_argument(
        "--dry-run", action="store_true", help="show the exact commit; nothing is written anywhere"
    )
    command.add_argument(
        "--repo", metavar="OWNER/NAME", help="publish there (default: the recipe's release.repo)"
    )
    command.add_argument("--to", type=Path, metavar="FOLDER", help="publish to a folder instead of the Hub")


def _publish(options: argparse.Namespace) -> None:
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # its lazy exports

    from herdbook import plan as plans
    from herdbook.files import write_json
    from herdbook.progress import say
    from herdbook.publish import local, preflight, step
    from herdbook.steps.attest.step import configured_signer, line

    if not sys.stderr.isatty():
        disable_progress_bars()
    plan = None if options.release else plans.load(options.recipe, options.results)
    if plan:
        preflight.check_made_by(plan)
    release = local.read(plan.layout.release_folder if plan else options.release)
    repo = options.repo or release.recipe.release.repo
    if options.to:
        _to_folder(release, options.to, dry_run=options.dry_run)
    elif options.dry_run:
        text, problems, refused = step.preview(release, repo)
        _show(text, problems)
        for problem in refused:
            print(f"note: not with this token: {problem}")
    else:
        signer = configured_signer()
        done = step.publish(release, repo, lambda said: line(said, signer).decode().rstrip("\n"), say)
        if plan and not options.repo:
            write_json(plan.layout.publication, done.as_json())
        print(done.url)


def _to_folder(release: Release, folder: Path, *, dry_run: bool) -> None:
    from herdbook.publish import folder as folders
    from herdbook.publish.proposal import changes

    if dry_run:
        proposal, problems = folders.preview(release, folder)
        _show("\n".join([f"to {folder}", *changes(proposal)]), problems)
        return
    done = folders.publish(release, folder)
    state = "holds the release already" if done.is_empty else "read back and compared"
    print(f"{folder}: {len(done.result)} files, {state}")


def _show(text: str, problems: list[str]) -> None:
    for line in [text, *(f"refused: {problem}" for problem in problems)]:
        if line:
            print(line)
    if problems:
        raise StepError(f"would be refused, for {len(problems)} reasons that are listed above")
