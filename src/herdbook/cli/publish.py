"""``herdbook publish``: one commit on the Hub, or a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from herdbook.cli import options, repository
from herdbook.errors import Gathered, NoReleaseError, StepError
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
@options.recipe_if_needed
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
    recipe: Path | None,
    results: Path,
    folder: Path | None,
    repo: str | None,
    to: Path | None,
    *,
    dry_run: bool,
) -> None:
    """Publish the release as one commit.

    The commit is read back, compared and tagged; then a signed claim about it is
    added. Publishing a second time changes nothing.
    """
    from herdbook import progress
    from herdbook.files import write_json
    from herdbook.publish import step
    from herdbook.signing.signer import configured_signer, line

    notes: dict[Path, Path] = {}  # where each release's publication is noted
    if folder is None:
        notes = _built(recipe, results)
        if len(notes) > 1 and (repo or to):
            raise click.UsageError(
                f"the recipe makes {' and '.join(map(str, notes))}: with --repo or --to, name one with --release"
            )
    releases = _read([folder] if folder else list(notes))
    for note in [note for release in releases for note in release.ignored]:
        progress.say(note)
    if to:
        _to_folder(releases[0], to, dry_run=dry_run)
        return
    places = [(release, repo or release.release.repo) for release in releases]
    for release, place in places:
        named = release.release.repo
        if place and named and place.lower() != named.lower():
            say(
                f"note: the card and its commands name {named}, as the recipe does, and not {place}: to change that, set the "
                "repository in the recipe and rebuild"
            )
    signer, problems = None, []
    try:
        signer = None if dry_run else configured_signer()
    except StepError as error:
        problems.append(str(error))
    _refuse_known(places, problems, dry_run=dry_run)
    if dry_run or len(places) > 1:  # of two releases, neither is published if the other cannot be
        _check(places, shown=dry_run)
    if dry_run:
        return
    for release, place in places:
        publication = step.publish(
            release, place, lambda claim: line(claim, signer).decode().rstrip("\n"), progress.say
        )
        if release.folder in notes and not repo:
            write_json(notes[release.folder], publication.as_json())
        say(_reference(release), publication.url)
        _lead_here(release, place)


def _built(recipe: Path | None, results: Path) -> dict[Path, Path]:
    """Return the folders of the releases that a recipe makes, each with the file where its publication is noted.

    Raises:
        NoReleaseError: If they are not built.
        StepError: If they were made from another recipe, or edited; all of it is reported at once.
    """
    from herdbook import made
    from herdbook import plan as plans
    from herdbook.plan.job import find
    from herdbook.plan.jobs import all_jobs
    from herdbook.publish import preflight

    plan = plans.load(options.named(recipe), results)
    folders = [one.layout.release_folder for one in plan.editions]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise NoReleaseError(
            f"{' and '.join(map(str, missing))}: not built yet. Run `snakemake --cores all` first, then publish"
        )
    gathered = Gathered()
    for one in plan.editions:
        with gathered.one():
            preflight.check_made_by(one)
    with gathered.one():
        jobs = all_jobs(plan)
        made.check(plan.layout, jobs, find(jobs, "release").outputs)
    gathered.end()
    return {one.layout.release_folder: one.layout.publication for one in plan.editions}


def _read(folders: list[Path]) -> list[LocalRelease]:
    """Return releases with all their files hashed. Raises as ``local.read``, for all at once."""
    from herdbook.publish import local

    gathered = Gathered()
    releases = []
    for folder in folders:
        with gathered.one():
            releases.append(local.read(folder))
    gathered.end()
    return releases


def _refuse_known(
    places: list[tuple[LocalRelease, str | None]], problems: list[str], *, dry_run: bool
) -> None:
    """Refuse what is known to be wrong without the Hub, before it is contacted.

    Args:
        places: The releases, each with its repository.
        problems: Problems with the signer.
        dry_run: Whether nothing is to be published; then a missing token is no problem.

    Raises:
        StepError: With all problems.
    """
    from herdbook.publish import preflight, step

    for release, place in places:
        problems += step.known_problems(release, place)
        if place and not dry_run:
            problems += preflight.of_token(place)
    if problems and dry_run:
        say(*(f"refused: {problem}" for problem in dict.fromkeys(problems)))
        raise _refusal(problems)
    if problems:
        raise StepError("\n".join(dict.fromkeys(problems)))


def _check(places: list[tuple[LocalRelease, str | None]], *, shown: bool) -> None:
    """Look at what publishing would do, on the Hub.

    Args:
        places: The releases, each with its repository.
        shown: Whether to print it; else problems are all that is of interest.

    Raises:
        StepError: If publishing would be refused.
    """
    from herdbook.publish import step

    found: list[str] = []
    for release, place in places:
        text, problems, refused = step.preview(release, str(place))
        found += problems
        if shown:
            say(*text.split("\n"), *(f"refused: {problem}" for problem in problems))
            for problem in refused:
                say(f"note: this token is not sufficient: {problem}")
            if not problems:
                _lead_here(release, place)
        else:
            found += refused
    if found and shown:
        raise _refusal(found)
    if found:
        raise StepError("\n".join(dict.fromkeys(found)))


def _lead_here(release: LocalRelease, repo: str | None) -> None:
    """Propose that the predecessor's card leads to the release."""
    from herdbook.plan.edition import Edition
    from herdbook.publish.proposal import successor

    replaced = (release.recipe.publish.replaces or "").partition("@")[0]
    if replaced and repo and replaced != repo and release.release.edition is not Edition.GGUF:
        say(*successor(replaced, repo))


def _reference(release: LocalRelease) -> str:
    return f"SHA256SUMS has the SHA-256 {release.digest}, for `herdbook verify --expect`"


def _to_folder(release: LocalRelease, folder: Path, *, dry_run: bool) -> None:
    from herdbook.publish import folder as folders
    from herdbook.publish.proposal import changes

    if dry_run:
        proposal, problems = folders.preview(release, folder)
        say(f"to {folder}", *changes(proposal), *(f"refused: {problem}" for problem in problems))
        if problems:
            raise _refusal(problems)
        return
    proposal = folders.publish(release, folder)
    state = "already contains the release" if proposal.is_empty else "read back and compared"
    say(_reference(release), f"{folder}: {len(proposal.result)} files, {state}")


def _refusal(problems: list[str]) -> StepError:
    count = len(set(problems))
    return StepError(f"publishing would be refused for {plural(count, 'reason')}, listed above")
