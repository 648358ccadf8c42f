"""Builds on machines that share no disk: which jobs remain, which of them only Snakemake's host can run, what each awaits.

A job takes its inputs from the cache by their keys, and leaves its result there (``cache.step``). The jobs of such a build are
those whose results the cache keeps. All others make links, or take seconds: each machine makes what it needs of them.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from functools import cached_property
from typing import TYPE_CHECKING

from herdbook import lock as locks
from herdbook.cache.cache import configured
from herdbook.cache.product import products
from herdbook.cache.s3 import SCHEME
from herdbook.errors import CacheError
from herdbook.humanize import plural
from herdbook.lock import LockedHubFile
from herdbook.plan import Evaluation, FileLoss, Imatrix, Part
from herdbook.plan.jobs import FILES, needed_results
from herdbook.recipe import Adapter, Folder
from herdbook.settings import CACHE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from herdbook.cache.product import Product
    from herdbook.plan import Plan
    from herdbook.plan.job import Job

SENT_BYTES = 10_000_000  # Snakemake sends no larger file with a workflow's sources


class Nodes:
    """The jobs of a build on machines that share no disk.

    Args:
        plan: The plan.

    Raises:
        CacheError: If no cache in a bucket is configured.
    """

    def __init__(self, plan: Plan) -> None:
        cache = configured()
        if cache is None or not cache.store.place.startswith(SCHEME):
            raise CacheError(
                "jobs on machines that share no disk hand their results on in a bucket: set `cache` to "
                f"{SCHEME}bucket/prefix in config/config.yaml, with --config, or ${CACHE.variable}"
            )
        self._plan, self._cache = plan, cache
        self._done: set[Job] = set()

    @cached_property
    def _makers(self) -> dict[Path, Job]:
        return {path: job for job in needed_results(self._plan) for path in job.outputs}

    @cached_property
    def _products(self) -> dict[Job, Product]:
        needed = set(self._makers.values())
        return {product.job: product for product in products(self._plan) if product.job in needed}

    @cached_property
    def here(self) -> list[Job]:
        """The jobs for Snakemake's host: it alone has the folders on its disk, and the token for gated repositories.

        What may not be stored in the bucket is made, and stays, there too.
        """
        return [job for job, product in self._products.items() if self._is_here(product)]

    @cached_property
    def away(self) -> list[Job]:
        """The jobs for other machines."""
        here = set(self.here)
        return [job for job in self._products if job not in here]

    @cached_property
    def withheld(self) -> dict[str, int]:
        """How many jobs stay on Snakemake's host because of each gated repository that ``gated`` does not name."""
        found: dict[str, int] = {}
        for product in self._products.values():
            for repository in self._cache.withheld(product):
                found[repository] = found.get(repository, 0) + 1
        return found

    @cached_property
    def files(self) -> frozenset[Path]:
        """The files that the cache keeps, of all results of the build."""
        return frozenset(path for product in self._products.values() for path in product.files.values())

    def look_up(self, *, writes: bool = True) -> None:
        """Look up which results exist, so that nothing awaits them.

        Args:
            writes: Whether the bucket will be written to, and so is tried. Without it, nothing is written.

        Raises:
            CacheError: If the bucket is missing, or, if it will be written to, not writable.
        """
        self._cache.check(by_writing=writes)
        every = list(self._products.values())
        self._done = {product.job for product in self._cache.contained(every)}
        self._done |= {one.job for one in every if self._cache.withheld(one) and one.exists}

    def closing(self) -> str:
        """Return what the bucket has after a build, and what to run next: a build of some targets leaves others unmade."""
        try:
            self.look_up(writes=False)
        except CacheError as error:  # the build has succeeded, whatever came after it
            return str(error)
        place = self._cache.store.place
        if missing := len(self._products) - len(self._done):
            return f"{place} lacks {plural(missing, 'result')} of {self._plan.recipe_path}: the build was of others"
        words = shlex.join((f"recipe={self._plan.recipe_path}", f"cache={place}"))
        if self.withheld:
            place = f"{place}, but for gated ones, which are on this host"
        return f"all results are in {place}; make the release of them: snakemake --cores all --config {words}"

    def taken(self, paths: Iterable[Path]) -> list[Job]:
        """Return the jobs whose results are taken from the cache for these files, or for making them."""
        found: dict[Job, None] = {}
        for path in paths:
            job = self._makers.get(path)
            if job in self._products:
                found[job] = None
            elif job:
                found |= dict.fromkeys(self.taken(job.inputs))
        return list(found)

    def awaited(self, paths: Iterable[Path]) -> list[Job]:
        """Return those of ``taken`` whose results do not exist."""
        return [job for job in self.taken(paths) if job not in self._done]

    def _is_here(self, product: Product) -> bool:
        job, lock = product.job, self._plan.lock
        if job.rule == FILES or self._cache.withheld(product):
            return True
        match job.subject:
            case Evaluation():
                return any(data_set.gated for data_set in lock.data_sets.values())
            case Imatrix():
                return isinstance(lock.imatrix, LockedHubFile) and bool(lock.imatrix.gated)
            case FileLoss(locked=LockedHubFile() as locked):
                return bool(locked.gated)
            case Part() as part if job.rule == "fetch":
                return bool(product.gated) or isinstance(self._plan.nodes[part.model].recipe, Folder)
            case Part() as part if job.rule == "adapter":
                model = self._plan.nodes[part.model].recipe
                return isinstance(model, Adapter) and isinstance(model.adapter, str)
        return False


def check_sent(plan: Plan, others: Iterable[str | Path] = ()) -> None:
    """Check that Snakemake sends all files that jobs on other machines read beside the recipe.

    It sends what git tracks below the working folder, up to a size.

    Args:
        plan: The plan.
        others: Further files that it sends.

    Raises:
        CacheError: If it does not send one of them.
    """
    needed = [plan.recipe_path, locks.path_for(plan.recipe_path), *sorted(set(_beside_recipe(plan)))]
    try:
        command = ["git", "ls-files", "--recurse-submodules", "-z", "."]
        listed = subprocess.run(command, capture_output=True, check=False).stdout
    except FileNotFoundError:
        listed = b""
    tracked = {name.decode() for name in listed.split(b"\0")} | {_below(path) for path in others}
    problems = []
    for path in needed:
        name = _below(path)
        if name not in tracked:
            problems.append(f"{os.path.normpath(path)}: git does not track it in this folder")
        elif path.stat().st_size > SENT_BYTES:
            problems.append(f"{name}: is larger than {SENT_BYTES // 10**6} MB")
    if problems:
        raise CacheError(
            "jobs on other machines would lack files that the recipe names, since Snakemake sends only files that git "
            "tracks: run `git init` and `git add` in this folder.\n" + "\n".join(problems)
        )


def _beside_recipe(plan: Plan) -> Iterator[Path]:
    """Yield the files of a recipe that jobs read: tasks and their data, suites, texts, an importance matrix."""
    for task in plan.lock.tasks.values():
        yield from (plan.beside_recipe(file.name) for file in task.local)
        if task.file:  # its data is beside it
            yield from (plan.beside_recipe(task.file.name).parent / file.name for file in task.data)
    yield from (plan.beside_recipe(suite.file.name) for suite in plan.lock.suites.values())
    yield from (
        plan.beside_recipe(file.name) for text in plan.lock.calibration.values() for file in text.data
    )
    if plan.imatrix and plan.imatrix.given and not plan.imatrix.commit:
        yield plan.beside_recipe(plan.imatrix.given.name)


def _below(path: str | Path) -> str | None:
    """Return a path relative to the working folder, without `..`; None if it is outside."""
    relative = os.path.relpath(path)
    return None if relative.startswith("..") else relative.replace(os.sep, "/")
