"""Planning an adapter: its matrices are folded into those of the model, everything else is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.form import HEAD
from herdbook.architectures.lora import changes_of
from herdbook.architectures.meaning import is_tied
from herdbook.architectures.patterns import endless
from herdbook.errors import RecipeError
from herdbook.plan.adapter_fit import TIED, misfits, missing
from herdbook.plan.adapter_settings import unsupported
from herdbook.plan.code import COPY, Code
from herdbook.plan.operation import FoldAdapter, TakeOver
from herdbook.plan.part import parts_like, plan_part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.architectures.lora import Role
    from herdbook.lock import LockedAdapter
    from herdbook.plan.model import Node, Part, Tensor
    from herdbook.recipe import Adapter

ADAPTER_CODE = Code("adapter", ("herdbook.steps.adapter.step",))
FLOATING = ("F64", "F32", "F16", "BF16")


def plan_adapter(
    name: str, model: Adapter, locked: LockedAdapter, parent: Node, max_bytes: int
) -> tuple[Part, ...]:
    """Return the parts of a model with an adapter folded in.

    Raises:
        RecipeError: If the adapter does not fit the model, or is of a kind that cannot be folded in exactly.
    """
    changes, unknown = changes_of(tensor.name for tensor in locked.tensors)
    problems = unsupported(locked.config)
    problems += [f"tensor {tensor} is not one of a LoRA adapter, and is not supported" for tensor in unknown]
    problems += [
        f"tensor {tensor.name} has dtype {tensor.dtype}; expected one of {', '.join(FLOATING)}"
        for tensor in locked.tensors
        if tensor.dtype not in FLOATING
    ]
    modules = dict.fromkeys(tensor.rpartition(".")[0] for tensor in parent.form)
    if not problems and (problem := endless(locked.config, modules)):
        problems.append(problem)
    shapes = {tensor.name: tensor.shape for tensor in locked.tensors}
    for target, roles in changes.items():
        if target == HEAD and is_tied(parent.config):
            problems.append(TIED.format(target))
        elif target not in parent.form:
            problems.append(f"{model.on!r} has no tensor {target}; {_why_not(roles)}")
        elif not problems:
            found = {role: shapes[tensor] for role, tensor in roles.items()}
            problems += misfits(locked.config, parent, target, found, changes)
    if not problems:
        problems += missing(locked.config, parent, changes)
    if problems:
        raise RecipeError([f"models.{name}.adapter: {model.place}: {problem}" for problem in problems])
    fold = FoldAdapter({file.name: file.sha256 or file.git_blob for file in locked.files})

    def part(label: str, run: tuple[Tensor, ...]) -> Part:
        computed = any(tensor.action != "copy" for tensor in run)
        code = ADAPTER_CODE if computed else COPY
        return plan_part(name, label, fold if computed else TakeOver("adapter"), run, code)

    return parts_like(parent, set(changes), "adapter", max_bytes, part)


def _why_not(roles: Iterable[Role]) -> str:
    """Return why an adapter may change a tensor that the model does not have."""
    if set(roles) == {"bias"}:
        return "PEFT does not merge a LoRA bias (lora_bias) into a module without a bias either"
    return "the adapter was trained on another model"
