"""The merge step: one shard of a dense merge, tensor by tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from herdbook.errors import CheckpointError, StepError
from herdbook.plan.operation import MergeTensors
from herdbook.progress import track
from herdbook.steps.inputs import ParentShards
from herdbook.weights.checkpoint import Produced, write_shard
from herdbook.weights.finite import all_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from herdbook.plan import Part, Plan, Tensor
    from herdbook.weights.record import TensorEntry


def merge(plan: Plan, part: Part) -> None:
    """Make a shard.

    Raises:
        CheckpointError: If a parent's tensor is damaged, or the result exceeds the range of its dtype; it is named.
        StepError: If the method has no result for a tensor; it is named.
    """
    operation = part.operation
    parents = ParentShards(plan)
    if isinstance(operation, MergeTensors):
        import torch

        torch.set_num_threads(1)  # sums over a tensor depend on the number of threads that share them
    with track(f"merge {part.id}", len(part.tensors)) as advance:
        tensors = (
            _merged(parents, tensor, operation, advance)
            if isinstance(operation, MergeTensors) and tensor.action != "copy"
            else parents.copy(tensor, advance)
            for tensor in part.tensors
        )
        write_shard(plan.layout.shard(part), plan.layout.record(part), tensors, part.about)


def _merged(
    parents: ParentShards, tensor: Tensor, operation: MergeTensors, advance: Callable[[], None]
) -> Produced:
    values = operation.values[tensor.name]
    if tensor.action == "rows":
        from herdbook.steps.aligned import put_together

        return put_together(parents, tensor, values["rows"], advance)
    entry: TensorEntry = {"action": "merge", "method": operation.method, "from": parents.cite(tensor.origins)}
    entry.update(cast("TensorEntry", values))

    def chunks() -> Iterator[bytes]:
        from herdbook.weights.tensors import DTYPES, from_bytes, to_bytes

        inputs = []
        for origin in tensor.origins:
            span = parents.shard(origin.part).span(origin.tensor)
            inputs.append(from_bytes(parents.read(origin), span.dtype, span.shape, f"tensor {origin.tensor}"))
        data = to_bytes(merged_tensor(operation, inputs, tensor).to(DTYPES[tensor.dtype]))
        if not all_finite(data, tensor.dtype):
            raise CheckpointError(
                f"tensor {tensor.name}: the merge has values that {tensor.dtype} cannot represent; check the weights, or "
                "choose bfloat16 or float32 as dtype"
            )
        yield data
        advance()

    return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, entry)


def merged_tensor(operation: MergeTensors, inputs: list[torch.Tensor], tensor: Tensor) -> torch.Tensor:
    """Return a merged tensor in the dtype that it was computed in.

    Raises:
        StepError: If a method has no result for these tensors.
    """
    values, settings = dict(operation.values[tensor.name]), operation.settings
    rows = values.pop("rows", None)
    if "semantics" not in settings:
        from herdbook.steps.merge.methods import merge_tensors
        from herdbook.weights.tensors import DTYPES

        inputs = _lined_up(inputs, rows, tensor, DTYPES["F32"])
        return merge_tensors(operation.method, inputs, tensor.name, values, settings)
    from functools import reduce

    import torch

    from herdbook.steps.merge.as_mergekit import merge_as_mergekit
    from herdbook.weights.tensors import DTYPES

    # the dtype that the recipe sets; otherwise one that holds the numbers of all models
    given = settings.get("dtype")
    dtype = DTYPES[str(given)] if given else reduce(torch.promote_types, (one.dtype for one in inputs))
    inputs = _lined_up([one.to(dtype) for one in inputs], rows, tensor, dtype)
    try:
        return merge_as_mergekit(operation.method, inputs, tensor.name, {**settings, **values})
    except ArithmeticError as error:
        raise StepError(f"tensor {tensor.name}: {operation.method}: {error}") from error


def _lined_up(
    inputs: list[torch.Tensor], rows: Sequence[Any] | None, tensor: Tensor, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Return the models' tensors with a row for each token, if their tokens have other rows."""
    if rows is None:
        return inputs
    from herdbook.steps.aligned import line_up

    return [line_up(dict(enumerate(inputs)), runs, tensor.shape[1:], dtype) for runs in rows]
