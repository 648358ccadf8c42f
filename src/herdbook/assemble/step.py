"""The assemble step: a model's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.checkpoint import INDEX_NAME
from herdbook.errors import StepError
from herdbook.files import link, write_json
from herdbook.recipe import Merge, Moe

if TYPE_CHECKING:
    from herdbook.plan import Node, Plan


def folder_files(node: Node) -> list[str]:
    """Return the names of all files in a model's folder: weights, index, and the rest."""
    index = [INDEX_NAME] if len(node.parts) > 1 else []
    return [*node.shard_names, *index, *node.files]


def assemble(plan: Plan, node: Node) -> None:
    """Make a model's folder.

    Weights are links to the shards, the other files are the parent's or the source's own, byte for byte; only the
    configuration of a merge or a Mixture of Experts is made.

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
        write_json(folder / INDEX_NAME, index_of(node))
    if node.files_from == node.name:
        from herdbook.fetch.step import make_files

        make_files(plan, node, folder)
        return
    source = plan.layout.folder(plan.nodes[node.files_from])
    made = {"config.json"} if isinstance(node.recipe, Merge | Moe) else set()
    for name in node.files:
        if name not in made:
            link(source / name, folder / name)
    if made:
        write_json(folder / "config.json", node.config)


def index_of(node: Node) -> dict[str, object]:
    """Return the content of ``model.safetensors.index.json``: which shard holds each tensor."""
    files = dict(zip((part.key for part in node.parts), node.shard_names, strict=True))
    return {
        "metadata": {"total_size": node.size_bytes},
        "weight_map": {name: files[part.key] for name, (part, _) in sorted(node.tensors.items())},
    }
