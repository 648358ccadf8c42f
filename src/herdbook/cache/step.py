"""What a build does with the cache: asks before jobs are chosen, takes over what is there, puts there what was made."""

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
    """Return what can be taken over: by path, those files that are missing in the results and lie in the cache.

    Raises:
        CacheError: If the cache that is configured is missing, or cannot be written to.
    """
    cache = configured()
    if cache is None:
        return {}
    cache.check()
    wanted = [product for product in products(plan) if not product.there]
    return {
        path: product
        for product in cache.contained(wanted)
        for path in product.files.values()
        if not path.exists()
    }


def restore(plan: Plan, path: Path) -> None:
    """Take a file over.

    Raises:
        CacheError: If there is no cache, or the file is not there any more, or never was.
        DigestMismatchError: If it was damaged.
    """
    cache = configured()
    if cache is None:
        raise CacheError("no cache is configured: set `cache` in config/config.yaml, or $HERDBOOK_CACHE")
    by_path = {place: product for product in products(plan) for place in product.files.values()}
    if path not in by_path:
        raise CacheError(f"{path}: is nothing that a cache keeps of this recipe")
    cache.restore(by_path[path], path, plan.recipe.release.name)


def save(plan: Plan, job: Job) -> None:
    """Put what a job has made into the cache, if there is one.

    A cache that does not take it is no reason to throw a result away: then a line says so, and the build goes on.

    Raises:
        DigestMismatchError: If a file that was just made is not what its record says.
    """
    product = next((one for one in products(plan) if one.job == job), None)
    try:
        cache = configured()
        if cache and product and product.files:
            cache.put(product, plan.recipe.release.name)
    except CacheError as error:
        say(f"warning: not put into the cache: {error}")


def add(plan: Plan, cache: Cache) -> tuple[int, int]:
    """Put all that the results hold of a plan into a cache; return how many were new, and how many there are.

    Raises:
        CacheError: If the cache does not take it.
        DigestMismatchError: If a result is not what its record says.
    """
    made = [product for product in products(plan) if product.files and product.there]
    return sum(cache.put(product, plan.recipe.release.name) for product in made), len(made)


def own_hub_folder() -> Path | None:
    """Return the folder for what the Hub gave, beside the cache, so that every node has it; None without a cache's folder.

    It is made if it is missing, for its owner alone, since some of it may be gated.

    Raises:
        OSError: If it cannot be made.
    """
    place = Path(CACHE.value).expanduser().absolute()
    if not CACHE.value or not place.is_dir():
        return None
    folder = place / f"hub-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
