"""``herdbook audit``: is a published merge made from the models that its configuration names?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from herdbook.cli import findings, options
from herdbook.visible import say

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.release.finding import Finding


@click.command(
    epilog=options.examples(
        "herdbook audit owner/name",
        "herdbook audit FOLDER --config mergekit_moe_config.yml",
        "herdbook audit owner/name --gguf owner/name-GGUF --sample all",
    )
    + options.table("Exit status", findings.STATUSES)
)
@click.argument("model", type=options.PLACE)
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
@findings.sample
@findings.reports
def command(
    model: str,
    config: Path | None,
    gguf: tuple[str, ...],
    sample: int | None,
    seed: int,
    reports: findings.Reports,
) -> int:
    """Compare any published merge with the models that it names.

    MODEL is a folder, or owner/name[@revision] on the Hub. It needs a mergekit
    configuration (a file, or YAML in its card); it does not have to be built with
    Herdbook. Its bytes are compared with those of its sources by range requests;
    what remains unproven is listed. `herdbook verify --foreign` is the same
    command.
    """
    from herdbook import humanize
    from herdbook.audit.audit import Audit, line
    from herdbook.audit.level import ABOUT, UNPROVEN
    from herdbook.release.finding import Options
    from herdbook.verify import report

    chosen = Options(sample_bytes=sample, seed=seed)
    printed: set[str] = set()

    def report_finding(finding: Finding) -> None:
        if finding.check == UNPROVEN.name and finding.check not in printed:
            say("What remains unproven:")
        printed.add(finding.check)
        say(line(finding))

    say(f"{ABOUT.name}: {ABOUT.proves}")
    audit = Audit(model, config, gguf, chosen)
    results = [audit.run(report_finding)]
    say(f"{humanize.size(results[0].read_bytes)} read in {results[0].seconds:.1f} s")
    reports.write(audit.name, results, chosen)
    say(report.closing(audit.name, results))
    return report.STATUSES[report.outcome(results)]
