"""The compress step: one shard of a model in a format for GPU servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.plan.operation import CompressTensors
from herdbook.progress import track
from herdbook.quantization.schemes import SCHEMES
from herdbook.steps.inputs import ParentShards
from herdbook.weights.checkpoint import Produced, write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from herdbook.plan import Part, Plan, Tensor
    from herdbook.quantization.schemes import Scheme
    from herdbook.weights.record import TensorEntry


def compress(plan: Plan, part: Part) -> None:
    """Make a shard: the matrices of its linear layers are encoded, and everything else is copied.

    One matrix at a time is in memory.

    Raises:
        CheckpointError: If a tensor is damaged, or has values that are NaN or infinite; it is named.
        DigestMismatchError: If a tensor differs from its record.
    """
    parents, operation = ParentShards(plan), part.operation
    scheme = SCHEMES[operation.scheme] if isinstance(operation, CompressTensors) else None
    with track(f"compress {part.id}", len(part.tensors)) as advance:

        def make(tensor: Tensor) -> Produced:
            if tensor.action == "copy" or scheme is None:
                return parents.copy(tensor, advance)
            return _encoded(parents, tensor, scheme, advance)

        write_shard(plan.layout.shard(part), plan.layout.record(part), map(make, part.tensors), part.about)


def _encoded(
    parents: ParentShards, tensor: Tensor, scheme: Scheme, advance: Callable[[], object]
) -> Produced:
    """Return one of the tensors that a matrix is stored as."""
    (origin,) = tensor.origins
    entry: TensorEntry = {"action": "compress", "from": parents.cite(tensor.origins)}

    def chunks() -> Iterator[bytes]:
        from herdbook.steps.compress.encode import encode
        from herdbook.weights.tensors import from_bytes, to_bytes

        span = parents.shard(origin.part).span(origin.tensor)
        matrix = from_bytes(parents.read(origin), span.dtype, span.shape, f"tensor {origin.tensor}")
        yield to_bytes(encode(matrix, scheme)[tensor.name.rpartition(".")[2]])
        advance()

    return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, entry)
