"""The methods that have mergekit's names for their parameters: these, and the models that they merge.

mergekit ignores parameters that a method does not have, and those given in a place that it does not read; here they are
refused. All are computed tensor by tensor, in mergekit's bits. Only those that draw random numbers draw other ones: mergekit
takes them for one tensor after another, here the tensor's name seeds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.recipe.merge import Mergekit

Kind = Literal["number", "integer", "boolean"]
Scalar = bool | int | float
NOUNS = {"number": "a finite number", "integer": "an integer", "boolean": "true or false"}
FILTER_KEYS = {"filter", "value"}


@dataclass(frozen=True)
class Method:
    """A method of mergekit.

    Args:
        shared: Parameters of the whole merge.
        of_models: Parameters of each model but the base; given for all of them at once, or one by one.
        required: The parameters without a default.
        base: Whether it needs a base, may have one, or treats it like any other model.
        models: The number of models besides the base, if only one number is allowed.
        draws: Whether it draws random numbers.
        defaults: The values of the parameters that are not required.
    """

    shared: dict[str, Kind] = field(default_factory=dict)
    of_models: dict[str, Kind] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    base: Literal["required", "optional", "ignored"] = "required"
    models: int | None = None
    draws: bool = False
    defaults: dict[str, Scalar] = field(default_factory=dict)


_TASK_VECTORS: dict[str, Kind] = {
    "int8_mask": "boolean",
    "normalize": "boolean",
    "rescale": "boolean",
    "lambda": "number",
}
_PLAIN: dict[str, Scalar] = {
    "int8_mask": False,
    "normalize": False,
    "rescale": False,
    "lambda": 1.0,
    "density": 1.0,
}
_SPARSE: dict[str, Kind] = {"weight": "number", "density": "number"}
_BREADCRUMBS = Method(
    _TASK_VECTORS, {**_SPARSE, "gamma": "number"}, ("weight",), defaults={**_PLAIN, "gamma": 0.01}
)


def _della(*, normalize: bool) -> Method:
    defaults: dict[str, Scalar] = {**_PLAIN, "normalize": normalize, "rescale": True, "epsilon": 0.15}
    of_models: dict[str, Kind] = {**_SPARSE, "epsilon": "number"}
    return Method(_TASK_VECTORS, of_models, ("weight",), draws=True, defaults=defaults)


# Source: mergekit 0.1.5, ``merge_methods.registry``; a test compares them with the installed mergekit.
METHODS = {
    "arcee_fusion": Method(models=1),
    "breadcrumbs": _BREADCRUMBS,
    "breadcrumbs_ties": _BREADCRUMBS,
    "della": _della(normalize=True),
    "della_linear": _della(normalize=False),
    "karcher": Method(
        {"max_iter": "integer", "tol": "number"}, base="ignored", defaults={"max_iter": 10, "tol": 1e-5}
    ),
    "multislerp": Method(
        {"normalize_weights": "boolean", "eps": "number"},
        {"weight": "number"},
        ("weight",),
        "optional",
        defaults={"normalize_weights": True, "eps": 1e-8},
    ),
    "nearswap": Method({"t": "number"}, required=("t",), models=1),
    "nuslerp": Method(
        {"nuslerp_row_wise": "boolean", "nuslerp_flatten": "boolean"},
        {"weight": "number"},
        ("weight",),
        "optional",
        2,
        defaults={"nuslerp_row_wise": False, "nuslerp_flatten": True},
    ),
    "ram": Method({"epsilon": "number"}, defaults={"epsilon": 1e-5}),
    "ramplus_tl": Method(
        {"r": "number", "alpha": "number", "epsilon": "number"},
        defaults={"r": 0.1, "alpha": 0.2, "epsilon": 1e-5},
    ),
    "sce": Method(
        {"int8_mask": "boolean", "select_topk": "number"}, defaults={"int8_mask": False, "select_topk": 1.0}
    ),
}


def mergekit_problems(where: str, merge: Mergekit) -> list[str]:
    """Return what mergekit would refuse or ignore in a merge, one line each; ``where`` is its key in the recipe."""
    method = METHODS[merge.method]
    names = [entry.model for entry in merge.models]
    problems = [
        f"{where}.models: {name!r} is listed twice, and is the base; leave out one of the entries"
        for name in dict.fromkeys(names)
        if names.count(name) > 1 and name == merge.base
    ]
    if "seed" in merge.model_fields_set and not method.draws:
        problems.append(f"{where}.seed: {merge.method} draws no random numbers; leave it out")
    others = [name for name in names if name != merge.base]
    if method.base == "required" and merge.base is None:
        problems.append(f"{where}.base: {merge.method} needs a base")
    if method.base == "ignored" and merge.base is not None:
        problems.append(
            f"{where}.base: {merge.method} has no base, and would merge it like any other model; list it in `models`"
        )
    if not others:
        problems.append(f"{where}.models: lists no model besides the base")
    elif method.models is not None and len(others) != method.models:
        models = "model" if method.models == 1 else "models"
        problems.append(
            f"{where}.models: {merge.method} merges {method.models} {models} besides the base; {len(others)} are listed"
        )
    everywhere = {**method.shared, **method.of_models}
    problems += _problems(f"{where}.parameters", merge.method, everywhere, merge.parameters)
    for index, entry in enumerate(merge.models):
        place = f"{where}.models.{index}.parameters"
        misplaced = [key for key in entry.parameters if key in method.shared]
        problems += [
            f"{place}: {key} is a parameter of the whole merge, and mergekit ignores it here; put it in {where}.parameters"
            for key in misplaced
        ]
        own = {key: value for key, value in entry.parameters.items() if key not in misplaced}
        if own and entry.model == merge.base:
            problems.append(f"{place}: {entry.model!r} is the base, whose parameters mergekit ignores")
        problems += _problems(place, merge.method, method.of_models, own)
    return problems


def without_value(where: str, merge: Mergekit, tensor: str) -> str | None:
    """Return the place of the first required parameter that has no value for a tensor; None if all have one.

    As in mergekit, a model's parameter comes before that of the whole merge, and a list of filters none of which matches
    the tensor's name counts as not given.
    """
    method = METHODS[merge.method]
    for key in method.required:
        if _has_value(merge.parameters.get(key), tensor):
            continue
        if key in method.shared:
            return f"{where}.parameters.{key}"
        for index, entry in enumerate(merge.models):
            if entry.model != merge.base and not _has_value(entry.parameters.get(key), tensor):
                return f"{where}.models.{index}.parameters.{key}"
    return None


def _has_value(setting: Any, tensor: str) -> bool:
    if isinstance(setting, dict):
        setting = [setting]
    if isinstance(setting, list) and isinstance(setting[0], dict):
        return any(item.get("filter") in {None, "*"} or item["filter"] in tensor for item in setting)
    return setting is not None


def _problems(where: str, method: str, known: dict[str, Kind], parameters: dict[str, Any]) -> Iterable[str]:
    for key, setting in parameters.items():
        if key not in known:
            have = f"its parameters are {', '.join(known)}" if known else "it has none"
            yield f"{where}: {method} has no parameter {key!r}, and mergekit would ignore it; {have}"
            continue
        entries = [setting] if isinstance(setting, dict) else setting
        if isinstance(entries, list) and any(isinstance(entry, dict) for entry in entries):
            for entry in entries:
                if not isinstance(entry, dict) or "value" not in entry or not entry.keys() <= FILTER_KEYS:
                    yield f"{where}.{key}: {entry!r} is not of the form {{filter, value}}"
                elif not isinstance(entry.get("filter"), str | None):
                    yield f"{where}.{key}: the filter {entry['filter']!r} is not a part of a name"
                else:
                    yield from _bad_values(f"{where}.{key}", key, known[key], entry["value"])
        else:
            yield from _bad_values(f"{where}.{key}", key, known[key], setting)


def _bad_values(where: str, key: str, kind: Kind, setting: Any) -> Iterable[str]:
    """Yield what is wrong with a value or with a list of values, which mergekit spreads over the layers."""
    if isinstance(setting, list) and not setting:
        yield f"{where}: the list is empty"
    for value in setting if isinstance(setting, list) else [setting]:
        if not _is(kind, value):
            yield f"{where}: {value!r} is not {NOUNS[kind]}"
        elif key == "density" and not 0 < float(value) <= 1:
            yield f"{where}: {value} is not above 0 and at most 1"


def _is(kind: Kind, value: Any) -> bool:
    if kind == "boolean" or isinstance(value, bool):
        return kind == "boolean" and isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int)
    try:
        # YAML reads 1e-5 as a text, and mergekit reads that as a number
        return isinstance(value, int | float | str) and math.isfinite(float(value))
    except ValueError:
        return False
