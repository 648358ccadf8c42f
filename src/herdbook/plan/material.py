"""What a build takes from elsewhere: models, adapters, and files that the recipe names beside itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook import recipe as recipes
from herdbook.layout import input_file
from herdbook.plan.operation import FetchRanges
from herdbook.recipe import Adapter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.lock import LockedAdapter, LockedFile, LockedSource
    from herdbook.plan import Node, Plan

HUB = "pkg:huggingface/"


@dataclass(frozen=True)
class Material:
    """A model or an adapter that was not made here.

    Args:
        name: What to call it: the model's name in the recipe; of an adapter, that of the model it is folded into.
        node: The model in the recipe.
        uri: Where it is from: a package URL if there is one.
        revision: What it is pinned to beyond its files: a commit, or the digest of a wheel.
        license: Its licence, by the Hub's identifier or as its author wrote it; None if nobody says.
        license_by_recipe: Whether the recipe says so, not the source.
        files: Its files, pinned.
        weights: Names of those files that hold weights.
        in_part: Whether only the MLPs were read out of the weights: then no digest of a whole file was compared.
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
        """``owner/name``, if it is of the Hub."""
        return self.uri.removeprefix(HUB).partition("@")[0] if self.uri.startswith(HUB) else None


@dataclass(frozen=True)
class Input:
    """A file that the recipe names beside itself.

    Args:
        role: ``task``, ``task data``, ``calibration`` or ``leaderboard``.
        name: What it belongs to.
        file: The file, pinned.
    """

    role: str
    name: str
    file: LockedFile


def ancestry(plan: Plan) -> tuple[Node, ...]:
    """Return the models that the released one descends from, and itself: parents first, else in the recipe's order."""
    found: dict[str, Node] = {}

    def visit(name: str) -> None:
        for parent in recipes.parents(plan.recipe.models[name]):
            visit(parent)
        found.setdefault(name, plan.nodes[name])

    wanted = recipes.ancestry(plan.recipe, plan.released.name)
    for name in plan.recipe.models:
        if name in wanted:
            visit(name)
    return tuple(found.values())


def materials(plan: Plan, nodes: tuple[Node, ...]) -> Iterator[Material]:
    """Yield the sources and adapters among some of a plan's models, in their order."""
    for node in nodes:
        if node.name in plan.lock.sources:
            yield _source(node, plan.lock.sources[node.name])
        elif isinstance(node.recipe, Adapter):
            yield _adapter(node.name, node.recipe, plan.lock.adapters[node.name])


def inputs(plan: Plan) -> Iterator[Input]:
    """Yield the files that the recipe names beside itself."""
    for task in plan.lock.tasks.values():
        yield Input("task", task.name, task.file)
        yield from (Input("task data", task.name, file) for file in task.data)
    for name, text in plan.lock.calibration.items():
        yield from (Input("calibration", name, file) for file in text.data)
    for name, file in plan.lock.leaderboards.items():
        yield Input("leaderboard", name, file)


def carried_inputs(plan: Plan) -> dict[str, tuple[LockedFile, Path]]:
    """Return those small files of ``inputs`` that a release carries: by name there, the pin and where the file lies.

    They are what places on the card are computed from again: the snapshots of leaderboards, and what tasks are. The
    texts that were measured on are not among them: they are large, and have licences of their own.
    """
    found = {}
    for path, task in plan.lock.tasks.items():
        found[input_file(task.file.name, str(task.file.sha256))] = (task.file, plan.beside_recipe(path))
    for file in plan.lock.leaderboards.values():
        found[input_file(file.name, str(file.sha256))] = (file, plan.beside_recipe(file.name))
    return dict(sorted(found.items()))


def _source(node: Node, locked: LockedSource) -> Material:
    said = getattr(node.recipe, "license", None)
    held = (
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
        license_by_recipe=said is not None,
        files=locked.files,
        weights=frozenset(held),
        in_part=any(isinstance(part.operation, FetchRanges) for part in node.parts),
    )


def _adapter(name: str, model: Adapter, locked: LockedAdapter) -> Material:
    if locked.revision:
        uri = f"{HUB}{model.place.partition('@')[0]}@{locked.revision}"
    else:
        uri = f"folder:{model.place.rstrip('/').rpartition('/')[2]}"
    return Material(
        name=f"adapter of {name}",
        node=name,
        uri=uri,
        revision=locked.revision,
        license=model.license,
        license_by_recipe=model.license is not None,
        files=locked.files,
        weights=frozenset(tensor.file for tensor in locked.tensors),
    )
