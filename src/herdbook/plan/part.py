"""Making parts: the key of one, and a model of its parent's form cut into some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.key import digest
from herdbook.plan.model import Origin, Part, Tensor
from herdbook.plan.sharding import cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.plan.code import Code
    from herdbook.plan.model import Node
    from herdbook.plan.operation import Action, Operation


def plan_part(model: str, label: str, operation: Operation, tensors: tuple[Tensor, ...], code: Code) -> Part:
    """Return a part with its key.

    Args:
        model: Name of the model that it belongs to.
        label: What it holds, unique in the model.
        operation: How it is made.
        tensors: What it holds.
        code: What the result depends on beyond its inputs.
    """
    described = code.describe()
    content = {
        "operation": operation.rule,
        "parameters": operation.canonical,
        "code": described,
        "tensors": [_canonical(tensor) for tensor in tensors],
    }
    return Part(model, label, operation, digest(content), tensors, described)


def _canonical(tensor: Tensor) -> list[Any]:
    """Return a tensor as a key has it: name, dtype, shape, action, the origins in order, and the slices if it has any."""
    return [
        tensor.name,
        tensor.dtype,
        list(tensor.shape),
        tensor.action,
        [[origin.part, origin.tensor] for origin in tensor.origins],
        *([list(tensor.slices)] if tensor.slices else []),
    ]


def parts_like(
    parent: Node,
    remade: set[str],
    action: Action,
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
