"""``herdbook audit``: is a published merge made from the models that its configuration names?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from herdbook.cli import findings, options
from herdbook.visible import say

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.release.finding import Finding


CANDIDATES = "--candidates"


class _Command(click.Command):
    """A command whose option ``--candidates`` takes all arguments up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat ``--candidates`` before each of its values."""
        spread: list[str] = []
        inside = False
        for argument in args:
            if argument.startswith("-"):
                inside = argument == CANDIDATES
                spread += [] if inside else [argument]
            else:
                spread += [CANDIDATES, argument] if inside else [argument]
        if CANDIDATES in args and CANDIDATES not in spread:
            raise click.UsageError(f"{CANDIDATES}: name at least one model", ctx)
        return super().parse_args(ctx, spread)


@click.command(
    cls=_Command,
    epilog=options.examples(
        "herdbook audit owner/name",
        "herdbook audit FOLDER --config mergekit_moe_config.yml",
        "herdbook audit owner/name --gguf owner/name-GGUF --sample all",
        "herdbook audit owner/name --candidates owner/one owner/other",
        "herdbook audit --list merges.txt --page audits.md",
    )
    + options.table("Exit status", findings.STATUSES),
)
@click.argument("model", type=options.PLACE, required=False)
@click.option(
    "--config",
    type=options.EXISTING_FILE,
    metavar="FILE",
    help="The mergekit configuration, if the merge does not contain it.",
)
@click.option(
    "--gguf",
    multiple=True,
    type=options.PLACE,
    metavar="PLACE",
    help="A folder or repository with GGUF files of the merge, in addition to its own. May be given several times.",
)
@click.option(
    CANDIDATES,
    multiple=True,
    type=options.PLACE,
    metavar="MODEL...",
    help="Models that it may be made of: which of their layers it has, and with which weights. In place of the configuration.",
)
@click.option(
    "--list",
    "listed",
    type=options.EXISTING_FILE,
    metavar="FILE",
    help="Audit each of the models in FILE, one on a line, in place of MODEL.",
)
@click.option(
    "--page",
    type=options.REPORT,
    metavar="FILE",
    help="With --list: the page of results (Markdown). The results beside it (.jsonl) are kept: a second run goes on from there.",
)
@findings.sample
@findings.reports
def command(
    model: str | None,
    config: Path | None,
    gguf: tuple[str, ...],
    candidates: tuple[str, ...],
    listed: Path | None,
    page: Path | None,
    sample: int | None,
    seed: int,
    reports: findings.Reports,
) -> int:
    """Compare any published merge with the models that it names.

    MODEL is a folder, or owner/name[@revision] on the Hub. It needs a mergekit
    configuration (a file, or YAML in its card); it does not have to be built with
    Herdbook. Its bytes are compared with those of its sources by range requests;
    what remains unproven is listed. Dense merges are recomputed from their sources,
    in blocks or whole tensors. Without a configuration, --candidates finds what a
    model is made of. `herdbook verify --foreign` is the same command.
    """
    from herdbook import humanize
    from herdbook.audit.audit import Audit, line
    from herdbook.audit.level import UNPROVEN
    from herdbook.cli.output import keep_apart
    from herdbook.release.finding import Options
    from herdbook.verify import report

    chosen = Options(sample_bytes=sample, seed=seed)
    if (listed is None) != (page is None):
        raise click.UsageError("--list and --page belong together")
    if listed and page:
        if model or config or gguf or candidates:
            raise click.UsageError(
                "--list audits each model by its own configuration; leave the other models out"
            )
        from herdbook.audit.listing import audit_all

        return report.STATUSES[audit_all(listed, page, chosen, say)]
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'; or give a list with --list FILE --page FILE")
    keep_apart((model, config, *gguf, *candidates), reports.options)
    printed: set[str] = set()

    def report_finding(finding: Finding) -> None:
        if finding.check == UNPROVEN.name and finding.check not in printed:
            say("What remains unproven:")
        printed.add(finding.check)
        say(line(finding))

    audit = Audit(model, config, gguf, chosen, candidates)
    results = [audit.run(report_finding, say)]
    say(f"{humanize.size(results[0].read_bytes)} read in {results[0].seconds:.1f} s")
    reports.write(audit.name, results, chosen)
    say(report.closing(audit.name, results))
    return report.STATUSES[report.outcome(results)]
