"""``herdbook take`` and ``herdbook cache``: what is in the cache, who uses it, what may go, and whether it is whole."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.errors import CacheError, HerdbookError

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.cache.cache import Cache, Entry
    from herdbook.cli.command import Add
    from herdbook.plan import Plan

HOURS = {"h": 1, "d": 24, "w": 168}
BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


def register(add: Add) -> None:
    """Add the commands."""
    taking = add("take", "take a result over from the cache, compared with its digest", _take)
    taking.add_argument("file", type=Path, help="where it shall be, below the results")
    command = add("cache", "show what is in the cache, prune it, verify it", _list)
    command.add_argument(
        "--cache", metavar="PLACE", help="a folder, or s3://bucket/prefix (default: $HERDBOOK_CACHE)"
    )
    actions = command.add_subparsers(metavar="ACTION")

    def act(name: str, text: str, run: Callable[[argparse.Namespace], int | None]) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.set_defaults(run=run)
        return action

    listing = act("list", "show every entry: kind, size, last use, which releases used it", _list)
    command.set_defaults(json=None)
    listing.add_argument("--json", type=Path, metavar="FILE", help="also write it as JSON")
    act("add", "put all that the results hold of the recipe into the cache", _add)
    act(
        "verify",
        "read everything in full; remove what was damaged, and put it again where it can be",
        _verify,
    )
    pruning = act("prune", "remove entries, and what killed builds have left; results stay", _prune)
    pruning.add_argument(
        "--older-than", type=_age, metavar="AGE", help="what was not used for so long, such as 30d, 12h or 8w"
    )
    pruning.add_argument(
        "--keep-size",
        type=_size,
        metavar="SIZE",
        help="what was not used for longest, until the rest is no larger than, say, 500GB",
    )
    pruning.add_argument(
        "--not-used-by",
        nargs="+",
        default=[],
        metavar="RELEASE",
        help="what none of these releases has put or taken",
    )
    pruning.add_argument("--dry-run", action="store_true", help="only say what would go")


def _take(options: argparse.Namespace) -> None:
    from herdbook.cache.step import take

    take(_plan(options), options.file)


def _list(options: argparse.Namespace) -> None:
    from herdbook.files import write_json

    cache = _cache(options)
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
    if options.json:
        write_json(options.json, {"place": cache.store.place, "entries": [_as_json(one) for one in entries]})


def _add(options: argparse.Namespace) -> None:
    from herdbook.cache.step import add

    cache = _cache(options)
    new, there = add(_plan(options), cache)
    print(f"{cache.store.place}: {new} entries are new, {there - new} were there")


def _verify(options: argparse.Namespace) -> None:
    from herdbook.cache.maintenance import heal
    from herdbook.cache.product import products
    from herdbook.progress import track

    cache = _cache(options)
    try:
        plan: Plan | None = _plan(options)
    except HerdbookError:  # a cache may be looked after anywhere
        plan = None
    known = {product.entry: product for product in products(plan)} if plan else {}
    entries = list(cache.entries())
    damaged = 0
    with track("verify", len(entries)) as advance:
        for entry in entries:
            for line in heal(cache, [entry], plan, known):
                damaged += 1
                print(line)
            advance()
    print(f"{cache.store.place}: {_amount(entries)} read, {damaged} damaged")


def _prune(options: argparse.Namespace) -> None:
    from herdbook.cache.maintenance import to_prune

    if options.older_than is None and options.keep_size is None and not options.not_used_by:
        raise CacheError("say what may go: --older-than, --keep-size or --not-used-by")
    cache = _cache(options)
    gone = to_prune(
        cache.entries(),
        older_than_s=options.older_than,
        keep_bytes=options.keep_size,
        not_used_by=options.not_used_by,
    )
    for entry in gone:
        print(_line(entry))
        if not options.dry_run:
            cache.remove(entry.name)
    left = list(cache.left_over())
    for item in left:
        if not options.dry_run:
            cache.store.remove(item.name)
    would = "would be removed" if options.dry_run else "removed"
    size = sum(item.size_bytes for item in left)
    print(f"{_amount(gone)} {would}; of builds that were killed {len(left)} files, {_bytes(size)}")


def _plan(options: argparse.Namespace) -> Plan:
    from herdbook import plan as plans

    return plans.load(options.recipe, options.results)


def _cache(options: argparse.Namespace) -> Cache:
    from herdbook.cache.cache import configured

    cache = configured(options.cache)
    if cache is None:
        raise CacheError("which cache? Say --cache PLACE, or set $HERDBOOK_CACHE")
    cache.check()
    return cache


def _line(entry: Entry) -> str:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    by = ", ".join(sorted(entry.uses)) or "nobody"
    gated = "  (gated)" if entry.gated else ""
    return f"{entry.kind:<9} {_bytes(entry.size_bytes):>10}  {used:<16}  {by:<24}  {entry.id}{gated}"


def _as_json(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "id": entry.id,
        "gated": entry.gated,
        "files": {role: {"sha256": sha, "size_bytes": size} for role, (sha, size) in entry.files.items()},
        "used": entry.used,
        "uses": entry.uses,
    }


def _amount(entries: list[Entry]) -> str:
    count = len(entries)
    return f"{count} {'entry' if count == 1 else 'entries'}, {_bytes(sum(one.size_bytes for one in entries))}"


def _bytes(size_bytes: int) -> str:
    unit = next((unit for unit in ("TB", "GB", "MB") if size_bytes >= BYTES[unit]), None)
    return f"{size_bytes / BYTES[unit]:.2f} {unit}" if unit else f"{size_bytes / 1000:.1f} kB"


def _age(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no age such as 30d, 12h or 8w")
    return float(found[1]) * HOURS[found[2]] * 3600


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(MB|GB|TB)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 500GB (MB, GB, TB: decimal)")
    return int(float(found[1]) * BYTES[found[2]])
