"""Maintenance of a cache: which entries can be removed, and repair of damaged ones."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from herdbook.files import sha256_file
from herdbook.layout import SUMS
from herdbook.plan.release import contents

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from herdbook.cache.cache import Cache, CacheEntry
    from herdbook.cache.product import Product
    from herdbook.plan import Plan


def to_prune(
    entries: Iterable[CacheEntry],
    *,
    older_than_s: float | None = None,
    keep_bytes: int | None = None,
    not_used_by: Collection[str] = (),
    now: float | None = None,
) -> list[CacheEntry]:
    """Return the entries to remove, the least recently used first.

    Args:
        entries: All entries.
        older_than_s: Remove entries that were not used for this many seconds.
        keep_bytes: Remove the least recently used entries until the rest is no larger than this.
        not_used_by: Names of releases; remove the entries that none of them used.
        now: The time in seconds since 1970 (default: the current time).
    """
    now = time.time() if now is None else now
    ordered = sorted(entries, key=lambda entry: (entry.used, entry.name))
    removed = [
        entry
        for entry in ordered
        if (older_than_s is not None and now - entry.used > older_than_s)
        or (not_used_by and not set(not_used_by) & set(entry.uses))
    ]
    if keep_bytes is not None:
        names = {entry.name for entry in removed}
        remaining = [entry for entry in ordered if entry.name not in names]
        size = sum(entry.size_bytes for entry in remaining)
        for entry in remaining:
            if size <= keep_bytes:
                break
            removed.append(entry)
            size -= entry.size_bytes
    return removed


def repair(
    cache: Cache, entries: Iterable[CacheEntry], plan: Plan | None, known: dict[str, Product]
) -> Iterator[str]:
    """Read entries in full; remove the damaged ones, and save them anew if the results contain an intact copy.

    Args:
        cache: The cache.
        entries: Its entries.
        plan: The plan of the recipe; None outside a recipe's folder.
        known: The plan's products by the name of their entry.

    Yields:
        For each damaged entry a line with what was wrong and what was done.
    """
    for entry in entries:
        damages = cache.damaged(entry)
        if not damages and entry.files:
            continue
        problem = (
            "; ".join(f"its {role} {damage}" for role, damage in damages.items())
            or "its description is unreadable"
        )
        cache.remove(entry.name)
        product = known.get(entry.name)
        action = "removed; the next build that needs it rebuilds it"
        if plan and product and product.exists and not cache.withheld(product):
            if _is_intact(entry, product):
                cache.put(product, plan.recipe.release.name)
                action = "restored from the results"
            else:
                _forget(plan, product)
                action = "removed, with the same damaged file in the results; run the build again"
        yield f"{entry.kind} {entry.id}: {problem}: {action}"


def _is_intact(entry: CacheEntry, product: Product) -> bool:
    return entry.files.keys() == product.files.keys() and all(
        sha256_file(path) == entry.files[role][0] for role, path in product.files.items()
    )


def _forget(plan: Plan, product: Product) -> None:
    """Remove a damaged result, its hard links in releases, and what says of these releases that they are complete and verified.

    Snakemake asks for the verification only. Without it, the next build makes result, release and verification again.
    """
    damaged = list(product.files.values())
    real = {path.resolve() for path in damaged}
    is_stale = False
    for edition in plan.editions:
        folder = edition.layout.release_folder
        links = [path for path in folder.glob("*") if path.is_file() and _is_any(path, damaged)]
        if links or not real.isdisjoint(path.resolve() for path in contents(edition).values()):
            is_stale = True
            for path in (*links, folder / SUMS):
                path.unlink(missing_ok=True)
    if is_stale:  # one job verifies all editions
        for edition in plan.editions:
            edition.layout.verification.unlink(missing_ok=True)
            edition.layout.page.unlink(missing_ok=True)
    for path in damaged:
        path.unlink(missing_ok=True)


def _is_any(path: Path, others: Iterable[Path]) -> bool:
    return any(other.exists() and path.samefile(other) for other in others)
