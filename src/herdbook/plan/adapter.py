"""Planning an adapter: its matrices are folded into those of the model, everything else is copied."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from herdbook.errors import RecipeError
from herdbook.plan.code import COPY, Code
from herdbook.plan.operation import FoldAdapter, TakeOver
from herdbook.plan.part import parts_like, plan_part

if TYPE_CHECKING:
    from herdbook.lock import LockedAdapter
    from herdbook.plan.model import Node, Part, Tensor
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
        match = LORA_TENSOR.match(tensor.name)
        if not match:
            problems.append(f"tensor {tensor.name} is not a LoRA matrix; only LoRA adapters can be folded in")
            continue
        sides.setdefault(match["module"] + ".weight", {})[match["side"]] = tensor.shape
    for target, shapes in sides.items():
        if target not in parent.form:
            problems.append(f"{model.on!r} has no tensor {target}; the adapter was trained on another model")
            continue
        rows, columns = parent.form[target]
        if set(shapes) != {"A", "B"} or shapes["B"] != (rows, shapes["A"][0]) or shapes["A"][1] != columns:
            problems.append(
                f"{target}: LoRA shapes {shapes} do not fit the matrix of shape {(rows, columns)}"
            )
    if problems:
        raise RecipeError([f"models.{name}.adapter: {model.place}: {problem}" for problem in problems])
    fold = FoldAdapter({file.name: file.sha256 or file.git_blob for file in locked.files})

    def part(label: str, run: tuple[Tensor, ...]) -> Part:
        computed = any(tensor.action != "copy" for tensor in run)
        code = ADAPTER_CODE if computed else COPY
        return plan_part(name, label, fold if computed else TakeOver("adapter"), run, code)

    return parts_like(parent, set(sides), "adapter", max_bytes, part)


def unsupported(config: dict[str, Any]) -> list[str]:
    """Return the settings of an adapter that rule out folding it in exactly, one line each."""
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
