"""The files beside the recipe that a job reads: of models and adapters in folders, tasks with their data, texts, a matrix.

They are no inputs of the jobs, since what is made of them has their digests in its key. So their absence is told separately, before
anything runs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from herdbook.humanize import joined, plural
from herdbook.plan.evaluate import Evaluation
from herdbook.plan.imatrix import Imatrix
from herdbook.plan.jobs import FILES
from herdbook.plan.loss import FileLoss, Reference
from herdbook.plan.model import Node, Part, Search
from herdbook.plan.operation import FetchFile, FoldAdapter
from herdbook.plan.routing import RoutingReport
from herdbook.recipe import Adapter, Folder, Laser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.plan.job import Job
    from herdbook.plan.plan import Plan

NAMED = 3  # files that a message names


def missing_beside(plan: Plan, job: Job) -> list[str]:
    """Return what a job would not find beside the recipe, a line for each key that names it; empty if nothing is missing.

    Whether the files are those that were locked, the job itself checks.
    """
    lost: dict[str, list[str]] = {}
    for where, path in _read_by(plan, job):
        if not path.is_file():
            lost.setdefault(where, []).append(os.path.normpath(path))
    return [
        f"{where}: {_listed(paths)} missing. Put {'it' if len(paths) == 1 else 'them'} there, or change the recipe and run "
        "`herdbook lock`"
        for where, paths in lost.items()
    ]


def _listed(paths: list[str]) -> str:
    more = len(paths) - NAMED
    named = paths if more <= 0 else [*paths[:NAMED], plural(more, "more file")]
    return f"{joined(named)} {'is' if len(paths) == 1 else 'are'}"


def _read_by(plan: Plan, job: Job) -> Iterator[tuple[str, Path]]:
    """Yield the files beside the recipe that a job reads, each after the key that names it."""
    models = plan.recipe.models
    match job.subject:
        case Part(model=name, operation=FetchFile(name=file)) if isinstance(model := models[name], Folder):
            yield f"models.{name}.folder", plan.beside_recipe(model.folder) / file
        case Node(name=name) if job.rule == FILES and isinstance(model := models[name], Folder):
            folder = plan.beside_recipe(model.folder)
            yield from ((f"models.{name}.folder", folder / file) for file in plan.lock.sources[name].members)
        case Part(model=name, operation=FoldAdapter()) if isinstance(model := models[name], Adapter):
            if isinstance(model.adapter, str):
                folder = plan.beside_recipe(model.adapter)
                locked = plan.lock.adapters[name].files
                yield from ((f"models.{name}.adapter", folder / file.name) for file in locked)
        case Search(model=name) if isinstance(model := models[name], Laser) and model.calibration:
            yield from _texts(plan, [model.calibration])
        case RoutingReport(texts=texts) | Reference(texts=texts) | FileLoss(reference=Reference(texts=texts)):
            yield from _texts(plan, texts)
        case Imatrix() as matrix:
            yield from _texts(plan, matrix.texts)
            if matrix.given and not matrix.commit:
                yield "quantize.imatrix.file", plan.beside_recipe(matrix.given.name)
        case Evaluation() as measured:
            yield from _tasks(plan, measured)


def _texts(plan: Plan, names: list[str] | tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for name in names:
        for file in plan.lock.calibration[name].data:
            yield f"calibration.{name}", plan.beside_recipe(file.name)


def _tasks(plan: Plan, measured: Evaluation) -> Iterator[tuple[str, Path]]:
    for task, _ in measured.group.tasks:
        where = f"evaluate.tasks: {task.name}"
        yield from ((where, plan.beside_recipe(file.name)) for file in task.local)
        if task.file:  # its data are beside it
            beside = plan.beside_recipe(task.file.name).parent
            yield from ((where, beside / file.name) for file in task.data)
