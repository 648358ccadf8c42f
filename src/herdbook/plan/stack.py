"""Planning stacks: layers of several models, one upon the other (frankenmerges)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import layer_of
from herdbook.architectures.form import HEAD
from herdbook.architectures.layers import FULL, NUMBER
from herdbook.architectures.meaning import PER_LAYER, is_tied, numbered
from herdbook.architectures.modules import reads_images
from herdbook.errors import RecipeError
from herdbook.plan.merge_values import value_at
from herdbook.plan.model import Origin, Tensor
from herdbook.weights.dtypes import DTYPE_CODES, FLOATING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.plan.model import Node
    from herdbook.plan.operation import Values
    from herdbook.recipe import Passthrough

LAYER_NUMBER = re.compile(r"^model\.layers\.\d+\.")


def stacked(
    where: str, merge: Passthrough, nodes: Mapping[str, Node]
) -> tuple[list[Tensor], dict[str, Values], dict[str, Any]]:
    """Return the tensors of stacked layers, the parameters of those that are computed, and the configuration."""
    tensors: list[Tensor] = []
    values: dict[str, Values] = {}

    def take(node: Node, old: str, new: str, scale: Any = None, depth: float = 0.0) -> None:
        part, planned = node.tensors[old]
        written, computed = (merge.written_dtype, merge.dtype)
        dtype = DTYPE_CODES[written] if written else planned.dtype
        factor = None if scale is None else value_at(scale, new, depth)
        # mergekit rounds to the dtype that it computes in, whatever is written
        rounded = merge.is_as_mergekit and computed is not None and DTYPE_CODES[computed] != planned.dtype
        plain = factor in {None, 1.0} and dtype == planned.dtype and not rounded
        tensors.append(
            Tensor(new, dtype, planned.shape, "copy" if plain else "merge", (Origin(part.key, old),))
        )
        if not plain:
            values[new] = {"scale": 1.0 if factor is None else factor}

    first, last = nodes[merge.slices[0].model], nodes[merge.slices[-1].model]
    # in mergekit, what is before and after the layers has the scale of the first and the last slice
    before, after = (merge.slices[index].scale if merge.is_as_mergekit else None for index in (0, -1))
    for name in first.tensors:
        if "embed_tokens" in name:
            take(first, name, name, before)
    kinds: list[Any] = []
    number = 0
    held = {name: _by_layer(nodes[name]) for name in dict.fromkeys(piece.model for piece in merge.slices)}
    for index, piece in enumerate(merge.slices):
        node = nodes[piece.model]
        count = node.config["num_hidden_layers"]
        for place, layer in enumerate(_layers(piece.layers)):
            if layer >= count:
                raise RecipeError(
                    f"{where}.slices.{index}.layers: layer {layer} does not exist in {piece.model!r}; the last is {count - 1}"
                )
            depth = place / (piece.depth - 1) if piece.depth > 1 else 1.0
            for name in held[piece.model].get(layer, ()):
                take(node, name, LAYER_NUMBER.sub(f"model.layers.{number}.", name), piece.scale, depth)
            kinds.append({key: node.config[key][layer] for key in PER_LAYER if _is_list(node, key)})
            number += 1
    for name in last.tensors:
        outside = layer_of(name) is None and "embed_tokens" not in name
        if outside and not is_unread(last, name):
            take(last, name, name, after)
    config = {**first.config, "num_hidden_layers": number}
    config |= {key: [kind[key] for kind in kinds] for key in PER_LAYER if all(key in kind for kind in kinds)}
    for key in PER_LAYER:
        given = [kind[key] for kind in kinds if key in kind]
        models = [nodes[piece.model] for piece in merge.slices]
        if not given or len(given) == number:
            continue
        if set(given) == {FULL} and not any(numbered({**node.config, key: None}) for node in models):
            config.pop(key, None)  # not every version of transformers lists what it can only be
            continue
        lacking = next(node.name for node in models if not _is_list(node, key))
        raise RecipeError(
            f"{where}: config.json of {lacking!r} has no list {key} with an entry for each layer, unlike another model's. Load it "
            "with transformers' AutoConfig, and save it"
        )
    return tensors, values, config


def _by_layer(node: Node) -> dict[int | None, list[str]]:
    """Return the names of a model's tensors by layer, in the model's order, without those that are not read."""
    held: dict[int | None, list[str]] = {}
    for name in node.tensors:
        if layer_of(name) is None or not is_unread(node, name):
            held.setdefault(layer_of(name), []).append(name)
    return held


def unstackable(where: str, inputs: list[Node]) -> list[str]:
    """Return why layers of models cannot be stacked, one line each."""
    problems = []
    for node in inputs:
        elsewhere = next((name for name in node.form if _is_elsewhere(name)), None)
        if elsewhere:
            problems.append(
                f"{where}: {node.name!r} has tensors such as {elsewhere}: only layers that are named model.layers.0, "
                "model.layers.1, ... can be stacked"
            )
        elif reason := numbered(node.config):
            problems.append(
                f"{where}: {node.name!r}: {reason}, and its config.json does not list what each is (layer_types). Load it with "
                "transformers' AutoConfig, and save it, if the type has such a list"
            )
    return problems


def _is_elsewhere(tensor: str) -> bool:
    """Return whether a tensor belongs to a layer, and the layers of its model have other names than usual."""
    return layer_of(tensor) is None and NUMBER.search(tensor) is not None


def _is_list(node: Node, key: str) -> bool:
    value = node.config.get(key)
    return isinstance(value, list) and len(value) == node.config["num_hidden_layers"]


def is_unread(node: Node, tensor: str) -> bool:
    """Return whether transformers does not read a tensor: a head beside tied embeddings, or what old versions stored.

    Those stored rotary frequencies, masks and positions, which follow from the configuration.
    """
    if tensor.endswith(("inv_freq", ".masked_bias")):
        return True
    held = node.tensors.get(tensor)
    is_head = tensor == HEAD or (reads_images(node.config) and tensor.endswith(f".{HEAD}"))
    return (is_head and is_tied(node.config)) or (held is not None and held[1].dtype not in FLOATING)


def _layers(text: str) -> range:
    first, last = (int(part) for part in text.split("-"))
    return range(first, last + 1)
