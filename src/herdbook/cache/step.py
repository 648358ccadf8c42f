"""How a build uses the cache: it looks results up before jobs are chosen, restores those, and saves what it builds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.cache.cache import configured
from herdbook.cache.product import products
from herdbook.errors import CacheError
from herdbook.progress import say
from herdbook.settings import CACHE

if TYPE_CHECKING:
    from herdbook.cache.cache import Cache
    from herdbook.cache.product import Product
    from herdbook.plan import Plan
    from herdbook.plan.jobs import Job


def available(plan: Plan) -> dict[Path, Product]:
    """Return what can be restored: the files that the results lack and the cache contains, by path.

    Raises:
        CacheError: If the configured cache is missing or not writable.
    """
    cache = configured()
    if cache is None:
        return {}
    cache.check()
    missing = [product for product in products(plan) if not product.exists]
    return {
        path: product
        for product in cache.contained(missing)
        for path in product.files.values()
        if not path.exists()
    }


def restore(plan: Plan, path: Path) -> None:
    """Restore a file from the cache.

    Raises:
        CacheError: If no cache is configured, or it does not contain the file.
        DigestMismatchError: If the file is damaged.
    """
    cache = configured()
    if cache is None:
        raise CacheError("no cache is configured: set `cache` in config/config.yaml, or $HERDBOOK_CACHE")
    by_path = {file: product for product in products(plan) for file in product.files.values()}
    if path not in by_path:
        raise CacheError(f"{path}: is not a cacheable output of this recipe")
    cache.restore(by_path[path], path, plan.recipe.release.name)


def save(plan: Plan, job: Job) -> None:
    """Save a job's results in the cache, if one is configured.

    A cache that does not accept them is no reason to discard the results: a warning is printed, and the build continues.

    Raises:
        DigestMismatchError: If a file that was just made differs from its record.
    """
    product = next((product for product in products(plan) if product.job == job), None)
    try:
        cache = configured()
        if cache and product and product.files:
            cache.put(product, plan.recipe.release.name)
    except CacheError as error:
        say(f"warning: not saved in the cache: {error}")


def add(plan: Plan, cache: Cache) -> tuple[int, int]:
    """Save all existing results of a plan in a cache; return how many were new, and their total number.

    Raises:
        CacheError: If the cache does not accept one.
        DigestMismatchError: If a result differs from its record.
    """
    existing = [product for product in products(plan) if product.files and product.exists]
    return sum(cache.put(product, plan.recipe.release.name) for product in existing), len(existing)


def own_hub_folder() -> Path | None:
    """Return the folder for downloads from the Hub in the cache's folder, so that every node has them.

    It is created if it is missing, readable for its owner alone, since some of it may be gated.

    Returns:
        The folder; None if the cache is not a folder.

    Raises:
        OSError: If it cannot be created.
    """
    cache_folder = Path(CACHE.value).expanduser().absolute()
    if not CACHE.value or not cache_folder.is_dir():
        return None
    folder = cache_folder / f"hub-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
