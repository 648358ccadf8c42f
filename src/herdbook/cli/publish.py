"""``herdbook publish``: one commit on the Hub, or a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from herdbook.cli import options, repository
from herdbook.errors import StepError
from herdbook.humanize import plural
from herdbook.visible import say

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
@click.option("--dry-run", is_flag=True, help="Show the exact commit; write nothing.")
@click.option(
    "--repo", metavar="OWNER/NAME", help="Publish to this repository (default: the recipe's release.repo)."
)
@click.option("--to", type=options.FOLDER, metavar="FOLDER", help="Publish to a folder instead of the Hub.")
def command(
    recipe: Path, results: Path, folder: Path | None, repo: str | None, to: Path | None, *, dry_run: bool
) -> None:
    """Publish the release as one commit.

    The commit is read back, compared and tagged; then a signed claim about it is
    added. Publishing a second time changes nothing.
    """
    from herdbook import plan as plans
    from herdbook import progress
    from herdbook.files import write_json
    from herdbook.publish import local, preflight, step
    from herdbook.signing.signer import configured_signer, line

    plan = None
    if folder is None:
        plan = plans.load(recipe, results)
        preflight.check_made_by(plan)
        folder = plan.layout.release_folder
    release = local.read(folder)
    for note in release.ignored:
        progress.say(note)
    place = repo or release.recipe.release.repo
    if to:
        _to_folder(release, to, dry_run=dry_run)
    elif dry_run:
        text, problems, refused = step.preview(release, place)
        _show(text, problems)
        for problem in refused:
            say(f"note: this token is not sufficient: {problem}")
        _lead_here(release, place)
    else:
        signer = configured_signer()
        publication = step.publish(
            release, place, lambda claim: line(claim, signer).decode().rstrip("\n"), progress.say
        )
        if plan and not repo:
            write_json(plan.layout.publication, publication.as_json())
        say(_reference(release), publication.url)
        _lead_here(release, place)


def _lead_here(release: LocalRelease, repo: str | None) -> None:
    """Propose that the predecessor's card leads to the release."""
    from herdbook.publish.proposal import successor

    replaced = release.recipe.publish.replaces
    if replaced and repo:
        say(*successor(replaced, repo))


def _reference(release: LocalRelease) -> str:
    return f"SHA256SUMS has the SHA-256 {release.digest}, for `herdbook verify --expect`"


def _to_folder(release: LocalRelease, folder: Path, *, dry_run: bool) -> None:
    from herdbook.publish import folder as folders
    from herdbook.publish.proposal import changes

    if dry_run:
        proposal, problems = folders.preview(release, folder)
        _show("\n".join([f"to {folder}", *changes(proposal)]), problems)
        return
    proposal = folders.publish(release, folder)
    state = "already contains the release" if proposal.is_empty else "read back and compared"
    say(_reference(release), f"{folder}: {len(proposal.result)} files, {state}")


def _show(text: str, problems: list[str]) -> None:
    say(*(text.split("\n") if text else ()), *(f"refused: {problem}" for problem in problems))
    if problems:
        raise StepError(f"publishing would be refused for {plural(len(problems), 'reason')}, listed above")
