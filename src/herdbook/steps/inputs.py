"""Reading a part's parents: tensors from other parts' shards, each checked against its record while it is read."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

from herdbook.errors import CheckpointError, DigestMismatchError
from herdbook.weights.checkpoint import CHANGED, Produced, read_header, read_span, stream_span
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from herdbook.plan import Origin, Plan, Tensor
    from herdbook.weights.checkpoint import Span
    from herdbook.weights.digests import Piece
    from herdbook.weights.record import CitedTensor, Record


class ShardFile:
    """A finished shard and its record; both are read when they are first needed."""

    def __init__(self, path: Path, record_path: Path) -> None:
        self.path, self.record_path = path, record_path

    @cached_property
    def spans(self) -> dict[str, Span]:
        """The dtype, shape and position of its tensors, by name."""
        return read_header(self.path)

    @cached_property
    def record(self) -> Record:
        """Its record."""
        return read_record(self.record_path)

    def span(self, tensor: str) -> Span:
        """Return the span of a tensor. Raises CheckpointError if the shard does not contain it."""
        if tensor not in self.spans:
            raise CheckpointError(f"{self.path}: has no tensor {tensor}. Delete it and rebuild it.")
        return self.spans[tensor]

    def sha256(self, tensor: str) -> str:
        """Return a tensor's digest in the record. Raises CheckpointError if the record does not contain it."""
        entry = self.record["tensors"].get(tensor)
        if entry is None:
            raise CheckpointError(
                f"{self.record_path}: does not contain tensor {tensor}. Delete it and its shard, and rebuild."
            )
        return entry["sha256"]


class ParentShards:
    """The shards of a plan's parts, as inputs of other parts."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._shards: dict[str, ShardFile] = {}

    def shard(self, key: str) -> ShardFile:
        """Return the shard of the part with this key."""
        if key not in self._shards:
            part = self._plan.parts[key]
            self._shards[key] = ShardFile(self._plan.layout.shard(part), self._plan.layout.record(part))
        return self._shards[key]

    def read(self, origin: Origin) -> bytearray:
        """Return a parent's tensor as bytes.

        Raises:
            CheckpointError: If it is missing or truncated.
            DigestMismatchError: If it differs from its record.
        """
        shard = self.shard(origin.part)
        data = read_span(shard.path, shard.span(origin.tensor))
        self._compare(shard, origin, hashlib.sha256(data).hexdigest())
        return data

    def cite(self, origins: tuple[Origin, ...]) -> list[CitedTensor]:
        """Return the entries of a record for the tensors that something was made from.

        Parents are cited by key: a record that named them would be out of date once a recipe gives them other names, since
        the key of what is made from them stays.
        """
        return [
            {
                "key": origin.part,
                "tensor": origin.tensor,
                "sha256": self.shard(origin.part).sha256(origin.tensor),
            }
            for origin in origins
        ]

    def stream(self, origin: Origin) -> Iterator[Piece]:
        """Yield a parent's tensor in pieces, as ``stream_span`` does.

        Raises:
            CheckpointError: If it is missing or truncated.
            DigestMismatchError: After the last piece, if it differs from its record.
        """
        shard, digest = self.shard(origin.part), hashlib.sha256()
        for piece in stream_span(shard.path, shard.span(origin.tensor)):
            digest.update(piece)
            yield piece
        self._compare(shard, origin, digest.hexdigest())

    def copy(self, tensor: Tensor, advance: Callable[[], object] = lambda: None) -> Produced:
        """Return a tensor that equals its one parent's, byte for byte; ``advance`` is called once it has been read."""
        (origin,) = tensor.origins
        shard = self.shard(origin.part)
        span = shard.span(origin.tensor)

        def chunks() -> Iterator[Piece]:
            yield from stream_span(shard.path, span)
            advance()

        return Produced(
            tensor.name,
            tensor.dtype,
            tensor.shape,
            chunks,
            {"action": "copy", "from": self.cite(tensor.origins)},
            expected=shard.sha256(origin.tensor),
            source=_named(shard, origin),
        )

    def _compare(self, shard: ShardFile, origin: Origin, sha256: str) -> None:
        expected = shard.sha256(origin.tensor)
        if sha256 != expected:
            raise DigestMismatchError(_named(shard, origin), expected, sha256, CHANGED)


def _named(shard: ShardFile, origin: Origin) -> str:
    return f"{shard.path}: tensor {origin.tensor}"
