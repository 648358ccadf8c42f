"""The assemble step: a model's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.files import link, write_json
from herdbook.layout import CONFIG, WEIGHTS_INDEX
from herdbook.plan.folder import files_origin, made_files, taken_files

if TYPE_CHECKING:
    from herdbook.plan import Node, Plan


def write_config_files(plan: Plan, node: Node) -> None:
    """Put configuration and tokenizer of a source into its folder, byte for byte.

    Raises:
        SourceError: If a file cannot be read or downloaded.
        DigestMismatchError: If a file is not the one that was locked.
    """
    from herdbook.steps.fetch.step import make_files

    make_files(plan, node, plan.layout.folder(node))


def assemble(plan: Plan, node: Node) -> None:
    """Make a model's folder.

    Weights are links to the shards; the other files come from the source that the model descends from, byte for byte; only
    the configuration of a merge or a Mixture of Experts is written, and the files of a tokenizer that it changes. Files that a
    source's folder contains already are kept.

    Raises:
        StepError: If a shard is missing.
        DigestMismatchError: If a file of a tokenizer does not become what was locked.
        SourceError: If a source's file cannot be read or downloaded.
    """
    folder = plan.layout.folder(node)
    for name, part in zip(node.shard_names, node.parts, strict=True):
        if not plan.layout.shard(part).exists():
            raise StepError(
                f"{plan.layout.shard(part)} is missing; build it first, for example with snakemake"
            )
        link(plan.layout.shard(part), folder / name)
    if len(node.parts) > 1:
        write_json(folder / WEIGHTS_INDEX, index_of(node))
    if node.files_from == node.name:
        if not all((folder / name).exists() for name in node.files):
            write_config_files(plan, node)
        return
    for path in taken_files(plan, node):
        link(path, folder / path.name)
    made = made_files(plan, node)
    if CONFIG in made:
        write_json(folder / CONFIG, node.config)
    if set(made) - {CONFIG}:
        from herdbook.steps.assemble.tokenizer import write_tokenizer

        write_tokenizer(plan, node, plan.layout.folder(files_origin(plan, node)), folder)


def index_of(node: Node) -> dict[str, object]:
    """Return the content of ``model.safetensors.index.json``: which shard holds each tensor."""
    files = dict(zip((part.key for part in node.parts), node.shard_names, strict=True))
    return {
        "metadata": {"total_size": node.size_bytes},
        "weight_map": {name: files[part.key] for name, (part, _) in sorted(node.tensors.items())},
    }
