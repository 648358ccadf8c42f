"""``herdbook gc``: remove results that no recipe refers to."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from herdbook import humanize, settings
from herdbook.cli import completion, options, repository
from herdbook.cli.size import Age
from herdbook.errors import HerdbookError, RecipeError
from herdbook.layout import RECIPE_SUFFIXES, SPENT
from herdbook.visible import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from herdbook.plan import Plan
    from herdbook.unreferenced import Result


@click.command(
    cls=repository.Command,
    epilog=options.examples(
        "herdbook gc",
        "herdbook gc --older-than 30d --delete",
        "herdbook gc --keep ../other/recipe.yaml --delete --yes",
    ),
)
@options.recipe_if_needed
@options.results
@click.option(
    "--keep",
    multiple=True,
    type=options.FILE,
    metavar="FILE",
    shell_complete=completion.recipes,
    help="Also keep what this recipe refers to, which is in none of these folders. Repeatable.",
)
@click.option(
    "--older-than",
    type=Age(),
    metavar="AGE",
    help="Only results that were written before AGE, such as 30d, 12h or 8w.",
)
@click.option("--delete", is_flag=True, help="Remove them, after a question.")
@click.option("--yes", is_flag=True, help="Remove them without a question; needs --delete.")
@options.json
def command(
    recipe: Path | None,
    results: Path,
    keep: tuple[Path, ...],
    older_than: float | None,
    json: Path | None,
    *,
    delete: bool,
    yes: bool,
) -> None:
    """List results that no recipe refers to, and remove them.

    Kept is what the recipes in config/, recipes/ and the folder of --recipe refer
    to by their locks, built or not. The rest is of earlier keys, or of recipes that
    no longer exist. Nothing is removed without --delete, while a build runs, or
    outside the results folder.
    """
    from herdbook.cli.output import write_report
    from herdbook.unreferenced import freed_bytes, remove, unreferenced

    if yes and not delete:
        raise click.UsageError("--yes answers the question of --delete: pass both")
    if not results.exists() and (others := _of_modules()):
        raise click.UsageError(
            f"{results}: no such folder. Modules of a workflow have their results below their prefixes; name one of them: "
            + ", ".join(f"--results {other}" for other in others)
        )
    if delete:
        _hold(results)
    plans = list(_plans(_recipes(recipe, keep), results))
    if not plans:
        raise RecipeError(
            "no locked recipe was found, so it is unknown which results are needed. Run it in the repository of the recipes, or "
            "name one with --recipe"
        )
    before = time.time() - (older_than or 0)
    found = [one for one in unreferenced(plans, results) if older_than is None or one.changed < before]
    for line in _table(found):
        say(line)
    freed = freed_bytes(found)
    say(
        f"{results}: {humanize.plural(len(found), 'result')}, {humanize.size(sum(one.size_bytes for one in found))}, to which no "
        f"recipe refers; removing them frees {humanize.size(freed)}",
        f"kept: what {humanize.joined(str(plan.recipe_path) for plan in plans)} refers to",
    )
    if json:
        listed = [
            {
                "kind": one.kind,
                "name": one.name,
                "size_bytes": one.size_bytes,
                "paths": list(map(str, one.paths)),
            }
            for one in found
        ]
        write_report(json, {"results": listed, "freed_bytes": freed})
    if not found:
        return
    if not delete:
        say("nothing was removed; to remove them, add --delete")
        return
    if not yes and not _confirmed():
        say("nothing was removed")
        return
    for one in found:
        remove(one)
    say(f"removed, {humanize.size(freed)} freed")


def _of_modules() -> list[Path]:
    """Return the results folders of modules, found by what their jobs took. They are not taken unasked: their recipes may be anywhere."""
    made = f"{settings.RESULTS.default}/{SPENT}"
    return sorted(path.parent for prefix in ("*", "*/*") for path in Path().glob(f"{prefix}/{made}"))


def _hold(results: Path) -> None:
    """Refuse if a build runs in the folder, and let none start."""
    from herdbook.layout import Layout
    from herdbook.tools import exclusive

    if results.is_dir():
        exclusive.hold(Layout(results, "").running, "removing results")


def _recipes(recipe: Path | None, keep: Sequence[Path]) -> list[Path]:
    """Return the recipes of the repository, and further ones."""
    folders = dict.fromkeys([*map(Path, completion.FOLDERS), *([recipe.parent] if recipe else [])])
    found = [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix in RECIPE_SUFFIXES and completion.is_recipe(path)
    ]
    return list({path.resolve(): path for path in (*found, *keep)}.values())


def _plans(recipes: Sequence[Path], results: Path) -> Iterator[Plan]:
    """Yield the plan of each recipe that is locked. Raises RecipeError if one cannot be planned."""
    from herdbook import lock as locks
    from herdbook import plan as plans

    for path in recipes:
        if not locks.path_for(path).exists():
            say(f"note: {path} has no lock, so nothing is kept for it", file=sys.stderr)
            continue
        try:
            yield plans.load(path, results)
        except HerdbookError as error:
            first, *rest = error.lines
            raise RecipeError(
                [
                    f"what {path} refers to is unknown, so nothing was removed. Correct it, or move it elsewhere: {first}",
                    *rest,
                ]
            ) from error


def _table(found: Sequence[Result]) -> Iterator[str]:
    if found:
        yield f"{'kind':<14} {'size':>10}  {'written':<16}  result"
    for one in sorted(found, key=lambda one: (-one.size_bytes, one.kind, one.name)):
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.changed))
        yield f"{one.kind:<14} {humanize.size(one.size_bytes):>10}  {written:<16}  {one.name}"


def _confirmed() -> bool:
    """Ask whether to remove. Raises UsageError if nobody can answer."""
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked, since the input is no terminal: pass --yes")
    try:
        return click.confirm("Remove them?")
    except click.Abort:
        return False
