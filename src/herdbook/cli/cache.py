"""``herdbook cache``: list, extend, verify and prune the cache."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from herdbook import humanize, settings
from herdbook.cli import options, repository
from herdbook.cli.size import Age, Size
from herdbook.errors import CacheError, HerdbookError
from herdbook.visible import say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from herdbook.cache.cache import Cache, CacheEntry
    from herdbook.plan import Plan


@dataclass(frozen=True)
class Target:
    """The cache that a command is about, and the recipe."""

    place: str | None
    recipe: Path | None
    results: Path

    def open(self) -> Cache:
        """Return the cache. Raises CacheError if no cache is configured, or it cannot be used."""
        from herdbook.cache.cache import configured

        cache = configured(self.place)
        if cache is None:
            raise CacheError(
                f"no cache is configured: pass --cache PLACE, a folder or s3://bucket/prefix, or set ${settings.CACHE.variable} "
                f"or `cache` in {repository.FILE}"
            )
        cache.check()
        return cache

    def plan(self) -> Plan:
        """Return the plan of the recipe."""
        from herdbook import plan as plans

        return plans.load(options.named(self.recipe), self.results)


def _of_target(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name the cache and the recipe, so that they may also stand behind a command's name."""

    @functools.wraps(function)
    @click.pass_obj
    def run(
        target: Target,
        /,
        own_recipe: Path | None,
        own_results: Path | None,
        own_place: str | None,
        **others: Any,
    ) -> Any:
        named = Target(own_place or target.place, own_recipe or target.recipe, own_results or target.results)
        return function(named, **others)

    own = (
        click.option(
            "--cache", "own_place", metavar="PLACE", help="The cache; also before the command's name."
        ),
        click.option(
            "--recipe", "own_recipe", type=options.FILE, metavar="FILE", help="The recipe, likewise."
        ),
        click.option(
            "--results",
            "own_results",
            type=options.FOLDER,
            metavar="FOLDER",
            help="The results folder, likewise.",
        ),
    )
    for option in own:
        run = option(run)
    return run


@click.group(
    cls=repository.Group,
    invoke_without_command=True,
    epilog=options.examples(
        "herdbook cache",
        "herdbook cache prune --older-than 30d --dry-run",
        "herdbook cache add --cache /data/herdbook-cache",
        "herdbook cache verify --cache s3://bucket/prefix",
    ),
)
@options.recipe_if_needed
@options.results
@click.option(
    "--cache",
    "place",
    metavar="PLACE",
    envvar=settings.CACHE.variable,
    show_envvar=True,
    help=f"A folder, or s3://bucket/prefix ({repository.FILE}: cache).",
)
@click.pass_context
def command(context: click.Context, recipe: Path | None, results: Path, place: str | None) -> None:
    """Show, prune and verify the cache of results.

    Without a command, every entry is listed.
    """
    context.obj = Target(place, recipe, results)
    if context.invoked_subcommand is None:
        context.invoke(list_)


@command.command("list")
@options.json
@_of_target
def list_(target: Target, json: Path | None) -> None:
    """List all entries with size, last use and users."""
    from herdbook.cli.output import write_report

    cache = target.open()
    entries = sorted(cache.entries(), key=lambda entry: (-entry.size_bytes, entry.kind, entry.id))
    releases = sorted({release for entry in entries for release in entry.uses})
    say(f"{cache.store.place}: {_amount(entries)}")
    for release in releases:
        used = [entry for entry in entries if release in entry.uses]
        alone = [entry for entry in used if len(entry.uses) == 1]
        say(f"  {release}: {_amount(used)}; {_amount(alone)} used by it alone")
    if entries:
        say(f"{'kind':<9} {'size':>10}  {'last used':<16}  {'used by':<24}  what")
    for entry in entries:
        say(_line(entry))
    if json:
        write_report(json, {"place": cache.store.place, "entries": [_as_json(entry) for entry in entries]})


@command.command("add")
@_of_target
def add(target: Target) -> None:
    """Save all existing results of the recipe in the cache."""
    from herdbook.cache import step
    from herdbook.cache.product import products

    cache, plan = target.open(), target.plan()
    new, total = step.add(plan, cache)
    withheld = {name for product in products(plan) if product.exists for name in cache.withheld(product)}
    if withheld:
        say(
            f"not stored: what descends from gated {', '.join(sorted(withheld))}, which `gated` does not name"
        )
    say(
        f"{cache.store.place}: {humanize.plural(new, 'new entry', 'new entries')}, {total - new} already present"
    )


@command.command("verify")
@_of_target
def verify(target: Target) -> None:
    """Read all entries in full; remove damaged ones.

    A damaged entry is saved anew if the results contain an intact copy.
    """
    from herdbook.cache.maintenance import repair
    from herdbook.cache.product import products
    from herdbook.progress import track

    cache = target.open()
    try:
        plan: Plan | None = target.plan()
    except HerdbookError:  # a cache can be verified outside a recipe's folder
        plan = None
    known = {product.entry: product for product in products(plan)} if plan else {}
    entries = list(cache.entries())
    damaged = 0
    with track("verify", len(entries)) as advance:
        for entry in entries:
            for line in repair(cache, [entry], plan, known):
                damaged += 1
                say(line)
            advance()
    say(f"{cache.store.place}: {_amount(entries)} read, {damaged} damaged")


@command.command("prune")
@click.option(
    "--older-than",
    type=Age(),
    metavar="AGE",
    help="Entries that were not used for AGE, such as 30d, 12h or 8w.",
)
@click.option(
    "--keep-size",
    type=Size(),
    metavar="SIZE",
    help="The least recently used entries, until the rest is no larger than SIZE, such as 500GB.",
)
@click.option(
    "--not-used-by",
    multiple=True,
    metavar="RELEASE",
    help="Entries that RELEASE did not use. May be given several times: entries that none of the releases used.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@_of_target
def prune(
    target: Target,
    older_than: float | None,
    keep_size: int | None,
    not_used_by: tuple[str, ...],
    *,
    dry_run: bool,
) -> None:
    """Remove entries, and files left over from killed builds.

    Results are not changed.
    """
    from herdbook.cache.maintenance import to_prune

    if older_than is None and keep_size is None and not not_used_by:
        raise click.UsageError(
            "no entries are selected for removal: pass --older-than, --keep-size or --not-used-by"
        )
    cache = target.open()
    entries = list(cache.entries())
    used = {release for entry in entries for release in entry.uses}
    if entries and (unknown := [name for name in not_used_by if name not in used]):
        # A misspelt name would select every entry.
        raise CacheError(
            f"--not-used-by {unknown[0]!r}: no entry of {cache.store.place} was used by a release of this name, so nothing was "
            f"removed{humanize.did_you_mean(unknown[0], used)}. `herdbook cache` lists them"
        )
    pruned = to_prune(
        entries,
        older_than_s=older_than,
        keep_bytes=keep_size,
        not_used_by=not_used_by,
    )
    for entry in pruned:
        say(_line(entry))
        if not dry_run:
            cache.remove(entry.name)
    left_over = list(cache.left_over())
    for file in left_over:
        if not dry_run:
            cache.store.remove(file.name)
    action = "would be removed" if dry_run else "removed"
    size = sum(file.size_bytes for file in left_over)
    say(
        f"{_amount(pruned)} {action}; left over from killed builds: {humanize.plural(len(left_over), 'file')}, "
        f"{humanize.size(size)}"
    )


def _line(entry: CacheEntry) -> str:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    by = ", ".join(sorted(entry.uses)) or "no release"
    gated = "  (gated)" if entry.gated else ""
    return f"{entry.kind:<9} {humanize.size(entry.size_bytes):>10}  {used:<16}  {by:<24}  {entry.id}{gated}"


def _as_json(entry: CacheEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "id": entry.id,
        "gated": entry.gated,
        "files": {role: {"sha256": sha, "size_bytes": size} for role, (sha, size) in entry.files.items()},
        "used": entry.used,
        "uses": entry.uses,
    }


def _amount(entries: list[CacheEntry]) -> str:
    count = len(entries)
    size = sum(entry.size_bytes for entry in entries)
    return f"{humanize.plural(count, 'entry', 'entries')}, {humanize.size(size)}"
