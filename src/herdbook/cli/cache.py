"""``herdbook cache``: what is in the cache, who uses it, what may be removed, and whether it is whole."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from herdbook import humanize, settings
from herdbook.cli import options, repository
from herdbook.cli.size import Age, Size
from herdbook.errors import CacheError, HerdbookError

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.cache.cache import Cache, CacheEntry
    from herdbook.plan import Plan


@dataclass(frozen=True)
class Place:
    """The cache that is meant, and the recipe that it is used for."""

    place: str | None
    recipe: Path
    results: Path

    def open(self) -> Cache:
        """Return the cache. Raises CacheError if none is configured, or it cannot be used."""
        from herdbook.cache.cache import configured

        cache = configured(self.place)
        if cache is None:
            raise CacheError(
                f"no cache is configured: pass --cache PLACE, or set ${settings.CACHE.variable} or `cache` in "
                f"{repository.FILE}"
            )
        cache.check()
        return cache

    def plan(self) -> Plan:
        """Return the plan of the recipe."""
        from herdbook import plan as plans

        return plans.load(self.recipe, self.results)


@click.group(
    cls=repository.Group,
    invoke_without_command=True,
    epilog=options.examples(
        "herdbook cache",
        "herdbook cache prune --older-than 30d --dry-run",
        "herdbook cache --cache s3://bucket/prefix verify",
    ),
)
@options.recipe
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
def command(context: click.Context, recipe: Path, results: Path, place: str | None) -> None:
    """Show, prune and verify the cache of results.

    Without a command, every entry is listed.
    """
    context.obj = Place(place, recipe, results)
    if context.invoked_subcommand is None:
        context.invoke(list_)


@command.command("list")
@options.json
@click.pass_obj
def list_(place: Place, json: Path | None) -> None:
    """List all entries with size, last use and users."""
    from herdbook.files import write_json

    cache = place.open()
    entries = sorted(cache.entries(), key=lambda entry: (-entry.size_bytes, entry.kind, entry.id))
    releases = sorted({release for entry in entries for release in entry.uses})
    print(f"{cache.store.place}: {_amount(entries)}")
    for release in releases:
        own = [entry for entry in entries if release in entry.uses]
        alone = [entry for entry in own if len(entry.uses) == 1]
        print(f"  {release}: {_amount(own)}; {_amount(alone)} for it alone")
    if entries:
        print(f"{'kind':<9} {'size':>10}  {'last used':<16}  {'used by':<24}  what")
    for entry in entries:
        print(_line(entry))
    if json:
        write_json(json, {"place": cache.store.place, "entries": [_as_json(one) for one in entries]})


@command.command("add")
@click.pass_obj
def add(place: Place) -> None:
    """Put all results of the recipe into the cache."""
    from herdbook.cache import step

    cache = place.open()
    new, there = step.add(place.plan(), cache)
    print(f"{cache.store.place}: {new} entries are new, {there - new} were there")


@command.command("verify")
@click.pass_obj
def verify(place: Place) -> None:
    """Read everything in full; remove what is damaged.

    A damaged entry is put back if the results hold a good copy.
    """
    from herdbook.cache.maintenance import repair
    from herdbook.cache.product import products
    from herdbook.progress import track

    cache = place.open()
    try:
        plan: Plan | None = place.plan()
    except HerdbookError:  # a cache may be looked after anywhere
        plan = None
    known = {product.entry: product for product in products(plan)} if plan else {}
    entries = list(cache.entries())
    damaged = 0
    with track("verify", len(entries)) as advance:
        for entry in entries:
            for line in repair(cache, [entry], plan, known):
                damaged += 1
                print(line)
            advance()
    print(f"{cache.store.place}: {_amount(entries)} read, {damaged} damaged")


@command.command("prune")
@click.option(
    "--older-than", type=Age(), metavar="AGE", help="Entries not used for so long, such as 30d, 12h or 8w."
)
@click.option(
    "--keep-size",
    type=Size(),
    metavar="SIZE",
    help="Entries not used for longest, until the rest is no larger than SIZE, such as 500GB.",
)
@click.option(
    "--not-used-by",
    multiple=True,
    metavar="RELEASE",
    help="Entries that this release has not used. May be given several times: then none of these.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.pass_obj
def prune(
    place: Place,
    older_than: float | None,
    keep_size: int | None,
    not_used_by: tuple[str, ...],
    *,
    dry_run: bool,
) -> None:
    """Remove entries, and leftovers of builds that were killed.

    Results are not touched.
    """
    from herdbook.cache.maintenance import to_prune

    if older_than is None and keep_size is None and not not_used_by:
        raise click.UsageError(
            "nothing says what may be removed: pass --older-than, --keep-size or --not-used-by"
        )
    cache = place.open()
    gone = to_prune(
        cache.entries(),
        older_than_s=older_than,
        keep_bytes=keep_size,
        not_used_by=not_used_by,
    )
    for entry in gone:
        print(_line(entry))
        if not dry_run:
            cache.remove(entry.name)
    left = list(cache.left_over())
    for item in left:
        if not dry_run:
            cache.store.remove(item.name)
    would = "would be removed" if dry_run else "removed"
    size = sum(item.size_bytes for item in left)
    print(f"{_amount(gone)} {would}; of builds that were killed {len(left)} files, {humanize.size(size)}")


def _line(entry: CacheEntry) -> str:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    by = ", ".join(sorted(entry.uses)) or "nobody"
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
    return f"{humanize.plural(count, 'entry', 'entries')}, {humanize.size(sum(one.size_bytes for one in entries))}"
