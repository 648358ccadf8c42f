"""The laser step: one shard of a lasered model, tensor by tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.checkpoint import Produced, write_shard
from herdbook.parents import Parents
from herdbook.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Part, Plan, Tensor


def laser(plan: Plan, part: Part) -> None:
    """Make a shard: chosen matrices reduced, everything else copied.

    Raises:
        CheckpointError: If a parent's tensor is damaged, or holds NaN or infinite values; it is named.
    """
    parents = Parents(plan)
    rank = part.parameters.get("rank")
    with track(f"laser {part.id}", sum(tensor.action != "copy" for tensor in part.tensors)) as advance:

        def make(tensor: Tensor) -> Produced:
            if tensor.action == "copy":
                return parents.copy(tensor)
            made: dict[str, Any] = {}
            return Produced(
                tensor.name,
                tensor.dtype,
                tensor.shape,
                lambda: _reduced(parents, tensor, rank, made, advance),
                made,
            )

        about = {"operation": "laser", "key": part.key, "code": part.code, "parameters": part.parameters}
        write_shard(plan.layout.shard(part), plan.layout.record(part), map(make, part.tensors), about)


def _reduced(
    parents: Parents, tensor: Tensor, rank: Any, made: dict[str, Any], advance: Any
) -> Iterator[bytes]:
    from herdbook.laser.reduce import reduce
    from herdbook.tensors import from_bytes, to_bytes

    (origin,) = tensor.origins
    what = f"tensor {origin.tensor} of {parents.shard(origin.part).path}"
    found = reduce(from_bytes(parents.read(origin), tensor.dtype, tensor.shape, what), rank)
    made.update(
        {
            "action": "laser",
            "from": parents.cite(tensor.origins),
            "rank": found.rank,
            "of": found.of,
            "energy": round(found.energy, 6),
            "change": round(found.change, 6),
            "noise_edge": float(f"{found.noise_edge:.6g}"),
        }
    )
    yield to_bytes(found.matrix)
    advance()
