"""The merge step: one shard of a dense merge, tensor by tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.errors import CheckpointError
from herdbook.progress import track
from herdbook.steps.inputs import ParentShards
from herdbook.weights.checkpoint import Produced, write_shard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Part, Plan, Tensor


def merge(plan: Plan, part: Part) -> None:
    """Make a shard.

    Raises:
        CheckpointError: If a parent's tensor is damaged, or the result leaves the range of its dtype; it is named.
        StepError: If mergekit is wanted, and is not installed or fails.
    """
    about = {"operation": "merge", "key": part.key, "code": part.code, "parameters": part.parameters}
    shard, record = plan.layout.shard(part), plan.layout.record(part)
    if "mergekit" in part.parameters:
        from herdbook.steps.merge.run_mergekit import mergekit

        mergekit(plan, part, about)
        return
    parents = ParentShards(plan)
    if part.parameters:
        import torch

        torch.set_num_threads(1)  # sums over a tensor hang on how many threads share them
    with track(f"merge {part.id}", len(part.tensors)) as advance:
        made = (
            parents.copy(tensor, advance)
            if tensor.action == "copy"
            else _merged(parents, tensor, part.parameters, advance)
            for tensor in part.tensors
        )
        write_shard(shard, record, made, about)


def _merged(parents: ParentShards, tensor: Tensor, parameters: dict[str, Any], advance: Any) -> Produced:
    values = parameters["values"][tensor.name]
    made = {
        "action": "merge",
        "method": parameters["method"],
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
        result = merge_tensors(parameters["method"], inputs, tensor.name, values, parameters).to(
            DTYPES[tensor.dtype]
        )
        if not result.isfinite().all():
            raise CheckpointError(
                f"tensor {tensor.name}: the merge has values that {tensor.dtype} cannot hold; look at the weights, or "
                "choose bfloat16 or float32 as dtype"
            )
        yield to_bytes(result)
        advance()

    return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, made)
