"""``herdbook refresh``: what moved upstream since a recipe was locked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from herdbook.cli import options, repository
from herdbook.cli.checks import check
from herdbook.progress import waiting
from herdbook.visible import say

if TYPE_CHECKING:
    from pathlib import Path

STATUSES = {
    "0": "every source answered, whether or not it moved",
    "2": "the recipe cannot be built with the new pins; its lock is not changed",
    "4": "a source is unavailable: its pin is kept, the others are updated",
}


@click.command(
    cls=repository.Command,
    epilog=options.examples("herdbook refresh --dry-run") + options.table("Exit status", STATUSES),
)
@options.recipe_or_argument
@options.results
@click.option("--dry-run", is_flag=True, help="Only report; do not change the lock.")
@options.json
@click.option(
    "--markdown",
    type=options.FILE,
    metavar="FILE",
    help="Append the report to FILE as Markdown, for the body of a pull request.",
)
def command(recipe: Path, results: Path, json: Path | None, markdown: Path | None, *, dry_run: bool) -> int:
    """Report what moved upstream, and update the lock.

    Also lists the jobs that a build would rerun because of it.
    """
    from herdbook import lock as locks
    from herdbook import plan as plans
    from herdbook.cli.output import append_report, write_report
    from herdbook.errors import RecipeError, SourceError
    from herdbook.plan.searched import at_least_start
    from herdbook.refresh import report as reports
    from herdbook.refresh.impact import rebuild_counts
    from herdbook.refresh.upstream import look_up

    before = plans.load(recipe, results)
    with waiting(str(recipe)) as doing:

        def tell(line: str) -> None:
            say(line, file=sys.stderr)
            doing(line)

        lock, changes = look_up(before.recipe, before.lock, recipe.parent, tell)
    report = reports.RefreshReport(str(recipe), changes)
    if lock != before.lock:
        try:
            after, stale = at_least_start(before.recipe, lock, recipe, results)
            warnings = [*check(after), *stale]
        except RecipeError as error:
            report = reports.RefreshReport(str(recipe), changes, problems=error.problems)
        else:
            report = reports.RefreshReport(str(recipe), changes, rebuild=rebuild_counts(before, after))
            for warning in warnings:
                say(f"warning: {warning}", file=sys.stderr)
            if not dry_run:
                locks.write(lock, locks.path_for(recipe))
    say(*reports.as_text(report).split("\n"))
    if json:
        write_report(json, reports.as_json(report))
    if markdown:
        append_report(markdown, f"{reports.as_markdown(report)}\n")
    if report.problems:
        return RecipeError.exit_status
    return SourceError.exit_status if report.unavailable else 0
