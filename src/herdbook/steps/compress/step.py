"""The compress step: one shard of a model in a format for GPU servers or Macs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from herdbook.plan.operation import CompressTensors
from herdbook.progress import track
from herdbook.quantization.schemes import SCHEMES
from herdbook.steps.inputs import ParentShards
from herdbook.weights.checkpoint import Produced, write_shard
from herdbook.weights.dtypes import FLOATING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from herdbook.plan import Origin, Part, Plan, Tensor
    from herdbook.quantization.scheme import Scheme
    from herdbook.weights.record import SliceEntry, TensorEntry


def compress(plan: Plan, part: Part) -> None:
    """Make a shard: matrices are encoded, and everything else is copied.

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

        produced = map(make, part.tensors)
        write_shard(plan.layout.shard(part), plan.layout.record(part), produced, part.about, operation.header)


def _encoded(
    parents: ParentShards, tensor: Tensor, scheme: Scheme, advance: Callable[[], object]
) -> Produced:
    """Return one of the tensors that a matrix is stored as, or those of several matrices that are stacked."""
    entry: TensorEntry = {"action": "compress"}
    if not tensor.slices:
        entry["from"] = parents.cite(tensor.origins)

    def chunks() -> Iterator[bytes]:
        slices: list[SliceEntry] = []
        for name, origin in zip(tensor.slices or (tensor.name,), tensor.origins, strict=True):
            digest = hashlib.sha256()
            for piece in _pieces(parents, origin, tensor, scheme):
                digest.update(piece)
                yield piece
            shape = list(tensor.shape[1:])
            cited = parents.cite((origin,))
            slices.append({"name": name, "shape": shape, "sha256": digest.hexdigest(), "from": cited})
        if tensor.slices:
            entry["slices"] = slices
        advance()

    return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, entry)


def _pieces(parents: ParentShards, origin: Origin, tensor: Tensor, scheme: Scheme) -> Iterator[bytes]:
    from herdbook.steps.compress.encode import blocks
    from herdbook.weights.tensors import finite_bytes, from_bytes, to_bytes

    what = f"tensor {origin.tensor}"
    span = parents.shard(origin.part).span(origin.tensor)
    matrix = from_bytes(parents.read(origin), span.dtype, span.shape, what)
    for rows in blocks(matrix, scheme, tensor.name.rpartition(".")[2]):
        yield finite_bytes(rows, f"{what}, encoded") if tensor.dtype in FLOATING else to_bytes(rows)
