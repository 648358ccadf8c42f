"""Planning one model: its parts, its configuration and its other files, for every way to make it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from herdbook import recipe as recipes
from herdbook.architectures.form import is_known, misfits
from herdbook.errors import RecipeError
from herdbook.key import digest
from herdbook.plan.adapter import plan_adapter
from herdbook.plan.alignment import alignment_of
from herdbook.plan.code import Code
from herdbook.plan.compress import plan_compressed
from herdbook.plan.images import other_processors, spread_over_projector, unmakable
from herdbook.plan.laser import plan_laser
from herdbook.plan.merge import plan_merge
from herdbook.plan.model import Node, Part, Search
from herdbook.plan.moe import plan_moe
from herdbook.plan.source import GGUF_CODE, plan_source
from herdbook.recipe import Adapter, Compress, Laser, Merge, Moe, Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.lock import Lock
    from herdbook.plan.operation import Rule
    from herdbook.recipe import Recipe


# The index and, for merges and mixtures, the configuration are written, not linked. A source's other files are as fetched.
ASSEMBLE_CODE = Code(
    "assemble",
    ("herdbook.steps.assemble.step",),
    without=("herdbook.steps.assemble.tokenizer", "herdbook.steps.fetch.step"),
)
# A tokenizer that gets more tokens or another chat template is written, too.
TOKENIZER_CODE = Code("tokenizer", ("herdbook.steps.assemble.tokenizer",))


def plan_node(
    name: str, recipe: Recipe, lock: Lock, nodes: Mapping[str, Node], whole: set[str]
) -> tuple[Node, list[str]]:
    """Return a model of the recipe, and warnings; its tensors are those that its configuration implies.

    For a model type that is not in our table, only transformers can determine these: `herdbook lock` uses it.

    Args:
        name: Its name.
        recipe: The recipe.
        lock: Its lock.
        nodes: The models that it is made from, by name.
        whole: Names of the models that are needed whole; see ``needed_whole``.

    Raises:
        RecipeError: If the model cannot be built as the recipe defines it.
    """
    if refused := unmakable(name, recipe.models[name], nodes):
        raise RecipeError(refused)
    node, warnings = _plan_node(name, recipe, lock, nodes, whole)
    warnings += [*other_processors(node, nodes, lock), *spread_over_projector(node)]
    encoded = isinstance(node.recipe, Compress)  # as its parent's tensors are, which were checked
    problems = misfits(node.config, node.form) if is_known(node.config) and not encoded else []
    if problems:
        raise RecipeError([f"models.{name}: {problem}" for problem in problems])
    return node, warnings


def _plan_node(
    name: str, recipe: Recipe, lock: Lock, nodes: Mapping[str, Node], whole: set[str]
) -> tuple[Node, list[str]]:
    model: Section = recipe.models[name]
    warnings: list[str] = []
    size = recipe.shard_bytes
    match model:
        case Laser():
            parent = nodes[model.laser]
            parts, search, warnings = plan_laser(name, model, recipe, lock, parent, size)
            return _kept_form(name, "laser", model, parent, parts, search), warnings
        case Adapter():
            parent = nodes[model.on]
            parts = plan_adapter(name, model, lock.adapters[name], parent, size)
            return _kept_form(name, "adapter", model, parent, parts), warnings
        case Compress():
            parts, config, warnings = plan_compressed(name, model, nodes[model.compress], size)
            return _new_form(name, "compress", model, parts, config, lock, nodes), warnings
        case Merge():
            alignment = alignment_of(name, model, lock, nodes)
            parts, config, warnings = plan_merge(name, model.merge, nodes, size, alignment)
            return _new_form(name, "merge", model, parts, config, lock, nodes), warnings
        case Moe():
            alignment = alignment_of(name, model, lock, nodes)
            parts, config, warnings = plan_moe(name, model.moe, nodes, size, alignment)
            return _new_form(name, "moe", model, parts, config, lock, nodes), warnings
        case _:
            locked = lock.sources[name]
            parts = plan_source(name, model, locked, size, whole=name in whole)
            by_name = {file.name: file for file in locked.files}
            members = {
                member: (by_name[member].sha256 or by_name[member].git_blob) if member in by_name else None
                for member in locked.members
            }
            code = GGUF_CODE.describe().json if locked.weights == "gguf" else {}
            container = locked.files[0].sha256 if locked.weights == "gguf" else None
            key = _node_key(parts, {"members": members, "container": container, "code": code})
            form = {tensor.name: tensor.shape for tensor in locked.tensors}
            node = Node(name, "fetch", key, model, (), parts, locked.config, locked.members, name, form=form)
            return replace(node, chat_template=locked.chat_template), warnings


def _new_form(
    name: str,
    operation: Rule,
    model: Section,
    parts: tuple[Part, ...],
    config: dict[str, Any],
    lock: Lock,
    nodes: Mapping[str, Node],
) -> Node:
    files_from = nodes[str(recipes.keeper_of(model))]
    own = lock.vocabularies.get(name)
    made = {"made": own.files, "code": TOKENIZER_CODE.describe().json} if own and own.files else {}
    key = _node_key(parts, {"config": config, "from": files_from.key, **made})
    form = {tensor.name: tensor.shape for part in parts for tensor in part.tensors}
    parents, files = recipes.parents(model), files_from.files
    node = Node(name, operation, key, model, parents, parts, config, files, files_from.name, form=form)
    has_template = files_from.chat_template or (own is not None and own.chat_template is not None)
    return replace(node, chat_template=has_template)


def _kept_form(
    name: str,
    operation: Rule,
    model: Section,
    parent: Node,
    parts: tuple[Part, ...],
    search: Search | None = None,
) -> Node:
    key = _node_key(parts, {"from": parent.key})
    return Node(
        name,
        operation,
        key,
        model,
        (parent.name,),
        parts,
        parent.config,
        parent.files,
        parent.name,
        search,
        parent.form,
        parent.chat_template,
    )


def _node_key(parts: tuple[Part, ...], files: dict[str, Any]) -> str:
    code = ASSEMBLE_CODE.describe().json
    return digest({"parts": [part.key for part in parts], "files": files, "code": code})
