"""Planning LASER: which matrices may be reduced, by which rule, and whether a search chooses among them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from herdbook.architectures.dense import MATRICES, Architecture, layer_of, matrix_of
from herdbook.errors import RecipeError
from herdbook.key import digest
from herdbook.plan.code import COPY, TOKENIZERS, Code
from herdbook.plan.model import Part, Search, Tensor
from herdbook.plan.operation import CalibrationText, Reduce, ReduceAsSearched, TakeOver, Whitening
from herdbook.plan.part import parts_like, plan_part
from herdbook.recipe.rank import Clustered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.lock import Lock
    from herdbook.plan.model import Node
    from herdbook.recipe import Laser, Recipe

READING = ("herdbook.inference.forward", "herdbook.inference.text", "herdbook.steps.laser.whiten")
LASER_CODE = Code("laser", ("herdbook.steps.laser.step",), without=READING)
WHITEN_CODE = Code("laser-whitened", ("herdbook.steps.laser.step",), packages=TOKENIZERS)
SEARCH_CODE = Code("search", ("herdbook.steps.laser.search",), packages=TOKENIZERS)
SINGLE = re.compile(r"^(?:model\.)?layers\.(\d+)\.(.+?)(?:\.weight)?$")


def plan_laser(
    name: str, model: Laser, recipe: Recipe, lock: Lock, parent: Node, max_bytes: int
) -> tuple[tuple[Part, ...], Search | None, list[str]]:
    """Return the parts of a lasered model, the search that chooses its matrices, if any, and warnings.

    Raises:
        RecipeError: If the parent does not have a layer or a matrix that the recipe names, or if an evaluation reads the
            calibration text.
    """
    named = chosen_matrices(name, model, parent)
    chosen = named & parent.tensors.keys()
    _check_clusters(name, model, chosen, parent)
    text = _calibration(name, model, recipe, lock)
    search = _search(name, model, chosen, text, parent)
    whitens = any(rule.needs_text for rule in model.ranks)
    whitening = Whitening(text, parent.key) if whitens and text else None
    reduce = ReduceAsSearched(search.key, whitening) if search else Reduce(model.ranks[0], whitening)
    code = WHITEN_CODE if whitens else LASER_CODE

    def part(label: str, run: tuple[Tensor, ...]) -> Part:
        if all(tensor.action == "copy" for tensor in run):
            return plan_part(name, label, TakeOver("laser"), run, COPY)
        return plan_part(name, label, reduce, run, code)

    warnings = []
    if chosen != named:
        warnings.append(
            f"models.{name}.matrices: only the MLPs of {parent.name!r} are needed, so {len(named - chosen)} of the "
            f"{len(named)} matrices are neither fetched nor reduced"
        )
    warnings += [
        f"models.{name}.rank: {rule.name} assumes a low-rank signal in white noise, which trained weights are not; it may "
        "remove most of a matrix. Add a `guard` to measure the damage."
        for rule in model.ranks
        if rule.assumes_noise and not model.guard
    ]
    return parts_like(parent, chosen, "laser", max_bytes, part), search, warnings


def _check_clusters(name: str, model: Laser, chosen: set[str], parent: Node) -> None:
    """Check that each matrix has rows for the clusters. Raises RecipeError if one does not."""
    for rule in (rule for rule in model.ranks if isinstance(rule, Clustered)):
        for tensor in sorted(chosen):
            clusters, rows = rule.clustered.clusters, parent.form[tensor][0]
            if rows < 2 * clusters:
                raise RecipeError(
                    f"models.{name}.rank: {clusters} clusters need at least {2 * clusters} rows, and {tensor} has {rows}"
                )


def chosen_matrices(name: str, model: Laser, parent: Node) -> set[str]:
    """Return the names of the tensors that a LASER entry names, by kind and layer or one by one.

    Raises:
        RecipeError: If one does not exist.
    """
    layers = set(chosen_layers(model, Architecture.of(parent.config, model.laser).layers, name))
    named = list(MATRICES) if model.matrices == "all" else list(model.matrices)
    kinds = {matrix for matrix in named if matrix in MATRICES}
    single = {
        f"model.layers.{int(match[1])}.{match[2]}.weight"
        for matrix in named
        if matrix not in MATRICES and (match := SINGLE.match(matrix))
    }
    known = {tensor for tensor, shape in parent.form.items() if len(shape) == 2}
    of_kind = {tensor for tensor in known if layer_of(tensor) in layers and matrix_of(tensor) in kinds}
    missing = [*sorted(kinds - {matrix_of(tensor) for tensor in of_kind}), *sorted(single - known)]
    if missing:
        raise RecipeError(
            f"models.{name}.matrices: {model.laser!r} has no {', '.join(missing)} in the chosen layers"
        )
    matrices = of_kind | single
    if model.select and model.select.count > len(matrices):
        raise RecipeError(
            f"models.{name}.select.count: cannot select {model.select.count} of {len(matrices)} matrices"
        )
    return matrices


def chosen_layers(model: Laser, count: int, name: str) -> Sequence[int]:
    """Return the layers that a LASER entry chooses, of ``count``.

    Raises:
        RecipeError: If one does not exist.
    """
    if model.layers == "all":
        return range(count)
    if isinstance(model.layers, str):
        first, last = (int(part) for part in model.layers.split("-"))
        if first > last:
            raise RecipeError(f"models.{name}.layers: the range {model.layers} is empty")
        layers: Sequence[int] = range(first, last + 1)
        beyond = max(first, count) if last >= count else None
    else:
        layers = model.layers
        beyond = min((layer for layer in layers if layer >= count), default=None)
    if beyond is not None:
        raise RecipeError(f"models.{name}.layers: layer {beyond} does not exist; the last is {count - 1}")
    return layers


def _calibration(name: str, model: Laser, recipe: Recipe, lock: Lock) -> CalibrationText | None:
    """Return the text that a LASER entry names.

    Raises:
        RecipeError: If an evaluation reads it as well.
    """
    if model.calibration is None:
        return None
    text = calibration_text(model.calibration, recipe, lock)
    for task, locked in lock.tasks.items():
        shared = [file.name for file in locked.data if file.sha256 in text.data]
        if shared:
            raise RecipeError(
                f"models.{name}.calibration: {model.calibration!r} shares data ({shared[0]}) with evaluate.tasks {task}: "
                "a model must not be measured on text that it was tuned on. Use another split."
            )
    return text


def calibration_text(name: str, recipe: Recipe, lock: Lock) -> CalibrationText:
    """Return a calibration text of the recipe: the digests of its files, and how windows are drawn."""
    entry = recipe.calibration[name]
    data = tuple(str(file.sha256) for file in lock.calibration[name].data)
    return CalibrationText(name, data, entry.split, entry.field, entry.windows, entry.tokens, entry.seed)


def _search(
    name: str, model: Laser, chosen: set[str], text: CalibrationText | None, parent: Node
) -> Search | None:
    spread = any(rule.spreads is not None for rule in model.ranks)
    if model.guard is None and model.select is None and not spread:
        return None
    code = SEARCH_CODE.describe()
    search = Search(
        name,
        parent.name,
        key="",
        matrices=tuple(sorted(chosen)),
        ranks=model.ranks,
        select=model.select,
        guard=model.guard,
        text=text,
        code=code,
    )
    content = {"operation": "search", "model": parent.key, "parameters": search.parameters, "code": code.json}
    return replace(search, key=digest(content))
