"""Runs of models' layers, which a merge takes in the place of whole models."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import layer_of
from herdbook.architectures.layers import layers_of
from herdbook.architectures.meaning import PER_LAYER, numbered
from herdbook.errors import RecipeError
from herdbook.plan.model import Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.plan.model import Part, Tensor
    from herdbook.recipe import Dense


@dataclass(frozen=True)
class Run(Node):
    """Some layers of a model, numbered from 0, and all that is outside of its layers.

    Args:
        taken: Its tensors by their new names, each with the part that contains it and with its name in that part.
    """

    taken: Mapping[str, tuple[Part, Tensor]] = field(default_factory=dict, hash=False)

    @cached_property
    def tensors(self) -> Mapping[str, tuple[Part, Tensor]]:
        """Its tensors by their new names; each tensor has the name that it has in its part."""
        return self.taken


def is_partial(merge: Dense, nodes: Mapping[str, Node]) -> bool:
    """Return whether a merge takes only some layers of a model."""
    return any(layers != range(layers_of(nodes[name].config) or 0) for name, layers in merge.ranges.items())


def taken(where: str, merge: Dense, nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Return the models of a merge, those of which it takes only some layers as runs.

    Args:
        where: The key of the merge.
        merge: The merge.
        nodes: All models, by name.

    Raises:
        RecipeError: If a model does not have the layers, or if they cannot be distinguished or renumbered.
    """
    models = {name: nodes[name] for name in merge.inputs}
    if not is_partial(merge, nodes):
        return models
    problems = []
    for name, node in models.items():
        count = layers_of(node.config) or 0
        layers = merge.ranges[name]
        if layers[-1] >= count:
            problems.append(
                f"{where}.layers: layer {layers[-1]} does not exist in {name!r}; the last is {count - 1}"
            )
        elif not any(layer_of(tensor) is not None for tensor in node.form):
            problems.append(
                f"{where}.layers: {name!r} has {count} layers, and only layers that are named model.layers.0, model.layers.1, ... "
                f"can be taken apart. Leave out `layers` to merge all"
            )
        elif reason := numbered(node.config):
            problems.append(
                f"{where}.layers: {name!r} has {count} layers; {reason}, and its config.json does not list what each is (layer_types)"
            )
        else:
            models[name] = _run(node, layers)
    if problems:
        raise RecipeError(problems)
    return models


def _run(node: Node, layers: range) -> Run:
    def renamed(name: str) -> str | None:
        number = layer_of(name)
        if number is None:
            return name
        if number not in layers:
            return None
        return name.replace(f".{number}.", f".{number - layers[0]}.", 1)

    count = node.config["num_hidden_layers"]
    config: dict[str, Any] = {**node.config, "num_hidden_layers": len(layers)}
    for key in PER_LAYER:
        if isinstance(given := config.get(key), list) and len(given) == count:
            config[key] = given[layers[0] : layers[-1] + 1]
    known = {entry.name: getattr(node, entry.name) for entry in fields(node)}
    tensors = {new: held for name, held in node.tensors.items() if (new := renamed(name)) is not None}
    form = {new: shape for name, shape in node.form.items() if (new := renamed(name)) is not None}
    return Run(**known | {"config": config, "form": form}, taken=tensors)
