"""Dense merges of models whose tokens have different rows: their tensors with a row for each token are made of lined-up rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from herdbook.architectures.rows import is_embeddings, is_per_token, rows_of
from herdbook.errors import RecipeError
from herdbook.plan.alignment import ROW, row_tensor
from herdbook.recipe import Passthrough

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.plan.alignment import Alignment
    from herdbook.plan.model import Node, Tensor
    from herdbook.plan.operation import Values
    from herdbook.recipe import Dense


def unaligned(where: str, merge: Dense, nodes: Mapping[str, Node], alignment: Alignment) -> Iterator[str]:
    """Yield why the rows of a merge's models cannot be lined up, one line each."""
    if not alignment.changes(nodes, merge.inputs):
        return
    groups = [merge.inputs]
    if isinstance(
        merge, Passthrough
    ):  # a row comes from the model that the layer of the same kind comes from
        groups = [(merge.slices[0].model,), (merge.slices[-1].model,)]
    yield from dict.fromkeys(line for models in groups for line in alignment.problems(where, nodes, models))


def aligned(
    merge: Dense,
    tensors: list[Tensor],
    values: Mapping[str, Values],
    nodes: Mapping[str, Node],
    alignment: Alignment,
) -> tuple[list[Tensor], dict[str, Values]]:
    """Return the tensors of a merge and their parameters, with lined-up rows; as they are if each row is where it belongs.

    Of stacked layers, the rows of one model are taken; otherwise those of all models are lined up, and then merged.
    """
    result, found = [], dict(values)
    if not alignment.changes(nodes, merge.inputs):
        return tensors, found
    inputs, base = merge.inputs, getattr(merge, "base", None)
    made = {model: alignment.runs(inputs, model, base) for model in dict.fromkeys(inputs)}
    for tensor in tensors:
        if not is_per_token(tensor.name):
            result.append(tensor)
        elif isinstance(merge, Passthrough):
            model = merge.slices[0 if is_embeddings(tensor.name) else -1].model
            runs = alignment.runs((model,), model, None)
            if tensor.name in values:  # scaled, or written in another dtype
                found[tensor.name] = {**values[tensor.name], "rows": [runs]}
                result.append(replace(tensor, shape=(alignment.rows, *tensor.shape[1:])))
                continue
            found[tensor.name] = {"rows": runs}
            result.append(row_tensor(tensor, runs, alignment.rows, tensor.origins))
        else:
            found[tensor.name] = {**values[tensor.name], "rows": [made[model] for model in inputs]}
            result.append(replace(tensor, shape=(alignment.rows, *tensor.shape[1:])))
    return result, found


def crops(merge: Dense) -> bool:
    """Return whether rows beyond those that all models have are left out."""
    return not isinstance(merge, Passthrough) and merge.vocabulary is not None


def cropped(
    where: str, merge: Dense, tensors: list[Tensor], values: Mapping[str, Values], nodes: Mapping[str, Node]
) -> tuple[list[Tensor], dict[str, Values], list[str]]:
    """Return the tensors of a merge and their parameters, without the last rows of models that have more; and warnings.

    Raises:
        RecipeError: If the embeddings of a model are not known by their name, or all models have equally many rows.
    """
    counts = {name: rows_of(nodes[name].form) for name in merge.inputs}
    for name, count in counts.items():
        if count is None or type(nodes[name].config.get("vocab_size")) is not int:
            raise RecipeError(
                f"{where}.vocabulary: which tensors of {name!r} have a row for each token, or the key of their number in its "
                "config.json, is not known"
            )
    known = {name: count for name, count in counts.items() if count is not None}
    rows = min(known.values())
    if rows == max(known.values()):
        raise RecipeError(
            f"{where}.vocabulary: all models have {rows} rows, so that nothing is cropped; leave it out"
        )
    runs = [[[0, rows, ROW, place, 0]] for place in range(len(merge.inputs))]
    found = {name: {**of, "rows": runs} if is_per_token(name) else of for name, of in values.items()}
    made = [
        replace(tensor, shape=(rows, *tensor.shape[1:])) if is_per_token(tensor.name) else tensor
        for tensor in tensors
    ]
    return (
        made,
        found,
        [
            f"{where}: the last {count - rows} rows of the embeddings of {name!r} are left out; the others are taken to be of the "
            "same tokens in all models"
            for name, count in known.items()
            if count > rows
        ],
    )


def warnings_of(where: str, merge: Dense, alignment: Alignment) -> Iterator[str]:
    """Yield a line for tokens without a row."""
    if not isinstance(merge, Passthrough):
        yield from alignment.lacking(where, merge.inputs, merge.inputs[0], getattr(merge, "base", None))
        return
    for model in dict.fromkeys((merge.slices[0].model, merge.slices[-1].model)):
        yield from alignment.lacking(where, (model,), model, None)
