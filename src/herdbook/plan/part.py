"""Making parts: the key of a part, and cutting a model of its parent's form into parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.key import digest
from herdbook.plan.model import Origin, Part, Tensor
from herdbook.plan.sharding import cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.plan.code import Code
    from herdbook.plan.model import Node
    from herdbook.plan.operation import Operation
    from herdbook.weights.record import Action


def plan_part(model: str, label: str, operation: Operation, tensors: tuple[Tensor, ...], code: Code) -> Part:
    """Return a part with its key.

    Args:
        model: Name of the model that it belongs to.
        label: A name that is unique in the model.
        operation: How it is made.
        tensors: The tensors that it contains.
        code: The code that the result depends on.
    """
    described = code.describe()
    content = {
        "operation": operation.rule,
        "parameters": operation.canonical,
        "code": described.json,
        "tensors": [_canonical(tensor) for tensor in tensors],
    }
    return Part(model, label, operation, digest(content), tensors, described)


def _canonical(tensor: Tensor) -> list[Any]:
    """Return a tensor's form in a key: name, dtype, shape, action, the origins in order, and the slices if it has any."""
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
    computed: set[str],
    action: Action,
    max_bytes: int,
    part: Callable[[str, tuple[Tensor, ...]], Part],
) -> tuple[Part, ...]:
    """Cut a model of its parent's form into parts.

    Args:
        parent: The parent.
        computed: Names of the tensors that are computed; the others are copied.
        action: The action that computes them.
        max_bytes: See ``cut``.
        part: Returns the part with a label and tensors.
    """
    tensors = [
        Tensor(
            tensor,
            planned.dtype,
            planned.shape,
            action if tensor in computed else "copy",
            (Origin(holder.key, tensor),),
        )
        for tensor, (holder, planned) in parent.tensors.items()
    ]
    return tuple(part(str(index), run) for index, run in enumerate(cut(tensors, max_bytes), start=1))
