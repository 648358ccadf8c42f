"""The parameters of dense merges, tensor by tensor: filters by name, and lists of values that are spread over the layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from herdbook.architectures.form import HEAD
from herdbook.errors import RecipeError
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
from herdbook.recipe.mergekit_methods import METHODS, without_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from herdbook.plan.model import Node
    from herdbook.plan.operation import Values
    from herdbook.recipe import Dense
    from herdbook.recipe.mergekit_methods import Kind, Scalar

# Methods that divide by the sum of all weights if they normalize; TIES divides element by element, by those that agree.
AVERAGED = ("linear", "task_arithmetic", "dare_linear")
SMALLEST_SUM = 1e-8
# Our names of mergekit's parameters: of one for all models, and of lists of those of each.
SHARED_NAMES = {"lambda": "scale"}
LISTED_NAMES = {"weight": "weights", "density": "densities", "gamma": "gammas", "epsilon": "epsilons"}
LARGEST = 1e30  # a weight; sums of larger ones overflow


def values_of(where: str, merge: Dense, tensor: str, depth: float) -> Values:
    """Return the parameters that a method computes one tensor with: weights, densities and scale at its depth.

    Raises:
        RecipeError: If a parameter without a default has no value for the tensor, or if the weights of a mean sum to zero.
    """

    def required(key: str, value: Any) -> float:
        number = value_at(value, tensor, depth)
        if number is None:
            raise RecipeError(
                f"{where}.{key}: none of its filters matches {tensor}. Add an entry without `filter`, whose value applies to "
                "all other tensors."
            )
        return number

    def optional(value: Any) -> float:
        number = value_at(value, tensor, depth)
        return 1.0 if number is None else number

    match merge:
        case Slerp():
            return {"t": required("t", merge.t)}
        case Linear() | TaskArithmetic() | Ties() | Dare():
            models = enumerate(merge.models) if isinstance(merge, Linear) else merge.others
            entries = list(models)
            weights = [required(f"models.{index}.weight", model.weight) for index, model in entries]
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
                values["densities"] = [optional(getattr(model, "density", 1.0)) for _, model in entries]
            return {**values, "scale": optional(merge.scale)}
        case Mergekit():
            place = without_value(where, merge, tensor)
            if place is not None:
                raise RecipeError(
                    f"{place}: no value applies to {tensor}, and {merge.method} has no default. Give a number, or add an "
                    "entry without `filter`."
                )
            return _of_mergekit(where, merge, tensor, depth)
        case _:
            return {}


def _of_mergekit(where: str, merge: Mergekit, tensor: str, depth: float) -> Values:
    """Return the parameters of a method that has mergekit's names; those of each model as lists, without the base.

    Raises:
        RecipeError: If a list of integers has a value between two of them for the tensor, or if a probability is not one.
    """
    method = METHODS[merge.method]

    def at(key: str, kind: Kind, *places: Mapping[str, Any]) -> Scalar:
        given = (_scalar_at(place[key], kind, tensor, depth) for place in places if key in place)
        value = next((value for value in given if value is not None), method.defaults.get(key))
        assert value is not None  # noqa: S101 - `without_value` found that each has one
        if kind == "integer" and value != int(value):
            raise RecipeError(
                f"{where}.parameters.{key}: is {value:g} for {tensor}, which is not an integer. Give a number"
            )
        return int(value) if kind == "integer" else value

    values: Values = {
        SHARED_NAMES.get(key, key): at(key, kind, merge.parameters)
        for key, kind in method.shared.items()
        if key != "int8_mask"  # saves memory in mergekit, and changes no bit
    }
    others = [entry for entry in merge.models if entry.model != merge.base]
    for key, kind in method.of_models.items():
        values[LISTED_NAMES[key]] = [at(key, kind, entry.parameters, merge.parameters) for entry in others]
    if "epsilons" in values:
        for density, spread in zip(values["densities"], values["epsilons"], strict=True):
            if density < 1 and not abs(spread) < min(density, 1 - density):
                raise RecipeError(
                    f"{where}: {tensor}: density {density:g} and epsilon {spread:g} give probabilities from "
                    f"{density - spread:g} to {density + spread:g}, which are not between 0 and 1. Choose a smaller epsilon"
                )
    return values


def _scalar_at(setting: Any, kind: Kind, tensor: str, depth: float) -> Scalar | None:
    """Return the value of a parameter in mergekit's form for a tensor; None if no filter matches."""
    entries = [setting] if isinstance(setting, dict) else setting
    if isinstance(entries, list) and isinstance(entries[0], dict):
        for entry in entries:
            if entry.get("filter") in {None, "*"} or entry["filter"] in tensor:
                return _scalar_at(entry["value"], kind, tensor, depth)
        return None
    given = entries if isinstance(entries, list) else [entries]
    if kind == "boolean":
        return bool(given[int(depth * (len(given) - 1))])
    return _between([float(value) for value in given], depth)


def is_nothing(merge: Dense, values: Iterable[Values]) -> bool:
    """Return whether no model counts anywhere: all weights are zero for all tensors, or the factor of their sum is.

    Zero for some tensors is a way to leave these as they are in the base.
    """
    if not isinstance(merge, Linear | TaskArithmetic | Ties | Dare):
        return False
    return all(of.get("scale") == 0 or not any(_listed(of["weights"])) for of in values)


def _listed(value: float | list[float] | None) -> list[float]:
    return value if isinstance(value, list) else []


def without_effect(where: str, merge: Dense, nodes: Mapping[str, Node]) -> list[str]:
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
                if model.model == getattr(merge, "base", None):
                    continue
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

    Source: mergekit's parameters (``config.py``, ``evaluate_setting``).
    """
    if not isinstance(value, list):
        return float(value)
    if isinstance(value[0], Filtered):
        matching = (item for item in value if _matches(item, tensor))
        first = next(matching, None)
        return None if first is None else value_at(first.value, tensor, depth)
    return _between(value, depth)


def _between(values: list[float], depth: float) -> float:
    """Return the value of a list at a depth, on the straight line between the two values next to it."""
    position = depth * (len(values) - 1)
    low = int(position)
    share = position - low
    return float((1 - share) * values[low] + share * values[min(low + 1, len(values) - 1)])
