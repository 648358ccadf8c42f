"""``herdbook publish``: one commit on the Hub, or a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from herdbook.cli import options, repository
from herdbook.errors import StepError

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.publish.local import LocalRelease


@click.command(
    cls=repository.Command,
    epilog=options.examples(
        "herdbook publish --dry-run",
        "herdbook publish --to /media/usb/release",
        "herdbook publish --release results/Mine-4x7B/release --repo owner/name",
    ),
)
@options.recipe
@options.results
@click.option(
    "--release",
    "folder",
    type=options.FOLDER,
    metavar="FOLDER",
    help="The release (default: the one that the recipe makes).",
)
@click.option("--dry-run", is_flag=True, help="Show the exact commit; nothing is written anywhere.")
@click.option("--repo", metavar="OWNER/NAME", help="Publish there (default: the recipe's release.repo).")
@click.option("--to", type=options.FOLDER, metavar="FOLDER", help="Publish to a folder instead of the Hub.")
def command(
    recipe: Path, results: Path, folder: Path | None, repo: str | None, to: Path | None, *, dry_run: bool
) -> None:
    """Publish the release as one commit.

    The commit is read back and compared, then tagged; then a signed claim about
    it is added. Publishing a second time changes nothing.
    """
    from herdbook import plan as plans
    from herdbook.files import write_json
    from herdbook.progress import say
    from herdbook.publish import local, preflight, step
    from herdbook.steps.attest.step import configured_signer, line

    plan = None
    if folder is None:
        plan = plans.load(recipe, results)
        preflight.check_made_by(plan)
        folder = plan.layout.release_folder
    release = local.read(folder)
    place = repo or release.recipe.release.repo
    if to:
        _to_folder(release, to, dry_run=dry_run)
    elif dry_run:
        text, problems, refused = step.preview(release, place)
        _show(text, problems)
        for problem in refused:
            print(f"note: not with this token: {problem}")
    else:
        signer = configured_signer()
        done = step.publish(release, place, lambda said: line(said, signer).decode().rstrip("\n"), say)
        if plan and not repo:
            write_json(plan.layout.publication, done.as_json())
        print(done.url)


def _to_folder(release: LocalRelease, folder: Path, *, dry_run: bool) -> None:
    from herdbook.publish import folder as folders
    from herdbook.publish.proposal import changes

    if dry_run:
        proposal, problems = folders.preview(release, folder)
        _show("\n".join([f"to {folder}", *changes(proposal)]), problems)
        return
    done = folders.publish(release, folder)
    state = "already contains the release" if done.is_empty else "read back and compared"
    print(f"{folder}: {len(done.result)} files, {state}")


def _show(text: str, problems: list[str]) -> None:
    for line in [text, *(f"refused: {problem}" for problem in problems)]:
        if line:
            print(line)
    if problems:
        raise StepError(f"would be refused, for {len(problems)} reasons that are listed above")
