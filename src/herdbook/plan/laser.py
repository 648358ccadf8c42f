"""Planning LASER: which matrices may be reduced, by which rule, and whether a search decides about them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import MATRICES, layer_of, matrix_of
from herdbook.errors import RecipeError
from herdbook.key import digest
from herdbook.plan.adapter import parts_like, spell
from herdbook.plan.code import Code
from herdbook.plan.layerwise import FLOAT32, reading
from herdbook.plan.model import INTERPRETER_BYTES, TORCH_BYTES, Part, Search, Tensor
from herdbook.recipe import SvdLlm, spell_rank

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.lock import Lock
    from herdbook.plan.model import Node
    from herdbook.recipe import Laser, Recipe

READING = ("herdbook.inference.forward", "herdbook.inference.text", "herdbook.steps.laser.whiten")
READERS = ("tokenizers",)  # transformers tokenizes with it
LASER_CODE = Code(("herdbook.steps.laser.step",), without=READING)
WHITEN_CODE = Code(("herdbook.steps.laser.step",), packages=READERS)
SEARCH_CODE = Code(("herdbook.steps.laser.search",), packages=READERS)
NOISE_RULES = ("mp-edge", "gavish-donoho")
SINGLE = re.compile(r"^(?:model\.)?layers\.(\d+)\.(.+?)(?:\.weight)?$")
FLOAT64 = 8
SQUARES, WHITENED_SQUARES = 5, 9
PIECES, PIECE_BYTES = 3, 1 << 26  # as ``herdbook.steps.laser.decompose`` reads a matrix


def plan_laser(
    name: str, recipe: Recipe, lock: Lock, parent: Node, max_bytes: int
) -> tuple[tuple[Part, ...], Search | None, list[str]]:
    """Return the parts of a lasered model, the search that decides about its matrices if there is one, and warnings.

    Raises:
        RecipeError: If a layer or a matrix that is asked for does not exist in the parent, or if the calibration text
            is read by an evaluation.
    """
    model: Any = recipe.models[name]
    named = chosen_matrices(name, model, parent)
    chosen = named & parent.tensors.keys()
    ranks = [spell_rank(rank) for rank in model.ranks]
    text = _calibration(name, model, recipe, lock)
    search = _search(name, model, ranks, chosen, text, parent)
    whitens = any(isinstance(rank, SvdLlm) for rank in model.ranks)
    parameters: dict[str, Any] = {"rank": ranks[0]} if search is None else {"search": search.key}
    if whitens:
        parameters |= {"calibration": text, "model": parent.key}
    used = WHITEN_CODE if whitens else LASER_CODE

    def part(label: str, run: tuple[Tensor, ...]) -> Part:
        computed = [tensor for tensor in run if tensor.action != "copy"]
        own = parameters if computed else {}
        code = used.describe() if computed else {}
        memory, each = _part_memory(computed, parent, text, whitens=whitens)
        content = {"operation": "laser", "parameters": own, "code": code, "tensors": spell(run)}
        return Part(
            name,
            label,
            "laser",
            digest(content),
            run,
            own,
            folders=(parent.key,) if whitens and computed else (),
            memory_bytes=memory,
            thread_bytes=each,
            code=code,
        )

    warnings = []
    if chosen != named:
        warnings.append(
            f"models.{name}.matrices: only the MLPs of {parent.name!r} are needed, so {len(named - chosen)} of {len(named)} "
            "matrices are not fetched and not reduced"
        )
    warnings += [
        f"models.{name}.rank: {rank if isinstance(rank, str) else next(iter(rank))} takes a matrix for a signal of low "
        "rank in white noise, which trained weights are not; it may cut most of them. A `guard` would tell."
        for rank in ranks
        if not model.guard and (rank in NOISE_RULES or (isinstance(rank, dict) and "gavish-donoho" in rank))
    ]
    return parts_like(parent, chosen, "laser", max_bytes, part), search, warnings


def chosen_matrices(name: str, model: Laser, parent: Node) -> set[str]:
    """Return the names of the tensors that a LASER entry names, by kind and layer or one by one.

    Raises:
        RecipeError: If one does not exist.
    """
    layers = chosen_layers(model, parent.config["num_hidden_layers"], name)
    named = list(MATRICES) if model.matrices == "all" else list(model.matrices)
    kinds = {matrix for matrix in named if matrix in MATRICES}
    single = {
        f"model.layers.{int(found[1])}.{found[2]}.weight"
        for matrix in named
        if matrix not in MATRICES and (found := SINGLE.match(matrix))
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
            f"models.{name}.select.count: {model.select.count} of {len(matrices)} matrices cannot be selected"
        )
    return matrices


def chosen_layers(model: Laser, count: int, name: str) -> set[int]:
    """Return the layers that a LASER entry chooses, of ``count``.

    Raises:
        RecipeError: If one does not exist.
    """
    if model.layers == "all":
        return set(range(count))
    if isinstance(model.layers, str):
        first, last = (int(part) for part in model.layers.split("-"))
        if first > last:
            raise RecipeError(f"models.{name}.layers: the range {model.layers} is empty")
        layers = set(range(first, last + 1))
    else:
        layers = set(model.layers)
    beyond = sorted(layer for layer in layers if layer >= count)
    if beyond:
        raise RecipeError(f"models.{name}.layers: layer {beyond[0]} does not exist; the last is {count - 1}")
    return layers


def _calibration(name: str, model: Laser, recipe: Recipe, lock: Lock) -> dict[str, Any] | None:
    """Return what a calibration text is, for keys: its files' digests and how windows are drawn."""
    if model.calibration is None:
        return None
    settings = recipe.calibration[model.calibration]
    locked = lock.calibration[model.calibration]
    digests = [str(file.sha256) for file in locked.data]
    for task in recipe.evaluate.tasks if recipe.evaluate else []:
        shared = [file.name for file in lock.tasks[task].data if file.sha256 in digests]
        if shared:
            raise RecipeError(
                f"models.{name}.calibration: {model.calibration!r} has the data of evaluate.tasks {task} "
                f"({shared[0]}): what is tuned on cannot be measured on. Take another split."
            )
    drawn = settings.model_dump(mode="json", exclude={"data"})
    return {"name": model.calibration, "data": digests, **drawn}


def _search(
    name: str, model: Laser, ranks: list[Any], chosen: set[str], text: Any, parent: Node
) -> Search | None:
    if model.guard is None and model.select is None:
        return None
    parameters = {
        "ranks": ranks,
        "matrices": sorted(chosen),
        "select": model.select.model_dump(mode="json") if model.select else None,
        "guard": model.guard.model_dump(mode="json") if model.guard else None,
        "calibration": text,
    }
    code = SEARCH_CODE.describe()
    key = digest({"operation": "search", "model": parent.key, "parameters": parameters, "code": code})
    tensors = [planned for tensor, (_, planned) in parent.tensors.items() if tensor in chosen]
    whitens = any(isinstance(rank, SvdLlm) for rank in model.ranks)
    memory, each = _search_memory(tensors, parent, parameters, whitens=whitens)
    return Search(name, parent.name, key, parameters, code, memory, each)


def matrix_bytes(tensors: Iterable[Tensor], *, whitened: bool) -> int:
    """Return the memory that reducing one of some matrices takes, whichever needs most.

    Squares of the smaller side in float64: the Gram matrix, and for its vectors a copy and LAPACK's workspace of two; or
    the vectors, and what is made of them for the disk. Where outputs are looked at, moments and two bases more. Beside
    them pieces of the matrix in float64, and the matrix as it was read, as it is made and as it is written.
    """
    squares = FLOAT64 * (WHITENED_SQUARES if whitened else SQUARES)
    return max(squares * min(one.shape) ** 2 + PIECES * PIECE_BYTES + 3 * one.size_bytes for one in tensors)


def _part_memory(
    computed: list[Tensor], parent: Node, text: dict[str, Any] | None, *, whitens: bool
) -> tuple[int, int]:
    """Return the memory of a part's job that reduces one matrix at a time, and what each further one at once adds."""
    if not computed:
        return INTERPRETER_BYTES, 0
    one = matrix_bytes(computed, whitened=whitens)
    if not whitens or text is None:
        return TORCH_BYTES + one, one
    read = reading(parent, text["windows"], text["tokens"])
    moments = _moments(computed)
    shared = read.layer + max(map(_bytes, computed)) + read.streams + moments
    return TORCH_BYTES + shared + max(one, read.window + moments), max(one, read.window + moments)


def _search_memory(
    tensors: list[Tensor], parent: Node, parameters: dict[str, Any], *, whitens: bool
) -> tuple[int, int]:
    """Return the memory of a search with one thread, and what each further thread adds."""
    one = matrix_bytes(tensors, whitened=whitens)
    select, text = parameters["select"], parameters["calibration"]
    ranked = select is not None and select["by"] != "gradient"
    if text is None:
        return TORCH_BYTES + one, one
    windows = text["windows"] * (2 if parameters["guard"] else 1)  # as many again confirm the choice
    read = reading(parent, windows, text["tokens"])
    shared = read.layer + read.head + max(map(_bytes, tensors)) + read.streams
    if parameters["guard"]:
        shared += sum(map(_bytes, tensors))  # what was accepted is held
    thread = read.window
    if select is not None and not ranked:
        layers: dict[int | None, int] = {}
        for tensor in tensors:
            layers[layer_of(tensor.name)] = layers.get(layer_of(tensor.name), 0) + tensor.elements
        widest = max(layers.values())
        shared += 2 * FLOAT64 * widest  # gradients, before and after one is added
        thread += FLOAT32 * widest + read.window  # and what the way back has kept
    if whitens:
        moments = _moments(tensors)
        shared += moments
        thread += moments
    if ranked or whitens:
        thread = max(thread, one)
    return TORCH_BYTES + shared + one + thread, thread


def _moments(tensors: list[Tensor]) -> int:
    """Return what the second moments of a layer's matrices take, and the largest matrix in float64."""
    layers: dict[int | None, int] = {}
    for tensor in tensors:
        number = layer_of(tensor.name)
        layers[number] = layers.get(number, 0) + FLOAT64 * min(tensor.shape) ** 2
    return max(layers.values()) + FLOAT64 * max(tensor.elements for tensor in tensors)


def _bytes(tensor: Tensor) -> int:
    return tensor.size_bytes
