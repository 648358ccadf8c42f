"""The merge step: one shard of a dense merge, tensor by tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.errors import CheckpointError
from herdbook.plan.operation import MergeTensors, RunMergekit
from herdbook.progress import track
from herdbook.steps.inputs import ParentShards
from herdbook.weights.checkpoint import Produced, write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from herdbook.plan import Part, Plan, Tensor


def merge(plan: Plan, part: Part) -> None:
    """Make a shard.

    Raises:
        CheckpointError: If a parent's tensor is damaged, or the result exceeds the range of its dtype; it is named.
        StepError: If the method is mergekit's, and mergekit is not installed or fails.
    """
    operation = part.operation
    if isinstance(operation, RunMergekit):
        from herdbook.steps.merge.run_mergekit import mergekit

        mergekit(plan, part, operation)
        return
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
    entry = {
        "action": "merge",
        "method": operation.method,
        **values,
        "from": parents.cite(tensor.origins),
    }

    def chunks() -> Iterator[bytes]:
        from herdbook.steps.merge.methods import merge_tensors
        from herdbook.weights.tensors import DTYPES, from_bytes, to_bytes

        inputs = []
        for origin in tensor.origins:
            span = parents.shard(origin.part).span(origin.tensor)
            inputs.append(from_bytes(parents.read(origin), span.dtype, span.shape, f"tensor {origin.tensor}"))
        if "rows" in values:
            from herdbook.steps.aligned import line_up

            given, width = dict(enumerate(inputs)), tensor.shape[1:]
            inputs = [line_up(given, runs, width, DTYPES["F32"]) for runs in values["rows"]]
        result = merge_tensors(operation.method, inputs, tensor.name, values, operation.settings).to(
            DTYPES[tensor.dtype]
        )
        if not result.isfinite().all():
            raise CheckpointError(
                f"tensor {tensor.name}: the merge has values that {tensor.dtype} cannot represent; check the weights, or "
                "choose bfloat16 or float32 as dtype"
            )
        yield to_bytes(result)
        advance()

    return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, entry)
