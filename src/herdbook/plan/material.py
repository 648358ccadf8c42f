"""The materials of a build: models and adapters from elsewhere, and the files that the recipe names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from herdbook import recipe as recipes
from herdbook.layout import image_file, input_file
from herdbook.plan.operation import FetchRanges
from herdbook.recipe import Adapter
from herdbook.sources import purl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.lock import LockedAdapter, LockedDataSet, LockedFile, LockedSource
    from herdbook.plan import Node, Plan


@dataclass(frozen=True)
class Material:
    """A model or an adapter that this build did not make.

    Args:
        name: Its name for people: the model's name in the recipe; of an adapter, that of the model it is folded into.
        node: The model's name in the recipe.
        uri: Where it comes from: a package URL if it has one.
        revision: What it is pinned to beyond its files: a commit, or the digest of a wheel.
        license: Its license, by the Hub's identifier or as its author wrote it; None if it is unknown.
        license_by_recipe: Whether the license was taken from the recipe, not from the source.
        files: Its files, pinned.
        weights: Names of those files that contain weights.
        in_part: Whether only the MLPs were read from the weights, so that no digest of a whole file was compared.
    """

    name: str
    node: str
    uri: str
    revision: str | None
    license: str | None
    license_by_recipe: bool
    files: tuple[LockedFile, ...]
    weights: frozenset[str]
    in_part: bool = False

    @property
    def repo(self) -> str | None:
        """``owner/name``, if it comes from the Hub."""
        commit = purl.parse(self.uri)
        return commit.repo if commit else None


@dataclass(frozen=True)
class Input:
    """A file that the recipe names.

    Args:
        role: ``task``, ``task data``, ``data set``, ``suite``, ``calibration``, ``leaderboard``, ``template`` or ``picture``.
        name: The name of the task, data set, suite, text or board that it belongs to.
        file: The file, pinned.
        uri: Where it can be downloaded from; None if it is beside the recipe.
    """

    role: str
    name: str
    file: LockedFile
    uri: str | None = None


def ancestry(plan: Plan) -> tuple[Node, ...]:
    """Return the released model and its ancestors: parents first, otherwise in the recipe's order."""
    ordered: dict[str, Node] = {}

    def visit(name: str) -> None:
        for parent in recipes.parents(plan.recipe.models[name]):
            visit(parent)
        ordered.setdefault(name, plan.nodes[name])

    ancestors = recipes.ancestry(plan.recipe, plan.released.name)
    for name in plan.recipe.models:
        if name in ancestors:
            visit(name)
    return tuple(ordered.values())


def materials(plan: Plan, nodes: tuple[Node, ...]) -> Iterator[Material]:
    """Yield the sources and adapters among ``nodes`` of a plan, in their order."""
    for node in nodes:
        if node.name in plan.lock.sources:
            yield _source(node, plan.lock.sources[node.name])
        elif isinstance(node.recipe, Adapter):
            yield _adapter(node.name, node.recipe, plan.lock.adapters[node.name])


def inputs(plan: Plan) -> Iterator[Input]:
    """Yield the files that the recipe names: tasks and their data, suites, calibration texts, leaderboards."""
    for task in plan.lock.tasks.values():
        yield from (Input("task", task.name, file) for file in task.local)
        yield from (Input("task data", task.name, file) for file in task.data)
    for data_set in plan.lock.data_sets.values():
        yield from data_set_inputs(data_set)
    for suite in plan.lock.suites.values():
        yield Input("suite", suite.suite.suite, suite.file)
    for name, text in plan.lock.calibration.items():
        yield from (Input("calibration", name, file) for file in text.data)
    for name, file in plan.lock.leaderboards.items():
        yield Input("leaderboard", name, file)
    for name, template in plan.lock.templates.items():
        yield Input("template", name, template)
    if plan.lock.image:
        yield Input("picture", "card", plan.lock.image)


def data_set_inputs(data_set: LockedDataSet) -> Iterator[Input]:
    """Yield the files that tasks read of a data set on the Hub."""
    for file in data_set.files:
        named = file.model_copy(update={"name": f"datasets/{data_set.repo}/{file.name}"})
        at = f"{purl.PUBLIC_HUB}/datasets/{data_set.repo}/resolve/{data_set.revision}/{quote(file.name)}"
        yield Input("data set", f"{data_set.repo}@{data_set.revision}", named, at)


def carried_inputs(plan: Plan) -> dict[str, tuple[LockedFile, Path]]:
    """Return the files of ``inputs`` that a release contains: by name in the release, the pinned file and its path here.

    A verifier recomputes the places on the card from them: the snapshots of leaderboards, the files of tasks and suites,
    and templates of its own; its picture is shown on it.
    The texts that models were measured on are not included: they are large, and have licenses of their own.
    """
    files = {}
    local = [file for task in plan.lock.tasks.values() for file in task.local]
    suites = [suite.file for suite in plan.lock.suites.values()]
    for file in (*local, *suites, *plan.lock.leaderboards.values(), *plan.lock.templates.values()):
        files[input_file(file.name, str(file.sha256))] = (file, plan.beside_recipe(file.name))
    if image := plan.lock.image:
        files[image_file(image.name)] = (image, plan.beside_recipe(image.name))
    return dict(sorted(files.items()))


def _source(node: Node, locked: LockedSource) -> Material:
    stated_license = getattr(node.recipe, "license", None)
    weights = (
        {tensor.file for tensor in locked.tensors}
        if locked.weights == "safetensors"
        else {locked.files[0].name}
    )
    return Material(
        name=node.name,
        node=node.name,
        uri=locked.uri,
        revision=locked.revision,
        license=locked.license,
        license_by_recipe=stated_license is not None,
        files=locked.files,
        weights=frozenset(weights),
        in_part=any(isinstance(part.operation, FetchRanges) for part in node.parts),
    )


def adapter_uri(model: Adapter, locked: LockedAdapter) -> str:
    """Return where an adapter comes from: a package URL if it has one."""
    if locked.revision:
        return str(purl.HubCommit(model.place.partition("@")[0], locked.revision))
    return f"folder:{model.place.rstrip('/').rpartition('/')[2]}"


def _adapter(name: str, model: Adapter, locked: LockedAdapter) -> Material:
    return Material(
        name=f"adapter of {name}",
        node=name,
        uri=adapter_uri(model, locked),
        revision=locked.revision,
        license=model.license,
        license_by_recipe=model.license is not None,
        files=locked.files,
        weights=frozenset(tensor.file for tensor in locked.tensors),
    )
