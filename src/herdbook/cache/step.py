"""How a build uses the cache: it looks results up before jobs are chosen, restores those, and saves what it builds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import made
from herdbook.cache.cache import configured
from herdbook.cache.product import products
from herdbook.errors import CacheError
from herdbook.files import atomic_writer
from herdbook.plan.jobs import result_jobs
from herdbook.progress import say
from herdbook.settings import CACHE, RUN

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.cache.cache import Cache
    from herdbook.cache.product import Product
    from herdbook.plan import Plan
    from herdbook.plan.job import Job


def available(plan: Plan, *, writes: bool = True) -> dict[Path, Product]:
    """Return what can be restored: the files that the results lack and the cache contains, by path.

    Args:
        plan: The plan.
        writes: Whether the cache will be written to, and so is tried. Without it, nothing is written.

    Raises:
        CacheError: If the configured cache is missing, or, if it will be written to, not writable.
    """
    cache = configured()
    if cache is None:
        return {}
    cache.check(by_writing=writes)
    missing = [product for product in products(plan) if not product.exists]
    return {
        path: product
        for product in cache.contained(missing)
        for path in product.files.values()
        if not path.exists()
    }


def restore(plan: Plan, path: Path) -> None:
    """Restore a file from the cache; with it, what its job took, if it was made for this release on another machine.

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
    product, release = by_path[path], plan.recipe.release.name
    made.note_digests(plan.layout, product.job, cache.restore(product, path, release))
    note = plan.layout.spent(product.job.rule, product.job.id)
    # once for each product
    if path == next(iter(product.files.values())) and (content := cache.spent(product, release)):
        with atomic_writer(note) as file:
            file.write(content)


def take(plan: Plan, job: Job, make: Callable[[Job], None]) -> None:
    """Take the inputs of a job that are missing on this machine from the cache, if one is configured.

    What no cache keeps, such as a model's folder of links, is made here, of what the cache keeps. In a build on machines that
    share no disk, so are the files that the job waited for to copy from them, as far as the cache contains them.

    Args:
        plan: The plan.
        job: The job.
        make: Makes the outputs of another job, whose inputs exist.

    Raises:
        CacheError: If the cache does not contain an input.
        DigestMismatchError: If an input is damaged.
    """
    cache = configured()
    copied = job.copied if RUN.value else ()
    if cache is None or all(path.exists() for path in (*job.inputs, *copied)):
        return
    every = products(plan)
    kept = {path: product for product in every for path in product.files.values()}
    makers = {path: one for one in result_jobs(plan) for path in one.outputs}

    def provide(paths: tuple[Path, ...]) -> None:
        for path in paths:
            if path.exists():
                continue
            if product := kept.get(path):
                _restore_whole(cache, product, plan)
            elif path in makers:
                provide(makers[path].inputs)
                make(makers[path])

    provide(job.inputs)
    spared = dict.fromkeys(kept[path] for path in copied if path in kept and not path.exists())
    for product in cache.contained(list(spared)):
        _restore_whole(cache, product, plan)


def _restore_whole(cache: Cache, product: Product, plan: Plan) -> None:
    """Restore all missing files of a product: who reads weights also compares them with their record."""
    if not cache.contained([product]):
        raise CacheError(
            f"{product.id}: is missing on this machine, and not in the cache ({cache.store.place}). Make it first: "
            f"herdbook {product.job.step}"
        )
    for path in product.files.values():
        if not path.exists():
            digests = cache.restore(product, path, plan.recipe.release.name)
            made.note_digests(plan.layout, product.job, digests)


def is_saved(plan: Plan, job: Job) -> bool:
    """Return whether a build on machines that share no disk already has a job's results in its cache."""
    if not RUN.value:
        return False
    cache, product = configured(), _product(plan, job)
    return bool(cache and product and cache.contained([product]))


def save(plan: Plan, job: Job) -> None:
    """Save a job's results in the cache, if one is configured.

    A cache that does not accept them is no reason to discard the results: a warning is printed, and the build continues.
    Machines that share no disk have no other way to hand them on, so there it is a failure.

    Raises:
        CacheError: If machines share no disk and the cache does not accept them.
        DigestMismatchError: If a file that was just made differs from its record.
    """
    product = _product(plan, job)
    try:
        cache = configured()
        if not (cache and product and product.files):
            return
        if names := cache.withheld(product):
            say(
                f"not saved in the cache: descends from gated {', '.join(names)}, which `gated` does not name"
            )
        else:
            cache.put(product, plan.recipe.release.name)
    except CacheError as error:
        if RUN.value:
            raise
        say(f"warning: not saved in the cache: {error}")


def hand_on_spent(plan: Plan, job: Job) -> None:
    """Hand on the note of what a job took, on a machine that shares no disk: its result is restored elsewhere."""
    if not RUN.value:
        return
    cache, product = configured(), _product(plan, job)
    if cache and product and not cache.withheld(product):
        note = plan.layout.spent(job.rule, job.id).read_bytes()
        cache.note_spent(product, plan.recipe.release.name, note)


def _product(plan: Plan, job: Job) -> Product | None:
    return next((product for product in products(plan) if product.job == job), None)


def add(plan: Plan, cache: Cache) -> tuple[int, int]:
    """Save the existing results of a plan in a cache; return how many were new, and their total number.

    In a bucket, results that descend from a gated source are saved only if the settings name it.

    Raises:
        CacheError: If the cache does not accept one.
        DigestMismatchError: If a result differs from its record.
    """
    existing = [
        product
        for product in products(plan)
        if product.files and product.exists and not cache.withheld(product)
    ]
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
