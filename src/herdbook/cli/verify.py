"""``herdbook verify``: is a release what it says?"""

from __future__ import annotations

import argparse
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import humanize
from herdbook.errors import HerdbookError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.cli.command import Add
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.verify.levels import LevelResult

LEVEL_NAMES = ("files", "claims", "upstream", "equality", "recomputed", "rebuild")
STATUSES = "exit status: 0 all passed; 8 something failed; 9 nothing failed, but something could not be checked; 10 the verifier broke"


def register(add: Add) -> None:
    """Add the command."""
    command = add("verify", "verify a release, without its recipe", _verify, recipe=False)
    command.epilog = STATUSES
    command.add_argument("release", help="a folder, or owner/name[@revision] on the Hub")
    command.add_argument(
        "--level",
        choices=LEVEL_NAMES,
        default="claims",
        help="how far; each includes those before it (default: %(default)s)",
    )
    command.add_argument(
        "--foreign",
        action="store_true",
        help="anybody's merge: what its mergekit configuration says of its weights, against the models that it names",
    )
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="with --foreign: the configuration, if the merge has none"
    )
    command.add_argument(
        "--gguf",
        action="append",
        default=[],
        metavar="PLACE",
        help="with --foreign: a folder or repository with GGUF files of the merge, besides its own",
    )
    command.add_argument("--key", type=Path, metavar="PEM", help="the public key that it must be signed with")
    command.add_argument(
        "--identity",
        metavar="WHO",
        help="who must have signed it without a key (Sigstore): an e-mail address, or a workflow's URI; with --issuer",
    )
    command.add_argument("--issuer", metavar="URL", help="the identity provider that must vouch for them")
    command.add_argument(
        "--sample",
        type=_size,
        default="500MB",
        metavar="SIZE",
        help="how much of it to compare with upstream, and to make again: such as 500MB, or all (default: %(default)s)",
    )
    command.add_argument(
        "--seed", type=int, help="decides what is drawn (default: one by chance, which is told)"
    )
    command.add_argument(
        "--inputs",
        type=Path,
        metavar="RECIPE",
        help="the recipe in a copy of its author's folder: for what a release does not carry (texts, local models), when it is made "
        "again. What its evaluation tasks say is run: only for authors that you trust",
    )
    command.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="where to make things again; it stays, and a rebuild that was stopped goes on there (default: a temporary folder)",
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write everything here, for machines")
    command.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit's XML here")
    command.add_argument(
        "--summary", type=Path, metavar="FILE", help="append Markdown here ($GITHUB_STEP_SUMMARY)"
    )
    command.add_argument(
        "--vsa", type=Path, metavar="FILE", help="write a verification summary (in-toto) here"
    )


def _size(text: str) -> int | None:
    if text == "all":
        return None
    try:
        size_bytes = humanize.parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, or all") from error
    if not size_bytes:
        raise argparse.ArgumentTypeError("a sample of nothing proves nothing")
    return size_bytes


def _verify(options: argparse.Namespace) -> int:
    from herdbook.release.finding import Finding, Level, Options, outcome_of
    from herdbook.release.reader import Release
    from herdbook.release.subject import open_subject
    from herdbook.verify import report
    from herdbook.verify.levels import LEVELS, LevelResult, run

    if options.foreign:
        return _foreign(options)
    if options.config or options.gguf:
        raise RecipeError("--config and --gguf belong to --foreign")
    if bool(options.identity) != bool(options.issuer):
        raise RecipeError(
            "--identity and --issuer belong together: a name means something only with who vouches for it"
        )
    if options.key and options.identity:
        raise RecipeError("--key and --identity: a release is signed with a key, or without one")
    if options.key and not options.key.is_file():
        raise RecipeError(f"--key {options.key}: there is no such file")
    if options.inputs and not options.inputs.is_file():
        raise RecipeError(f"--inputs {options.inputs}: there is no such file")
    asked = Options(
        key=options.key,
        identity=options.identity,
        issuer=options.issuer,
        sample_bytes=options.sample,
        seed=_seed(options),
        inputs=options.inputs,
        work=options.work,
    )
    ran: list[LevelResult] = []
    release: Release | None = None
    try:
        release = Release(open_subject(options.release))
    except (HerdbookError, OSError) as error:
        level: Level = LEVELS["files"][0]
        ran.append(
            LevelResult(
                level,
                (Finding(level.name, "release", options.release, outcome_of(error), str(error)),),
                0,
                0.0,
            )
        )
        print(report.level_text(ran[0]))
    else:
        for one in run(release, options.level, asked):
            ran.append(one)
            print(report.level_text(one), flush=True)
    name = release.name if release else options.release
    _write(options, name, release, ran, asked)
    print(report.closing(name, ran))
    return report.STATUSES[report.outcome(ran)]


def _foreign(options: argparse.Namespace) -> int:
    from herdbook.audit.audit import Audit, line
    from herdbook.audit.level import ABOUT, UNPROVEN
    from herdbook.release.finding import Options
    from herdbook.verify import report

    unfit = [
        name for name in ("key", "identity", "issuer", "inputs", "work", "vsa") if getattr(options, name)
    ]
    if unfit:
        raise RecipeError(f"--{unfit[0]} is for releases of Herdbook, and means nothing with --foreign")
    if options.config and not options.config.is_file():
        raise RecipeError(f"--config {options.config}: there is no such file")
    asked = Options(sample_bytes=options.sample, seed=_seed(options))
    told: set[str] = set()

    def tell(finding: Finding) -> None:
        if finding.check == UNPROVEN.name and finding.check not in told:
            print("What remains unproven:")
        told.add(finding.check)
        print(line(finding), flush=True)

    print(f"{ABOUT.name}: {ABOUT.proves}")
    audit = Audit(options.release, options.config, options.gguf, asked)
    ran = [audit.run(tell)]
    print(f"{humanize.size(ran[0].read_bytes)} read in {ran[0].seconds:.1f} s")
    _write(options, audit.name, None, ran, asked)
    print(report.closing(audit.name, ran))
    return report.STATUSES[report.outcome(ran)]


def _seed(options: argparse.Namespace) -> int:
    return secrets.randbelow(1 << 31) if options.seed is None else int(options.seed)


def _write(
    options: argparse.Namespace,
    name: str,
    release: Release | None,
    ran: Sequence[LevelResult],
    asked: Options,
) -> None:
    from herdbook.files import write_json, write_text
    from herdbook.verify import report

    if options.json:
        write_json(options.json, report.as_json(name, ran, asked))
    if options.junit:
        write_text(options.junit, report.as_junit(name, ran))
    if options.summary:
        with options.summary.open("a", encoding="utf-8") as file:
            file.write(report.as_markdown(name, ran))
    if options.vsa and release:
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        write_json(options.vsa, report.as_summary(release, ran, asked, when))
