"""Planning dense merges: each tensor from those of its name in all models, or layers of several models stacked."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import ONE_FORM, layer_of
from herdbook.architectures.form import HEAD, bias_setting
from herdbook.architectures.meaning import FULL, PER_LAYER, differences, is_tied, numbered, unsaid
from herdbook.errors import RecipeError
from herdbook.plan.aligned_merge import aligned, unaligned
from herdbook.plan.aligned_merge import warnings as warnings_of
from herdbook.plan.alignment import form_of_rows
from herdbook.plan.code import COPY, Code
from herdbook.plan.model import Origin, Part, Tensor
from herdbook.plan.operation import MergeTensors, RunMergekit, TakeOver
from herdbook.plan.part import plan_part
from herdbook.plan.sharding import cut
from herdbook.recipe import (
    Dare,
    Filtered,
    Linear,
    Mergekit,
    Passthrough,
    Slerp,
    TaskArithmetic,
    Ties,
)
from herdbook.recipe.mergekit_methods import without_value
from herdbook.recipe.tokenizer import keeper
from herdbook.weights.dtypes import DTYPE_CODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.plan.alignment import Alignment
    from herdbook.plan.model import Node
    from herdbook.recipe import Dense

    # The parameters of one tensor, by name.
    Values = dict[str, Any]

MERGE_CODE = Code("merge", ("herdbook.steps.merge.step",), without=("herdbook.steps.merge.run_mergekit",))
# mergekit runs in a process of its own, with our torch and transformers; `run_mergekit` pins its version
MERGEKIT_CODE = Code(
    "mergekit",
    ("herdbook.steps.merge.step",),
    without=("herdbook.steps.aligned", "herdbook.steps.merge.methods", "herdbook.weights.tensors"),
    packages=("transformers",),
)
LAYER_NUMBER = re.compile(r"^model\.layers\.\d+\.")
NUMBER = re.compile(r"\.\d+\.")
# Methods that divide by the sum of all weights if they normalize; TIES divides element by element, by those that agree.
AVERAGED = ("linear", "task_arithmetic", "dare_linear")
SMALLEST_SUM = 1e-8
LARGEST = 1e30  # a weight; sums of larger ones overflow


def plan_merge(
    name: str, merge: Dense, nodes: Mapping[str, Node], max_bytes: int, alignment: Alignment | None = None
) -> tuple[tuple[Part, ...], dict[str, Any], list[str]]:
    """Return the parts of a dense merge, its configuration, and warnings.

    Args:
        name: The name of the merge.
        merge: The merge.
        nodes: The models of the recipe so far.
        max_bytes: See ``cut``.
        alignment: How the rows of the embeddings are lined up; None if equal rows are equal tokens in all models.

    Raises:
        RecipeError: If the models do not fit each other; all misfits are named.
    """
    where = f"models.{name}.merge"
    inputs = [nodes[model] for model in dict.fromkeys(merge.inputs)]
    problems = _misfits(where, inputs, stacked=isinstance(merge, Passthrough), by_token=alignment is not None)
    if alignment:
        problems += unaligned(where, merge, nodes, alignment)
    if isinstance(merge, Passthrough) and not problems:
        problems = _unstackable(where, inputs)
    problems = problems or _without_effect(where, merge, nodes)
    if problems:
        raise RecipeError(problems)
    if isinstance(merge, Passthrough):
        tensors, values, config = _stacked(where, merge, nodes)
    else:
        tensors, values = _joined(where, merge, [nodes[model] for model in merge.inputs])
        config = dict(inputs[0].config)
    if alignment:
        tensors, values = aligned(merge, tensors, values, alignment)
        config = alignment.configured(config, nodes[keeper(merge.tokenizer, merge.inputs[0])])
    if merge.dtype:
        config |= {"dtype": merge.dtype, "torch_dtype": merge.dtype}
    warnings = [
        f"{where}: {one.name!r} has {setting}, and {two.name!r} does not say; if transformers' default is another number, equal "
        "numbers mean different things in them"
        for node in inputs[1:]
        for one, two in ((inputs[0], node), (node, inputs[0]))
        for setting in unsaid(one.config, two.config)
    ]
    if alignment:
        warnings += warnings_of(where, merge, alignment)
    if isinstance(merge, Mergekit):
        return (_by_mergekit(name, merge, nodes, tensors),), config, warnings
    runs = enumerate(cut(tensors, max_bytes), start=1)
    return tuple(_part(name, str(index), merge, run, values) for index, run in runs), config, warnings


def _joined(where: str, merge: Dense, inputs: list[Node]) -> tuple[list[Tensor], dict[str, Values]]:
    """Return the tensors of a merge of models of one form, and the parameters that each is computed with."""
    tensors, values = [], {}
    first = inputs[0]
    count = first.config["num_hidden_layers"]
    for name, (_, planned) in first.tensors.items():
        if name.endswith("inv_freq") or _is_unread(first, name):
            continue
        dtype = DTYPE_CODES[merge.dtype] if merge.dtype else planned.dtype
        origins = tuple(Origin(node.tensors[name][0].key, name) for node in inputs)
        tensors.append(Tensor(name, dtype, planned.shape, "merge", origins))
        values[name] = _values(where, merge, name, _depth(name, count))
    return tensors, values


def _values(where: str, merge: Dense, tensor: str, depth: float) -> Values:
    """Return the parameters that a method computes one tensor with: weights, densities and scale at its depth.

    Raises:
        RecipeError: If a parameter without a default has no value for the tensor, or if the weights of a mean sum to zero.
    """

    def at(key: str, value: Any) -> float | None:
        try:
            return value_at(value, tensor, depth)
        except ValueError as error:
            raise RecipeError(f"{where}.{key}: {error}") from error

    def required(key: str, value: Any) -> float:
        number = at(key, value)
        if number is None:
            raise RecipeError(
                f"{where}.{key}: none of its filters matches {tensor}. Add an entry without `filter`, whose value applies to "
                "all other tensors."
            )
        return number

    def optional(key: str, value: Any) -> float:
        number = at(key, value)
        return 1.0 if number is None else number

    match merge:
        case Slerp():
            return {"t": required("t", merge.t)}
        case Linear() | TaskArithmetic() | Ties() | Dare():
            weights = [
                required(f"models.{index}.weight", model.weight) for index, model in enumerate(merge.models)
            ]
            values: Values = {"weights": weights}
            if max(map(abs, weights)) > LARGEST:
                raise RecipeError(f"{where}.models: a weight of {tensor} is larger than {LARGEST:g}")
            if merge.method in AVERAGED and merge.normalize and abs(math.fsum(weights)) < SMALLEST_SUM:
                raise RecipeError(
                    f"{where}.models: the weights of {tensor} sum to zero, so that their mean is not defined. Change a weight, "
                    "or set `normalize: false`."
                )
            if isinstance(merge, Linear):
                return values
            if not isinstance(merge, TaskArithmetic):
                values["densities"] = [
                    optional(f"models.{index}.density", model.density)
                    for index, model in enumerate(merge.models)
                ]
            return {**values, "scale": optional("lambda", merge.scale)}
        case Mergekit():
            place = without_value(where, merge, tensor)
            if place is not None:
                raise RecipeError(
                    f"{place}: no value applies to {tensor}, and {merge.method} has no default. Give a number, or add an "
                    "entry without `filter`."
                )
            return {}
        case _:
            return {}


def _stacked(
    where: str, merge: Passthrough, nodes: Mapping[str, Node]
) -> tuple[list[Tensor], dict[str, Values], dict[str, Any]]:
    """Return the tensors of stacked layers, the parameters of those that are computed, and the configuration."""
    tensors: list[Tensor] = []
    values: dict[str, Values] = {}
    total = sum(len(_layers(piece.layers)) for piece in merge.slices)

    def take(node: Node, old: str, new: str, scale: Any) -> None:
        part, planned = node.tensors[old]
        dtype = DTYPE_CODES[merge.dtype] if merge.dtype else planned.dtype
        factor = None if scale is None else value_at(scale, new, _depth(new, total))
        plain = factor in {None, 1.0} and dtype == planned.dtype
        tensors.append(
            Tensor(new, dtype, planned.shape, "copy" if plain else "merge", (Origin(part.key, old),))
        )
        if not plain:
            values[new] = {"scale": 1.0 if factor is None else factor}

    first, last = nodes[merge.slices[0].model], nodes[merge.slices[-1].model]
    for name in first.tensors:
        if "embed_tokens" in name:
            take(first, name, name, None)
    kinds: list[Any] = []
    number = 0
    held = {name: _by_layer(nodes[name]) for name in dict.fromkeys(piece.model for piece in merge.slices)}
    for index, piece in enumerate(merge.slices):
        node = nodes[piece.model]
        count = node.config["num_hidden_layers"]
        for layer in _layers(piece.layers):
            if layer >= count:
                raise RecipeError(
                    f"{where}.slices.{index}.layers: layer {layer} does not exist in {piece.model!r}; the last is {count - 1}"
                )
            for name in held[piece.model].get(layer, ()):
                take(node, name, LAYER_NUMBER.sub(f"model.layers.{number}.", name), piece.scale)
            kinds.append({key: node.config[key][layer] for key in PER_LAYER if _is_list(node, key)})
            number += 1
    for name in last.tensors:
        outside = layer_of(name) is None and "embed_tokens" not in name
        if outside and not name.endswith("inv_freq") and not _is_unread(last, name):
            take(last, name, name, None)
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
    """Return the names of a model's tensors by layer, in the model's order, without rotary frequencies."""
    held: dict[int | None, list[str]] = {}
    for name in node.tensors:
        if not name.endswith("inv_freq"):
            held.setdefault(layer_of(name), []).append(name)
    return held


def _part(name: str, label: str, merge: Dense, run: tuple[Tensor, ...], values: Mapping[str, Values]) -> Part:
    computed = [tensor for tensor in run if tensor.action != "copy"]
    if not computed:
        return plan_part(name, label, TakeOver("merge"), run, COPY)
    operation = MergeTensors(
        merge.method, merge.settings, {tensor.name: values[tensor.name] for tensor in computed}
    )
    return plan_part(name, label, operation, run, MERGE_CODE)


def _by_mergekit(name: str, merge: Mergekit, nodes: Mapping[str, Node], tensors: list[Tensor]) -> Part:
    """Return the one part of a merge that mergekit makes whole."""
    request = merge.model_dump(mode="json", exclude={"tokenizer"}, exclude_none=True)
    models = {model: nodes[model].key for model in merge.inputs}
    if len(set(models.values())) < len(models):
        equal = [model for model, key in models.items() if list(models.values()).count(key) > 1]
        raise RecipeError(
            f"models.{name}.merge: {' and '.join(map(repr, equal))} are equal, and mergekit reads one entry for each model"
        )
    run = tuple(Tensor(tensor.name, tensor.dtype, tensor.shape, "merge") for tensor in tensors)
    operation = RunMergekit(merge.method, merge.seed, request, models)
    return plan_part(name, "mergekit", operation, run, MERGEKIT_CODE)


def _misfits(where: str, inputs: list[Node], *, stacked: bool, by_token: bool = False) -> list[str]:
    """Return why models cannot be merged, one line each."""
    problems = []
    first = inputs[0]
    expected = _form(first, stacked=stacked)
    if by_token:
        expected = form_of_rows(expected)
    for node in inputs[1:]:
        kinds = {_kind(first), _kind(node)}
        if len(kinds) > 1 and not kinds <= ONE_FORM:
            problems.append(
                f"{where}: {node.name!r} is of type {_kind(node)!r}, {first.name!r} of type {_kind(first)!r}"
            )
            continue
        problems += [
            f"{where}: {node.name!r} has {difference} as {first.name!r}: equal numbers mean different things in them"
            for difference in differences(node.config, first.config)
        ]
        form = _form(node, stacked=stacked)
        if by_token:
            form = form_of_rows(form)
        differing = [tensor for tensor in {**expected, **form} if expected.get(tensor) != form.get(tensor)]
        if differing:
            tensor = differing[0]
            more = f", and {len(differing) - 1} more tensors differ" if len(differing) > 1 else ""
            hint = ""
            if tensor == HEAD and (tensor not in form or tensor not in expected):
                hint = " (one model has an output head of its own, the other ties it to the embeddings)"
            elif tensor in {HEAD, "model.embed_tokens.weight"}:
                hint = " (their vocabularies differ; `tokenizer: {source: union}` lines them up)"
            elif bias_setting(tensor):
                hint = f" (see {bias_setting(tensor)} in their config.json)"
            problems.append(
                f"{where}: {tensor} is {_show(form.get(tensor))} in {node.name!r} and {_show(expected.get(tensor))} in "
                f"{first.name!r}{hint}{more}"
            )
    return problems


def _unstackable(where: str, inputs: list[Node]) -> list[str]:
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


def _form(node: Node, *, stacked: bool) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors; if layers are stacked, with one entry for all layers."""
    return {
        LAYER_NUMBER.sub("model.layers.*.", name) if stacked else name: shape
        for name, shape in node.form.items()
        if not name.endswith("inv_freq") and not _is_unread(node, name)
    }


def _is_unread(node: Node, tensor: str) -> bool:
    """Return whether a tensor is an output head beside tied embeddings, which transformers does not read."""
    return tensor == HEAD and is_tied(node.config)


def _kind(node: Node) -> str:
    return str(node.config.get("model_type", ""))


def _show(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))


def _layers(text: str) -> range:
    first, last = (int(part) for part in text.split("-"))
    return range(first, last + 1)


def _depth(tensor: str, layers: int) -> float:
    """Return a tensor's relative depth, from 0 for the first layer to 1 for the last.

    Tensors outside the layers, including the last norm and the head, have depth 0, as in mergekit.
    """
    layer = layer_of(tensor)
    if layer is None:
        return 0.0
    return layer / (layers - 1) if layers > 1 else 1.0


def _without_effect(where: str, merge: Dense, nodes: Mapping[str, Node]) -> list[str]:
    """Return a line for each filter of a merge's parameters that applies to no tensor."""
    problems = []
    for key, value, model in _parameters(merge):
        if not isinstance(value, list) or not isinstance(value[0], Filtered):
            continue
        # a head that is tied to the embeddings is a known name
        tensors = (*nodes[model].form, HEAD)
        first = [next((item for item in value if _matches(item, tensor)), None) for tensor in tensors]
        problems += [
            f"{where}.{key}: filter {item.filter!r} applies to no tensor. A filter is a part of tensors' names, such as mlp, and "
            "the first entry that matches counts"
            for item in value
            if item.filter is not None and not any(item is one for one in first)
        ]
    return problems


def _parameters(merge: Dense) -> Iterator[tuple[str, Any, str]]:
    """Yield the parameters of a merge that may have filters: the key, the value, and a model whose tensors they are for."""
    match merge:
        case Slerp():
            yield "t", merge.t, merge.base
        case Passthrough():
            for index, piece in enumerate(merge.slices):
                yield f"slices.{index}.scale", piece.scale, piece.model
        case Linear() | TaskArithmetic() | Ties() | Dare():
            for index, model in enumerate(merge.models):
                yield f"models.{index}.weight", model.weight, model.model
                yield f"models.{index}.density", getattr(model, "density", None), model.model
            yield "lambda", getattr(merge, "scale", None), merge.models[0].model
        case _:
            pass


def _matches(item: Filtered, tensor: str) -> bool:
    return item.filter in {None, "*"} or str(item.filter) in tensor


def value_at(value: Any, tensor: str, depth: float) -> float | None:
    """Return the value of a recipe's parameter for a tensor; None if no filter matches.

    Args:
        value: A number; a list of numbers, spread evenly over the layers; or a list of filters.
        tensor: The tensor's name.
        depth: The tensor's relative depth, 0 to 1.

    Raises:
        ValueError: If a list is to be spread over layers whose numbers are not known.

    Source: mergekit's parameters (``config.py``, ``evaluate_setting``).
    """
    if not isinstance(value, list):
        return float(value)
    if isinstance(value[0], Filtered):
        matching = (item for item in value if _matches(item, tensor))
        first = next(matching, None)
        return None if first is None else value_at(first.value, tensor, depth)
    if len(value) > 1 and _is_elsewhere(tensor):
        raise ValueError(
            f"a list of values is spread over layers that are named model.layers.0, model.layers.1, ..., and {tensor} is not in "
            "one of these. Give a number"
        )
    position = depth * (len(value) - 1)
    low = int(position)
    high = min(low + 1, len(value) - 1)
    return float(value[low] + (position - low) * (value[high] - value[low]))
