"""Models that also read images: they are merged, module by module, and released; nothing else is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import recipe as recipes
from herdbook.architectures.modules import reads_images
from herdbook.recipe import Adapter, Laser, Merge, Modular, Moe, Passthrough, Tokenizer
from herdbook.sources.select import PROCESSOR_FILES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.lock import Lock
    from herdbook.plan.model import Node
    from herdbook.recipe import Recipe, Section

# Types whose projector's matrices are in two of mergekit's modules.
WRITTEN_TWICE = frozenset({"qwen2_vl", "qwen2_5_vl"})


def unmakable(name: str, model: Section, nodes: Mapping[str, Node]) -> list[str]:
    """Return why a model cannot be made of models that also read images, one line each.

    Args:
        name: Its name.
        model: Its entry in the recipe.
        nodes: The models that it is made from, by name.
    """
    images = [parent for parent in recipes.parents(model) if reads_images(nodes[parent].config)]
    if not images:
        return []
    why = f"{images[0]!r} also reads images"
    match model:
        case Laser():
            return [f"models.{name}.laser: {why}, and LASER is for models of text alone"]
        case Adapter():
            return [f"models.{name}.on: {why}, and adapters are folded into models of text alone"]
        case Moe():
            return [f"models.{name}.moe: {why}, and mixtures are made of models of text alone"]
        case Merge(merge=Modular()):
            return []
        case Merge(merge=merge):
            where = f"models.{name}.merge"
            found = []
            if isinstance(merge, Passthrough):
                return [
                    f"{where}: {why}, whose layers cannot be stacked. Name its modules (`method: modules`)"
                ]
            if merge.ranges:
                found.append(
                    f"{where}.layers: {why}, whose modules have layers of their own. Leave it out to merge all"
                )
            if merge.vocabulary or (isinstance(merge.tokenizer, Tokenizer) and merge.tokenizer.source):
                key = "vocabulary" if merge.vocabulary else "tokenizer"
                found.append(
                    f"{where}.{key}: {why}, and rows of such models are not lined up. Name a model as `tokenizer`"
                )
            return found
        case _:
            return []


def unusable(recipe: Recipe, nodes: Mapping[str, Node]) -> Iterator[str]:
    """Yield what a recipe requests of models that also read images, and cannot have."""
    for index, name in enumerate(recipe.evaluate.models if recipe.evaluate else []):
        if reads_images(nodes[name].config):
            yield f"evaluate.models.{index}: {name!r} also reads images, and models of text alone are measured; leave it out"
    if recipe.quantize and reads_images(nodes[recipe.release.model].config):
        yield f"quantize: {recipe.release.model!r} also reads images, and files of models of text alone are made; leave it out"


def other_processors(node: Node, nodes: Mapping[str, Node], lock: Lock) -> Iterator[str]:
    """Yield a line for each merged model that gets other numbers of an image than the one whose processor the result has."""
    if not (isinstance(node.recipe, Merge) and reads_images(node.config)):
        return
    keeper = _processor(node.files_from, nodes, lock)
    for parent in dict.fromkeys(node.parents):
        other = _processor(parent, nodes, lock)
        if names := sorted(name for name in {*keeper, *other} if keeper.get(name) != other.get(name)):
            yield (
                f"models.{node.name}.merge: {names[0]} of {parent!r} is not that of {node.files_from!r}, which the result has, so the "
                "same image may be other numbers in them"
            )


def spread_over_projector(node: Node) -> Iterator[str]:
    """Yield a line if values over layers are applied to a projector that mergekit treats otherwise."""
    if not isinstance(node.recipe, Merge) or node.config.get("model_type") not in WRITTEN_TWICE:
        return
    if _has_values_over_layers(node.recipe.merge.model_dump(mode="json")):
        yield (
            f"models.{node.name}.merge: values over layers: mergekit writes the matrices of this model type's projector twice, with the "
            "first and the last value; here each has the value at its number. Give the projector one value to have mergekit's"
        )


def _has_values_over_layers(value: object) -> bool:
    """Return whether a section has a list of numbers at any depth."""
    if isinstance(value, dict):
        return any(_has_values_over_layers(item) for item in value.values())
    if not isinstance(value, list):
        return False
    numbers = [item for item in value if isinstance(item, int | float) and not isinstance(item, bool)]
    return len(numbers) > 1 or any(_has_values_over_layers(item) for item in value)


def _processor(name: str, nodes: Mapping[str, Node], lock: Lock) -> dict[str, str | None]:
    while nodes[name].files_from != name:
        name = nodes[name].files_from
    return {
        file.name: file.sha256 or file.git_blob
        for file in lock.sources[name].files
        if file.name in PROCESSOR_FILES
    }
