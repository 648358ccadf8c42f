"""The assemble step: a model's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.files import link, write_json
from herdbook.layout import WEIGHTS_INDEX
from herdbook.recipe import Merge, Moe

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.plan import Node, Plan


def folder_files(node: Node) -> list[str]:
    """Return the names of all files in a model's folder: weights, index, and the rest."""
    return [*weights_files(node), *node.files]


def weights_files(node: Node) -> list[str]:
    """Return the names of what is about weights: they themselves, and the index."""
    return [*node.shard_names, *([WEIGHTS_INDEX] if len(node.parts) > 1 else [])]


def files_origin(plan: Plan, node: Node) -> Node:
    """Return the source whose configuration and tokenizer a model has, or which is it itself."""
    while node.files_from != node.name:
        node = plan.nodes[node.files_from]
    return node


def taken_files(plan: Plan, node: Node) -> list[Path]:
    """Return those files of its origin's folder that a model has in common with it. Follows from the plan alone."""
    folder, made = plan.layout.folder(files_origin(plan, node)), _made_files(plan, node)
    return [folder / name for name in node.files if name not in made]


def furnish(plan: Plan, node: Node) -> None:
    """Put configuration and tokenizer of a source into its folder, byte for byte.

    Raises:
        SourceError: If a file cannot be had.
        DigestMismatchError: If it is not what was locked.
    """
    from herdbook.steps.fetch.step import make_files

    make_files(plan, node, plan.layout.folder(node))


def assemble(plan: Plan, node: Node) -> None:
    """Make a model's folder.

    Weights are links to the shards, the other files are the source's own that it descends from, byte for byte; only the
    configuration of a merge or a Mixture of Experts is made. What a source's folder has already stays.

    Raises:
        StepError: If a shard is missing.
        SourceError: If a source's file cannot be had.
    """
    folder = plan.layout.folder(node)
    for name, part in zip(node.shard_names, node.parts, strict=True):
        if not plan.layout.shard(part).exists():
            raise StepError(f"{plan.layout.shard(part)} is missing; build it first (snakemake does)")
        link(plan.layout.shard(part), folder / name)
    if len(node.parts) > 1:
        write_json(folder / WEIGHTS_INDEX, index_of(node))
    if node.files_from == node.name:
        if not all((folder / name).exists() for name in node.files):
            furnish(plan, node)
        return
    for path in taken_files(plan, node):
        link(path, folder / path.name)
    for name in _made_files(plan, node):
        write_json(folder / name, node.config)


def _made_files(plan: Plan, node: Node) -> list[str]:
    """Return the names of files that are no source's: the configuration, from where models were put together on."""
    while node.files_from != node.name:
        if isinstance(node.recipe, Merge | Moe):
            return ["config.json"]
        node = plan.nodes[node.files_from]
    return []


def index_of(node: Node) -> dict[str, object]:
    """Return the content of ``model.safetensors.index.json``: which shard holds each tensor."""
    files = dict(zip((part.key for part in node.parts), node.shard_names, strict=True))
    return {
        "metadata": {"total_size": node.size_bytes},
        "weight_map": {name: files[part.key] for name, (part, _) in sorted(node.tensors.items())},
    }
