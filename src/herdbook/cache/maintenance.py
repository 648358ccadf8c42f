"""Care for a cache: what may go, and what was damaged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from herdbook.files import sha256_file
from herdbook.layout import SUMS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

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
    """Return the entries that may go, those that were not used for longest first.

    Args:
        entries: All entries.
        older_than_s: Those go that were not used for so many seconds.
        keep_bytes: If what remains is larger, those that were not used for longest go, until it is not.
        not_used_by: Names of releases; what none of them used goes.
        now: The time, in seconds since 1970.
    """
    now = time.time() if now is None else now
    ordered = sorted(entries, key=lambda entry: (entry.used, entry.name))
    gone = [
        entry
        for entry in ordered
        if (older_than_s is not None and now - entry.used > older_than_s)
        or (not_used_by and not set(not_used_by) & set(entry.uses))
    ]
    if keep_bytes is not None:
        names = {entry.name for entry in gone}
        left = [entry for entry in ordered if entry.name not in names]
        size = sum(entry.size_bytes for entry in left)
        for entry in left:
            if size <= keep_bytes:
                break
            gone.append(entry)
            size -= entry.size_bytes
    return gone


def repair(
    cache: Cache, entries: Iterable[CacheEntry], plan: Plan | None, known: dict[str, Product]
) -> Iterator[str]:
    """Read entries in full; remove those that were damaged, and put them again from the results where these are good.

    Args:
        cache: The cache.
        entries: Its entries.
        plan: The plan of the recipe here, if there is one.
        known: Its products by the name of their entry.

    Yields:
        What was wrong and what was done, in a line.
    """
    for entry in entries:
        wrong = cache.damaged(entry)
        if not wrong and entry.files:
            continue
        said = "; ".join(f"its {role} {why}" for role, why in wrong.items()) or "what it holds cannot be read"
        cache.remove(entry.name)
        product = known.get(entry.name)
        done = "removed; the next build that needs it makes it again"
        if plan and product and product.there:
            if _good(entry, product):
                cache.put(product, plan.recipe.release.name)
                done = "put again from the results"
            else:
                _forget(plan, product)
                done = "removed, and so is the same damaged file in the results; build again"
        yield f"{entry.kind} {entry.id}: {said}: {done}"


def _good(entry: CacheEntry, product: Product) -> bool:
    return entry.files.keys() == product.files.keys() and all(
        sha256_file(path) == entry.files[role][0] for role, path in product.files.items()
    )


def _forget(plan: Plan, product: Product) -> None:
    """Remove a damaged result, and the hard links to it in the release, so that a build makes both again."""
    released = [path for path in plan.layout.release_folder.glob("*") if path.is_file()]
    for path in product.files.values():
        for link in released:
            if link.exists() and path.exists() and link.samefile(path):
                link.unlink()
                (plan.layout.release_folder / SUMS).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
