"""The moe step: one shard of a Mixture of Experts. Most are renamed copies; the routers' alone is computed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from herdbook.checkpoint import Produced, write_shard
from herdbook.parents import Parents
from herdbook.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from herdbook.plan import Part, Plan, Tensor


def moe(plan: Plan, part: Part) -> None:
    """Make a shard.

    Raises:
        CheckpointError: If a parent's tensor is damaged; it is named.
        StepError: If a prompt cannot be used.
    """
    about = {"operation": "moe", "key": part.key, "code": part.code, "parameters": part.parameters}
    made = _routers(plan, part) if part.label == "routers" else _taken(plan, part)
    write_shard(plan.layout.shard(part), plan.layout.record(part), made, about)


def _taken(plan: Plan, part: Part) -> Iterator[Produced]:
    parents = Parents(plan)
    for tensor in part.tensors:
        yield parents.copy(tensor) if tensor.action == "copy" else _cast(parents, tensor)


def _cast(parents: Parents, tensor: Tensor) -> Produced:
    def chunks() -> Iterator[bytes]:
        from herdbook.moe.cast import cast

        (origin,) = tensor.origins
        span = parents.shard(origin.part).span(origin.tensor)
        yield cast(parents.read(origin), span.dtype, span.shape, tensor.dtype, f"tensor {origin.tensor}")

    made = {"action": "cast", "from": parents.cite(tensor.origins)}
    return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, made)


def _routers(plan: Plan, part: Part) -> Iterator[Produced]:
    from herdbook.moe.router import random_rows, router_rows
    from herdbook.tensors import DTYPES, to_bytes

    gate = part.parameters["gate"]
    made = {"action": "router", "gate": gate}
    rows: Iterator[torch.Tensor]
    if part.folders:
        folder = plan.layout.folder(plan.by_key[part.folders[0]])
        prompts = [(both[0], both[1]) for both in part.parameters["prompts"]]
        rows = router_rows(gate, folder, prompts, len(part.tensors))
    else:
        seed = part.parameters["seed"]
        rows = (random_rows(gate, t.name, (t.shape[0], t.shape[1]), seed) for t in part.tensors)
    with track(f"moe {part.id}", len(part.tensors)) as advance:
        # The routers are small: they are all made before the first is written, layer by layer.
        for tensor, row in itertools.islice(zip(part.tensors, rows, strict=False), len(part.tensors)):
            data = to_bytes(row.to(DTYPES[tensor.dtype]))
            advance()
            yield Produced(tensor.name, tensor.dtype, tensor.shape, _constant(data), dict(made))


def _constant(data: bytes) -> Any:
    return lambda: [data]
