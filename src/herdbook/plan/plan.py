"""The plan: everything that follows from a recipe and its lock. A pure function; no torch, no network, under a second."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import limits
from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.architectures.layers import layers_of
from herdbook.errors import Gathered, RecipeError
from herdbook.layout import Layout
from herdbook.plan.adapter_tokens import check_adapter_tokens
from herdbook.plan.asked import check_settings, check_tasks
from herdbook.plan.data import EvaluationData, plan_data
from herdbook.plan.edition import Edition, editions_of, repo_of, title_of
from herdbook.plan.evaluate import Evaluation, plan_evaluations
from herdbook.plan.imatrix import Imatrix, plan_imatrix
from herdbook.plan.licensing import LicensedSource, check_licenses, licensed_sources
from herdbook.plan.loss import FileLoss, Reference, plan_losses, plan_reference
from herdbook.plan.node import plan_node
from herdbook.plan.precision import roundings
from herdbook.plan.pruning import needed_whole
from herdbook.plan.quantize import Conversion, Quantized, plan_conversion, plan_quantized, replaced_types
from herdbook.plan.routing import RoutingReport, plan_report
from herdbook.plan.siblings import siblings
from herdbook.plan.tokenizer_model import readers
from herdbook.plan.tokens import check_tokens
from herdbook.plan.tuned import warnings_of, with_found
from herdbook.plan.usable import check_usable
from herdbook.recipe import Compress, Merge, Moe, Passthrough

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.lock import Lock
    from herdbook.plan.model import Node, Part, Search
    from herdbook.quantization.scheme import SchemeName
    from herdbook.recipe import Recipe, Section

MATRICES_OF_AN_MLP = 3


@dataclass(frozen=True)
class Plan:
    """Everything that a build makes, and where.

    Args:
        recipe: The recipe.
        lock: Its lock.
        recipe_path: The recipe's file; paths inside it are relative to its folder.
        nodes: The models that the release or its evaluation needs, parents first.
        layout: The paths of all files.
        warnings: Warnings for people, one line each.
        edition: Which of these files the release has.
    """

    recipe: Recipe
    lock: Lock
    recipe_path: Path
    nodes: dict[str, Node]
    layout: Layout
    warnings: tuple[str, ...] = ()
    edition: Edition = Edition.WHOLE

    @cached_property
    def editions(self) -> tuple[Plan, ...]:
        """The plans of the releases that a build makes: one, or several if some of its files have repositories of their own."""
        editions = editions_of(self.recipe)
        if self.edition is not Edition.WHOLE or editions == (Edition.WHOLE,):
            return (self,)
        return tuple(map(self.of, editions))

    def of(self, edition: Edition) -> Plan:
        """Return the plan of a release that has the files of an edition."""
        written = recipes.without_compressed(self.recipe)
        layout = Layout(self.layout.root, title_of(written, edition))
        if edition.scheme is None:
            nodes = {name: node for name, node in self.nodes.items() if name in written.models}
            return replace(self, edition=edition, layout=layout, recipe=written, nodes=nodes)
        recipe = recipes.of_scheme(written, edition.scheme)
        known = self.encoded_in(edition.scheme).nodes
        needed = recipes.ancestry(recipe, recipe.release.model)
        nodes = {name: node for name, node in known.items() if name in needed}
        return replace(self, edition=edition, layout=layout, recipe=recipe, nodes=nodes)

    def encoded_in(self, *schemes: SchemeName) -> Plan:
        """Return the plan with the released model in formats for GPU servers or Macs. Raises RecipeError if one cannot hold it."""
        recipe, nodes, warnings = recipes.with_compressed(self.recipe), dict(self.nodes), [*self.warnings]
        for name in (recipes.compressed_name(self.recipe.release.model, scheme) for scheme in schemes):
            if name not in nodes:
                nodes[name], new_warnings = plan_node(name, recipe, self.lock, nodes, set())
                warnings += new_warnings
        return replace(self, recipe=recipe, nodes=nodes, warnings=tuple(warnings))

    @property
    def title(self) -> str:
        """The name of the release."""
        return self.layout.release

    @property
    def repo(self) -> str | None:
        """The repository of the release."""
        return repo_of(self.recipe, self.edition)

    @property
    def released(self) -> Node:
        """The model that is released."""
        return self.nodes[self.recipe.release.model]

    @cached_property
    def parts(self) -> dict[str, Part]:
        """All parts by key; parents first."""
        return {part.key: part for node in self.nodes.values() for part in node.parts}

    @cached_property
    def holders(self) -> dict[str, tuple[Node, ...]]:
        """By the key of each part, the models that have it, in the recipe's order; the first one's name is in its files'."""
        holders: dict[str, list[Node]] = {}
        for node in (self.nodes[name] for name in self.recipe.models if name in self.nodes):
            for part in node.parts:
                holders.setdefault(part.key, []).append(node)
        return {key: tuple(nodes) for key, nodes in holders.items()}

    @cached_property
    def by_key(self) -> dict[str, Node]:
        """All nodes by key; of several with one key, which share a folder, the recipe's first."""
        return {node.key: node for node in self.nodes.values() if not node.made_as}

    @cached_property
    def searches(self) -> dict[str, Search]:
        """All searches by key."""
        return {node.search.key: node.search for node in self.nodes.values() if node.search}

    def beside_recipe(self, relative: str) -> Path:
        """Return the path of a file that the recipe names."""
        return self.recipe_path.parent / relative

    @cached_property
    def licensed(self) -> tuple[LicensedSource, ...]:
        """The sources that the released model is made from, with what their licenses demand."""
        return licensed_sources(self.recipe, self.lock)

    # -- after the merge -------------------------------------------------------------------------------------------

    @cached_property
    def conversion(self) -> Conversion:
        """The header of the released model's GGUF files; it is made for quantized files."""
        return plan_conversion(self.recipe, self.released, self.gguf_metadata)

    @property
    def gguf_metadata(self) -> dict[str, str]:
        """The metadata that is written into every GGUF file."""
        release = self.recipe.release
        return {
            "general.name": release.name,
            "general.license": release.license,
            **({"general.license.name": release.license_name} if release.license_name else {}),
            **({"general.license.link": release.license_link} if release.license_link else {}),
        }

    @cached_property
    def quantized(self) -> tuple[Quantized, ...]:
        """The quantized files, in the recipe's order."""
        # Without quantized files, a release records no code of theirs, so the keys of these could not be recomputed from it.
        if not self.recipe.gguf or self.edition is Edition.WEIGHTS:
            return ()
        return plan_quantized(self.recipe, self.released, self.conversion, self.imatrix)

    @cached_property
    def siblings(self) -> dict[str, tuple[Quantized, ...]]:
        """By the id of each quantized file, those that it waits for, to copy encoded tensors from them."""
        return siblings(self.quantized)

    @cached_property
    def imatrix(self) -> Imatrix | None:
        """The importance matrix of the released model."""
        if self.edition is Edition.WEIGHTS:
            return None
        return plan_imatrix(self.recipe, self.lock, self.released)

    @cached_property
    def data(self) -> EvaluationData | None:
        """The data sets that the measurements read."""
        return plan_data(self.lock)

    @cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The measurements: models in the recipe's order, then quantized files."""
        return plan_evaluations(self.recipe, self.lock, self.nodes, self.quantized)

    @cached_property
    def report(self) -> RoutingReport | None:
        """The report on the released mixture's routers."""
        return plan_report(self.recipe, self.lock, self.released)

    @cached_property
    def reference(self) -> Reference | None:
        """What the losses of quantized files are measured against; None if none is measured."""
        loss = self.recipe.quantize.loss if self.recipe.quantize else None
        of_none = self.edition is Edition.MAIN and not (self.recipe.gguf or (loss and loss.others))
        if self.edition is Edition.WEIGHTS or of_none:
            return None
        own = self.released.recipe
        full = self.nodes[own.compress] if isinstance(own, Compress) else self.released
        return plan_reference(self.recipe, self.lock, full)

    @cached_property
    def losses(self) -> tuple[FileLoss, ...]:
        """The losses of quantized files: ours in the recipe's order, then those of other publishers."""
        encoded = {
            node.recipe.scheme: node for node in self.nodes.values() if isinstance(node.recipe, Compress)
        }
        return plan_losses(self.recipe, self.lock, self.reference, self.quantized, encoded)


def make(
    recipe: Recipe,
    lock: Lock,
    recipe_path: Path,
    results: Path = Path("results"),
    edition: Edition = Edition.WHOLE,
) -> Plan:
    """Make the plan of a recipe.

    Args:
        recipe: The recipe.
        lock: Its lock.
        recipe_path: The recipe's file.
        results: The folder for results.
        edition: The edition of the release that is planned; nothing is planned that it does not contain.

    Raises:
        RecipeError: If the recipe cannot be built.
    """
    found = Gathered()
    with found.one():
        check_tasks(recipe, lock)
    with found.one():
        check_licenses(recipe, lock)
    nodes: dict[str, Node] = {}
    warnings: list[str] = []
    needed = recipes.ancestry(
        recipe, recipe.release.model, *(recipe.evaluate.models if recipe.evaluate else ())
    )
    whole = needed_whole(recipe, needed)
    order = TopologicalSorter({name: recipes.parents(recipe.models[name]) for name in needed}).static_order()
    planned = 0
    for name in order:
        if any(parent not in nodes for parent in recipes.parents(recipe.models[name])):
            continue  # one that could not be planned
        planned += _tensors(recipe.models[name], lock, name, nodes)
        if planned > limits.PLANNED_TENSORS:
            raise RecipeError(
                f"models.{name}: with it, about {planned:,} tensors and their origins are to be planned, over the limit of "
                f"{limits.PLANNED_TENSORS:,}"
            )
        with found.one():
            nodes[name], new_warnings = plan_node(name, with_found(name, recipe, lock), lock, nodes, whole)
            warnings += [*new_warnings, *roundings(nodes[name], nodes)]
    found.end()
    with found.one():
        warnings += check_tokens(lock, nodes, whole, {node.name for node in readers(recipe, nodes)})
    with found.one():
        warnings += check_adapter_tokens(lock, nodes)
    nodes = _shared(recipe, nodes)
    with found.one():
        warnings += check_usable(recipe, nodes)
        warnings += replaced_types(recipe, nodes[recipe.release.model])
    with found.one():
        check_settings(recipe, lock, nodes)
    found.end()
    warnings += warnings_of(recipe, lock)
    if unused := sorted(set(recipe.models) - set(nodes)):
        warnings.append(f"models: {', '.join(unused)}: not needed, so not built")
    plan = Plan(recipe, lock, recipe_path, nodes, Layout(results, recipe.release.name), tuple(warnings))
    return plan.encoded_in(*recipe.schemes) if edition is Edition.WHOLE else plan.of(edition)


def _tensors(model: Section, lock: Lock, name: str, nodes: Mapping[str, Node]) -> int:
    """Return about how many tensors and origins planning a model makes, without making them.

    Raises:
        RecipeError: If a model has more layers than any.
    """
    parents = [nodes[parent] for parent in recipes.parents(model)]
    if not parents:
        locked = lock.sources[name]
        if (layers := layers_of(locked.config) or 0) > limits.LAYERS:
            raise RecipeError(
                f"models.{name}: num_hidden_layers is {layers}, over the limit of {limits.LAYERS:,}"
            )
        return len(locked.tensors)
    if isinstance(model, Moe):
        experts = MATRICES_OF_AN_MLP * (layers_of(parents[0].config) or 0) * len(model.moe.all_experts)
        return len(parents[0].form) + experts
    if isinstance(model, Merge) and isinstance(model.merge, Passthrough):
        pieces = [(nodes[piece.model], piece.depth) for piece in model.merge.slices]
        shares = [(len(node.form), depth / max(1, layers_of(node.config) or 0)) for node, depth in pieces]
        return int(
            sum(size * min(1, share) for size, share in shares)
        )  # what is beyond the last layer is refused
    inputs = model.merge.inputs if isinstance(model, Merge) else ()
    return sum(len(nodes[parent].form) for parent in inputs) or len(parents[0].form)


def _shared(recipe: Recipe, nodes: dict[str, Node]) -> dict[str, Node]:
    """Return the models, with one object for each part, search or model that several of them share.

    A key identifies a result, a name is the recipe's. A result that several models share is made once, under the name of
    the first of them in the recipe, and all their names refer to it.
    """
    parts: dict[str, Part] = {}
    searches: dict[str, Search] = {}
    first: dict[str, str] = {}
    shared = {}
    for name in (name for name in recipe.models if name in nodes):
        node = nodes[name]
        made_as = first.setdefault(node.key, name)
        shared[name] = replace(
            node,
            parts=tuple(parts.setdefault(part.key, part) for part in node.parts),
            search=node.search and searches.setdefault(node.search.key, node.search),
            made_as="" if made_as == name else made_as,
        )
    return {name: shared[name] for name in nodes}


def load(recipe_path: Path, results: Path = Path("results")) -> Plan:
    """Read a recipe and its lock, and make the plan.

    Raises:
        RecipeError: If the recipe is wrong or cannot be built.
        LockError: If the lock does not exist, or does not fit the recipe.
    """
    recipe = recipes.load(recipe_path)
    lock_path = locks.path_for(recipe_path)
    lock = locks.load(lock_path)
    locks.check_fits(lock, recipe, lock_path)
    try:
        return make(recipe, lock, recipe_path, results)
    except RecipeError as error:
        raise recipes.located(error.problems, recipe_path) from error
