"""A model's folder in the form that transformers loads: which files it contains, and where each comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.files import dump_json
from herdbook.layout import CONFIG, GENERATION_CONFIG, WEIGHTS_INDEX
from herdbook.plan.alignment import own_vocabulary
from herdbook.recipe import Compress, Merge, Moe

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.lock import LockedSource
    from herdbook.plan.model import Node
    from herdbook.plan.plan import Plan


def folder_files(node: Node) -> list[str]:
    """Return the names of all files in a model's folder: weights, index, and the rest."""
    return [*weights_files(node), *node.files]


def folder_paths(plan: Plan, node: Node) -> tuple[Path, ...]:
    """Return the paths of all files in a model's folder."""
    folder = plan.layout.folder(node)
    return tuple(folder / name for name in folder_files(node))


def weights_files(node: Node) -> list[str]:
    """Return the names of the weights files, and of their index if there are several."""
    return [*node.shard_names, *([WEIGHTS_INDEX] if len(node.parts) > 1 else [])]


def files_origin(plan: Plan, node: Node) -> Node:
    """Return the source from which a model's configuration and tokenizer come; of a source, itself."""
    while node.files_from != node.name:
        node = plan.nodes[node.files_from]
    return node


def taken_files(plan: Plan, node: Node) -> list[Path]:
    """Return the paths of the files that a model takes over unchanged from its ``files_origin``."""
    folder, made = plan.layout.folder(files_origin(plan, node)), made_files(plan, node)
    return [folder / name for name in node.files if name not in made]


def read_files(plan: Plan, node: Node) -> list[Path]:
    """Return the paths of the files of its ``files_origin`` that a model's files are taken from, or made from."""
    folder, made = plan.layout.folder(files_origin(plan, node)), made_files(plan, node)
    return [folder / name for name in node.files if name not in made or name != CONFIG]


def converted_settings(locked: LockedSource) -> dict[str, bytes]:
    """Return the configurations that are made from a GGUF, by the names of their files, as the lock has them; none of another source.

    So they are those that were checked, whichever version of transformers reads the GGUF's header once more.
    """
    if locked.weights != "gguf":
        return {}
    settings = {CONFIG: locked.config, GENERATION_CONFIG: locked.generation}
    return {name: dump_json(content).encode() for name, content in settings.items() if content}


def made_files(plan: Plan, node: Node) -> list[str]:
    """Return the names of files that no source has.

    These are the configuration, from the first merge, mixture or encoded model on, and files of a tokenizer that has more tokens or another
    chat template than that of ``files_origin``.
    """
    made = []
    own = own_vocabulary(plan.lock, plan.nodes, node.name)
    while node.files_from != node.name:
        if isinstance(node.recipe, Compress | Merge | Moe):
            made = [CONFIG]
        node = plan.nodes[node.files_from]
    return [*made, *(own.files if own else ())]
