"""Planning what keeps a model's form, as adapters do: every tensor is copied or remade from the one of its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from herdbook.errors import RecipeError
from herdbook.key import digest
from herdbook.plan.code import Code
from herdbook.plan.model import Origin, Part, Tensor
from herdbook.plan.sharding import cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.lock import LockedAdapter
    from herdbook.plan.model import Node
    from herdbook.recipe import Adapter

ADAPTER_CODE = Code(("herdbook.steps.adapter.step",))
LORA_TENSOR = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")


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
        if target not in parent.form:
            problems.append(f"{target} is not in {model.on!r}")
            continue
        rows, columns = parent.form[target]
        if set(both) != {"A", "B"} or both["B"] != (rows, both["A"][0]) or both["A"][1] != columns:
            problems.append(f"{target}: LoRA shapes {both} do not fit {(rows, columns)}")
    if problems:
        raise RecipeError([f"models.{name}.adapter: {model.place}: {problem}" for problem in problems])
    parameters = {"files": {file.name: file.sha256 or file.git_blob for file in locked.files}}

    def part(label: str, run: tuple[Tensor, ...]) -> Part:
        computed = [tensor for tensor in run if tensor.action != "copy"]
        own = parameters if computed else {}
        code = ADAPTER_CODE.describe() if computed else {}
        content = {"operation": "adapter", "parameters": own, "code": code, "tensors": spell(run)}
        return Part(name, label, "adapter", digest(content), run, own, code=code)

    return parts_like(parent, set(sides), "adapter", max_bytes, part)


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


def parts_like(
    parent: Node,
    remade: set[str],
    action: str,
    max_bytes: int,
    part: Callable[[str, tuple[Tensor, ...]], Part],
) -> tuple[Part, ...]:
    """Cut a model of its parent's form into parts.

    Args:
        parent: The parent.
        remade: Names of the tensors that are computed; the others are copied.
        action: What computes them.
        max_bytes: See ``cut``.
        part: Makes a part of its label and its tensors.
    """
    tensors = [
        Tensor(
            tensor,
            planned.dtype,
            planned.shape,
            action if tensor in remade else "copy",
            (Origin(holder.key, tensor),),
        )
        for tensor, (holder, planned) in parent.tensors.items()
    ]
    return tuple(part(str(index), run) for index, run in enumerate(cut(tensors, max_bytes), start=1))


def spell(tensors: tuple[Tensor, ...]) -> list[list[Any]]:
    """Spell tensors out for a key: name, dtype, shape, action, and the origins in order."""
    return [
        [
            tensor.name,
            tensor.dtype,
            list(tensor.shape),
            tensor.action,
            [[origin.part, origin.tensor] for origin in tensor.origins],
            *([list(tensor.slices)] if tensor.slices else []),
        ]
        for tensor in tensors
    ]
