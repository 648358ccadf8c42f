"""Planning what keeps a model's form: LASER and adapters. Every tensor is copied or remade from the one of its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from herdbook.errors import RecipeError
from herdbook.key import Code, digest
from herdbook.plan.architecture import layer_of, matrix_of
from herdbook.plan.cut import cut
from herdbook.plan.model import INTERPRETER_BYTES, TORCH_BYTES, Origin, Part, Tensor
from herdbook.recipe import MATRICES, Adapter, Fraction, Laser

if TYPE_CHECKING:
    from herdbook.lock import LockedAdapter
    from herdbook.plan.model import Node

LASER_CODE = Code(
    modules=("herdbook.laser.rank", "herdbook.laser.reduce", "herdbook.laser.step"), packages=("torch",)
)
ADAPTER_CODE = Code(modules=("herdbook.adapter.fold", "herdbook.adapter.step"), packages=("torch",))
LORA_TENSOR = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")


def plan_laser(name: str, model: Laser, parent: Node, max_bytes: int) -> tuple[Part, ...]:
    """Return the parts of a lasered model.

    Raises:
        RecipeError: If a layer or a matrix that is asked for does not exist in the parent.
    """
    layers = chosen_layers(model, parent.config["num_hidden_layers"], name)
    matrices = set(MATRICES if model.matrices == "all" else model.matrices)
    chosen = {
        tensor
        for tensor, (_, planned) in parent.tensors.items()
        if layer_of(tensor) in layers and matrix_of(tensor) in matrices and len(planned.shape) == 2
    }
    missing = sorted(matrices - {matrix_of(tensor) for tensor in chosen})
    if missing:
        raise RecipeError(
            f"models.{name}.matrices: {model.laser!r} has no {', '.join(missing)} in the chosen layers"
        )
    rank: Any = {"fraction": model.rank.fraction} if isinstance(model.rank, Fraction) else model.rank
    return _parts(name, "laser", parent, chosen, {"rank": rank}, LASER_CODE, max_bytes)


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


def plan_adapter(
    name: str, model: Adapter, locked: LockedAdapter, parent: Node, max_bytes: int
) -> tuple[Part, ...]:
    """Return the parts of a model with an adapter folded in.

    Raises:
        RecipeError: If the adapter does not fit the model, or is of a kind that cannot be folded in exactly.
    """
    problems = unsupported(locked.config)
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in locked.tensors:
        found = LORA_TENSOR.match(tensor.name)
        if not found:
            problems.append(f"tensor {tensor.name} is no LoRA matrix")
            continue
        sides.setdefault(found["module"] + ".weight", {})[found["side"]] = tensor.shape
    for target, both in sides.items():
        if target not in parent.tensors:
            problems.append(f"{target} is not in {model.on!r}")
            continue
        rows, columns = parent.tensors[target][1].shape
        if set(both) != {"A", "B"} or both["B"] != (rows, both["A"][0]) or both["A"][1] != columns:
            problems.append(f"{target}: LoRA shapes {both} do not fit {(rows, columns)}")
    if problems:
        raise RecipeError([f"models.{name}.adapter: {model.adapter}: {problem}" for problem in problems])
    files = {file.name: file.sha256 for file in locked.files}
    return _parts(name, "adapter", parent, set(sides), {"files": files}, ADAPTER_CODE, max_bytes)


def unsupported(config: dict[str, Any]) -> list[str]:
    """Return what in an adapter's configuration rules out folding it in exactly, one line each."""
    problems = []
    if str(config.get("peft_type", "")).upper() != "LORA":
        problems.append(f"peft_type {config.get('peft_type')!r} is not LORA")
    problems += [
        f"{key} is not supported"
        for key in ("use_dora", "fan_in_fan_out", "modules_to_save")
        if config.get(key)
    ]
    if config.get("bias", "none") != "none":
        problems.append("trained biases are not supported")
    return problems


def _parts(
    name: str,
    operation: str,
    parent: Node,
    remade: set[str],
    parameters: dict[str, Any],
    code: Code,
    max_bytes: int,
) -> tuple[Part, ...]:
    tensors = [
        Tensor(
            tensor,
            planned.dtype,
            planned.shape,
            operation if tensor in remade else "copy",
            (Origin(part.key, tensor),),
        )
        for tensor, (part, planned) in parent.tensors.items()
    ]
    parts = []
    for index, run in enumerate(cut(tensors, max_bytes), start=1):
        computed = [tensor for tensor in run if tensor.action != "copy"]
        own = parameters if computed else {}
        described = code.describe() if computed else {}
        content = {"operation": operation, "parameters": own, "code": described, "tensors": spell(run)}
        # The matrix in float64, its Gram matrix, eigenvectors and workspace, and the product: eight times float64.
        largest = max((tensor.elements for tensor in computed), default=0)
        memory = TORCH_BYTES + 64 * largest if computed else INTERPRETER_BYTES
        parts.append(
            Part(name, str(index), operation, digest(content), run, own, memory_bytes=memory, code=described)
        )
    return tuple(parts)


def spell(tensors: tuple[Tensor, ...]) -> list[list[Any]]:
    """Spell tensors out for a key: name, dtype, shape, action, and the origins in order."""
    return [
        [
            tensor.name,
            tensor.dtype,
            list(tensor.shape),
            tensor.action,
            [[origin.part, origin.tensor] for origin in tensor.origins],
        ]
        for tensor in tensors
    ]
