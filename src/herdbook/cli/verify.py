"""``herdbook verify``: is a release what it claims to be?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from herdbook.cli import completion, findings, options, repository
from herdbook.cli.digest import Digest
from herdbook.errors import HerdbookError, NoReleaseError, message
from herdbook.visible import say

if TYPE_CHECKING:
    from herdbook.release.reader import Release
    from herdbook.verify.levels import LevelResult

LEVELS = {
    "files": "files against checksums, from the Hub's own metadata",
    "claims": "claims, provenance and signatures",
    "upstream": "sources still resolve to the pinned digests",
    "equality": "a sample of tensors against the bytes of the sources",
    "recomputed": "LASER matrices, routers and the card, computed a second time",
    "rebuild": "everything, built a second time",
}

NO_RELEASE = "it is not a release: nothing was verified"


@click.command(
    epilog=options.examples(
        "herdbook verify owner/name",
        "herdbook verify owner/name --level equality --sample 500MB",
        "herdbook verify owner/name --not-before v1.2.0",
        "herdbook verify results/Mine-4x7B/release --key signing.pem.pub",
        "herdbook verify Mine-4x7B.Q4_K_M.gguf --of owner/name",
    )
    + options.table("Levels", LEVELS)
    + options.table("Exit status", {"0": findings.STATUSES["0"], "2": NO_RELEASE, **findings.STATUSES})
)
@click.argument("release", type=options.PLACE_OR_FILE)
@click.option(
    "--of",
    type=options.PLACE,
    metavar="RELEASE",
    help="If RELEASE is one file, such as a downloaded GGUF: the release that it should be of, which is verified, too.",
)
@click.option(
    "--level",
    type=click.Choice(list(LEVELS)),
    metavar="LEVEL",
    default="claims",
    show_default=True,
    help="How far to go; each level includes those before it.",
)
@click.option(
    "--key",
    type=options.PUBLIC_KEY,
    metavar="PEM",
    help="Public key that must have signed it.",
)
@click.option(
    "--identity",
    metavar="WHO",
    help="Identity that must have signed it without a key (Sigstore): an e-mail address, or a workflow's URI. "
    "Needs --issuer.",
)
@click.option("--issuer", metavar="URL", help="Identity provider that must vouch for --identity.")
@click.option(
    "--unsigned",
    is_flag=True,
    help="Accept a release that nobody signed, though its recipe names who signs it, such as one's own before it is signed.",
)
@click.option(
    "--expect",
    type=Digest(),
    metavar="DIGEST",
    help="Digest that the release must have: the SHA-256 of its SHA256SUMS, as `herdbook verify` and `herdbook publish` print it.",
)
@click.option(
    "--not-before",
    metavar="TAG",
    help="Tag of its repository on the Hub; the release must be that one or a newer one.",
)
@findings.sample
@click.option(
    "--inputs",
    type=options.EXISTING_FILE,
    metavar="RECIPE",
    help="The recipe in a copy of its author's folder, for inputs that a release does not contain: models in local folders "
    "(from the level upstream on), and texts when parts are rebuilt, which runs the code in its evaluation tasks: only for authors that "
    "you trust.",
)
@click.option(
    "--work",
    type=options.FOLDER,
    metavar="FOLDER",
    help="Folder to rebuild in. It is kept, and an interrupted rebuild continues in it (default: a temporary folder).",
)
@click.option(
    "-v", "--verbose", is_flag=True, help="Also list what passed, and the statements that are not proven."
)
@findings.reports
@click.option(
    "--page",
    type=options.REPORT,
    metavar="FILE",
    help="Write a page on the release and the findings to FILE: HTML that needs no network.",
)
@click.option(
    "--build",
    metavar="RESULTS",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With --page: the folder of results that it was built in; the page then shows what its jobs took.",
)
@click.option(
    "--vsa", type=options.REPORT, metavar="FILE", help="Write a verification summary (in-toto VSA) to FILE."
)
def command(
    release: str,
    of: str | None,
    level: str,
    key: Path | None,
    identity: str | None,
    issuer: str | None,
    unsigned: bool,
    expect: str | None,
    not_before: str | None,
    sample: int | None,
    seed: int,
    inputs: Path | None,
    work: Path | None,
    reports: findings.Reports,
    page: Path | None,
    build: Path | None,
    vsa: Path | None,
    *,
    verbose: bool,
) -> int:
    """Verify a release, without its recipe.

    RELEASE is a folder, or owner/name[@revision] on the Hub; or, with --of, one
    file. For models that were not built with Herdbook, see `herdbook audit`.
    """
    from herdbook.cli.output import keep_apart
    from herdbook.release.finding import Finding, Level, Options, Outcome, outcome_of
    from herdbook.release.reader import open_release
    from herdbook.release.unopened import is_file
    from herdbook.verify import levels, report

    file = Path(release) if is_file(release) else None
    if file and not of:
        raise click.UsageError(_instead_of_file(file))
    if of and not file:
        raise click.UsageError(f"{release}: --of is for one file of a release, and this is none")
    release = of or release
    if bool(identity) != bool(issuer):
        raise click.UsageError(
            "--identity and --issuer must be given together: an identity is meaningful only with its provider"
        )
    if key and identity:
        raise click.UsageError(
            "--key and --identity exclude each other: a release is signed with a key or without one"
        )
    if unsigned and (key or identity):
        raise click.UsageError(
            "--unsigned accepts what --key and --identity refuse: a release without signatures"
        )
    if not_before and Path(release).is_dir():
        raise click.UsageError(
            "--not-before is for repositories on the Hub: a folder has no tags. Give the release's digest with --expect"
        )
    written = {**reports.options, "--page": page, "--vsa": vsa, "--work": work}
    keep_apart((file, release, key, *_copied(inputs)), written)
    chosen = Options(
        key=key,
        identity=identity,
        issuer=issuer,
        sample_bytes=sample,
        seed=seed,
        inputs=inputs,
        work=work,
        expect=expect,
        not_before=not_before,
        unsigned=unsigned,
    )
    results: list[LevelResult] = []
    opened: Release | None = None
    try:
        opened = open_release(release)
        say(report.opening(opened, chosen))
    except Exception as error:
        # Whoever demands a signature, a digest or an age says that it is a release: then one that has lost all its records fails.
        if isinstance(error, NoReleaseError) and not (key or identity or expect or not_before):
            raise
        first: Level = levels.LEVELS["files"][0]
        expected = isinstance(error, HerdbookError | OSError)
        outcome = outcome_of(error) if expected else Outcome.BROKEN
        shown = str(Path(release)) if Path(release).is_dir() else release
        finding = Finding(first.name, "release", release, outcome, message(error).removeprefix(f"{shown}: "))
        results.append(levels.LevelResult(first, (finding,), 0, 0.0))
        say(*report.level_text(results[0]).split("\n"))
    else:
        for result in levels.run(opened, level, chosen):
            own: tuple[Finding, ...] = ()
            if file and not results:
                from herdbook.verify import one_file  # never in a build, so it is in no key

                own = (one_file.check(file, opened),)
            results.append(replace(result, findings=(*own, *result.findings)))
            say(*report.level_text(results[-1], every=verbose).split("\n"))
        if unproven := report.unproven_text(results[-1], every=verbose):
            say(*unproven.split("\n"))
    name = opened.name if opened else release
    reports.write(name, results, chosen, opened)
    if page:
        from herdbook.files import write_output
        from herdbook.verify.page import as_page

        write_output(page, as_page(name, results, opened, build, page))
    if vsa and opened:
        findings.write_summary(vsa, opened, results, chosen)
    if opened and report.outcome(results) is Outcome.FAILED:
        from herdbook.verify import repair  # like `one_file`: it changes no result

        failed = [each for result in results for each in result.findings]
        present = map(Path, completion.found_recipes("."))
        say(*repair.advice(opened, failed, repository.read(), present))
    say(report.closing(f"{file}, of {name}" if file else name, results))
    return report.STATUSES[report.outcome(results)]


def _copied(recipe: Path | None) -> list[Path]:
    """Return what is read of a copy of the author's folder: the recipe in it, its lock, and what it names."""
    if recipe is None:
        return []
    from herdbook import recipe as recipes
    from herdbook.lock import path_for, paths

    try:
        named = [path for _, path in paths.named(recipes.load(recipe))]
    except HerdbookError:  # no release's recipe is damaged, so nothing else of this copy is read
        named = []
    return [recipe, path_for(recipe), *(recipe.parent / path for path in named)]


def _instead_of_file(file: Path) -> str:
    """Return what to verify instead of a file alone."""
    from herdbook.layout import SUMS
    from herdbook.lock import path_for
    from herdbook.release.unopened import is_archive, not_opened

    if is_archive(file.name):
        return not_opened(str(file))
    if (file.parent / SUMS).is_file():
        return f"{file}: is a file of the release in {file.parent}: herdbook verify {file.parent}"
    if path_for(file).is_file():
        return f"{file}: is a recipe. Build it, and verify the release that it makes: herdbook verify results/NAME/release"
    return f"{file}: is a file. Name the release that it should be of: herdbook verify {file} --of owner/name, or --of FOLDER"
