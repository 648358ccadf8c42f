"""What is wrong in the dense merges of a recipe, beyond the types of their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.recipe.dense import Modular
from herdbook.recipe.merge import (
    Dare,
    Filtered,
    Joined,
    Mergekit,
    ModelStock,
    Passthrough,
    Slerp,
    TaskVectors,
    Ties,
    layer_range,
)
from herdbook.recipe.mergekit_methods import mergekit_problems
from herdbook.recipe.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.recipe.dense import Dense


def merge_problems(where: str, merge: Dense) -> list[str]:
    """Return the problems of a dense merge, one line each; ``where`` is its key in the recipe."""
    if isinstance(merge, Modular):
        return [
            problem
            for name, one in merge.modules.items()
            for problem in _of_module(f"{where}.modules.{name}", one)
        ]
    problems = [*_problems_of_semantics(where, merge), *_problems_of_base(where, merge)]
    if isinstance(merge, Ties | Dare):
        for index, entry in enumerate(merge.models):
            problems += [
                f"{where}.models.{index}.density: {value:g} is not above 0 and at most 1"
                for value in numbers(entry.density)
                if not 0 < value <= 1
            ]
    if isinstance(merge, Slerp):
        problems += [
            f"{where}.t: {value:g} is not between 0 and 1"
            for value in numbers(merge.t)
            if not 0 <= value <= 1
        ]
    if isinstance(merge, Mergekit):
        problems += mergekit_problems(where, merge)
    if isinstance(merge, Passthrough):
        problems += [
            f"{where}.slices.{index}.layers: the range {piece.layers} is empty"
            for index, piece in enumerate(merge.slices)
            if not layer_range(piece.layers)
        ]
    else:
        problems += _problems_of_layers(f"{where}.layers", merge)
        if merge.vocabulary and isinstance(merge.tokenizer, Tokenizer) and merge.tokenizer.source:
            problems.append(
                f"{where}.vocabulary: rows are either cropped, or lined up by `tokenizer.source`; leave out one of them"
            )
    return problems


def _of_module(where: str, merge: Joined) -> Iterator[str]:
    yield from merge_problems(where, merge)  # type: ignore[arg-type]  # its classes are those that join
    yield from (
        f"{where}.{key}: modules of a model have it in common, so a single one cannot set it"
        for key in ("tokenizer", "vocabulary")
        if getattr(merge, key) is not None
    )


def _problems_of_layers(where: str, merge: Joined) -> list[str]:
    if merge.layers is None:
        return []
    if isinstance(merge.layers, str):
        return [] if layer_range(merge.layers) else [f"{where}: the range {merge.layers} is empty"]
    problems = [
        f"{where}.{name}: {name!r} is not one of the merged models"
        for name in merge.layers
        if name not in merge.inputs
    ]
    problems += [
        f"{where}: {name!r} is missing" for name in dict.fromkeys(merge.inputs) if name not in merge.layers
    ]
    counts = {name: len(layer_range(layers)) for name, layers in merge.layers.items()}
    problems += [
        f"{where}.{name}: the range {merge.layers[name]} is empty" for name in counts if not counts[name]
    ]
    if len(set(counts.values())) > 1:
        problems.append(
            f"{where}: each model needs equally many layers; found {', '.join(map(str, counts.values()))}"
        )
    return problems


def _problems_of_semantics(where: str, merge: Dense) -> Iterator[str]:
    if not merge.is_as_mergekit and merge.out_dtype and merge.dtype not in {None, "float32"}:
        yield (
            f"{where}.dtype: native-1 computes in float32, not in {merge.dtype}, and rounds once to `out_dtype`. Leave out "
            "`dtype`, or set `semantics: mergekit-0.1.5`"
        )


def _problems_of_base(where: str, merge: Dense) -> Iterator[str]:
    """Yield what is wrong with a base that is listed among the models, as mergekit's configurations do."""
    if isinstance(merge, TaskVectors):
        for index, entry in enumerate(merge.models):
            if entry.model == merge.base and (given := entry.model_fields_set - {"model"}):
                yield (
                    f"{where}.models.{index}.{min(given)}: {entry.model!r} is the base, which takes no part in the sum of task "
                    "vectors. Leave out its parameters"
                )
        if not merge.others:
            yield f"{where}.models: lists no model besides the base {merge.base!r}"
    few = 2
    if isinstance(merge, ModelStock) and len(merge.inputs) - 1 < few:
        yield f"{where}.models: model_stock needs two models besides the base {merge.base!r}"


def numbers(value: Any) -> list[float]:
    """Return all numbers in a value."""
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return numbers(value.value) if isinstance(value, Filtered) else [float(value)]
