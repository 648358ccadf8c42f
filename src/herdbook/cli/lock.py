"""``herdbook lock`` and ``herdbook refresh``: the lock of a recipe, and what moved upstream since it was made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.errors import RecipeError, SourceError

if TYPE_CHECKING:
    import argparse

    from herdbook.cli.command import Add

STATUSES = (
    "exit status: 0 every source could be asked, whether something moved or not; 2 with what moved the recipe cannot be "
    "built, and its lock stays as it is; 4 a source cannot be had: its pin stays, those of the others follow"
)


def register(add: Add) -> None:
    """Add the commands."""
    add("lock", "pin everything that a recipe names, and write the lock beside it", _lock)
    command = add("refresh", "say what moved upstream since the lock was made, and lock that", _refresh)
    command.epilog = STATUSES
    command.add_argument("--dry-run", action="store_true", help="only say it; leave the lock as it is")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write it as JSON, in full")
    command.add_argument(
        "--markdown", type=Path, metavar="FILE", help="append it as Markdown, for a pull request's body"
    )


def _lock(options: argparse.Namespace) -> None:
    from herdbook.lock.pin import pin

    recipe = recipes.load(options.recipe)
    lock = pin(recipe, options.recipe, lambda line: print(line, file=sys.stderr))
    try:
        plans.make(recipe, lock, options.recipe)
    except RecipeError as error:
        raise RecipeError(error.problems, str(options.recipe)) from error
    path = locks.path_for(options.recipe)
    locks.write(lock, path)
    print(path)


def _refresh(options: argparse.Namespace) -> int:
    from herdbook.files import write_json
    from herdbook.refresh import report as reports
    from herdbook.refresh.impact import rebuild_counts
    from herdbook.refresh.upstream import look_up

    path: Path = options.recipe
    before = plans.load(path, options.results)
    lock, changes = look_up(
        before.recipe, before.lock, path.parent, lambda line: print(line, file=sys.stderr)
    )
    report = reports.Report(str(path), changes)
    if lock != before.lock:
        try:
            after = plans.make(before.recipe, lock, path, options.results)
        except RecipeError as error:
            report = reports.Report(str(path), changes, problems=error.problems)
        else:
            report = reports.Report(str(path), changes, rebuild=rebuild_counts(before, after))
            if not options.dry_run:
                locks.write(lock, locks.path_for(path))
    print(reports.as_text(report))
    if options.json:
        write_json(options.json, reports.as_json(report))
    if options.markdown:
        with options.markdown.open("a", encoding="utf-8") as file:
            print(reports.as_markdown(report), file=file)
    if report.problems:
        return RecipeError.exit_status
    return SourceError.exit_status if report.unavailable else 0
