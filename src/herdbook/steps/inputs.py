"""Reading a part's parents: tensors out of other parts' shards, each checked against its record while it is read."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from herdbook.errors import CheckpointError, DigestMismatchError
from herdbook.weights.checkpoint import Produced, read_header, read_record, read_span, stream_span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from herdbook.plan import Origin, Part, Plan, Tensor
    from herdbook.weights.checkpoint import Span


class ShardFile:
    """A shard that was made, and its record; both are read when they are first needed."""

    def __init__(self, path: Path, record_path: Path) -> None:
        self.path, self.record_path = path, record_path

    @cached_property
    def spans(self) -> dict[str, Span]:
        """Where its tensors lie."""
        return read_header(self.path)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What its record says."""
        return read_record(self.record_path)

    def span(self, tensor: str) -> Span:
        """Return where a tensor lies. Raises CheckpointError if it is not there."""
        if tensor not in self.spans:
            raise CheckpointError(f"{self.path}: has no tensor {tensor}. Delete it and build it again.")
        return self.spans[tensor]

    def sha256(self, tensor: str) -> str:
        """Return the digest that the record has for a tensor. Raises CheckpointError if it has none."""
        entry = self.record["tensors"].get(tensor)
        if entry is None:
            raise CheckpointError(
                f"{self.record_path}: says nothing of tensor {tensor}. Delete it and build it again."
            )
        return str(entry["sha256"])


class ParentShards:
    """The shards that a plan's parts are made from."""

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
            CheckpointError: If it is missing or cut off.
            DigestMismatchError: If it is not what its record says.
        """
        shard = self.shard(origin.part)
        data = read_span(shard.path, shard.span(origin.tensor))
        self._compare(shard, origin, hashlib.sha256(data).hexdigest())
        return data

    def cite(self, origins: tuple[Origin, ...]) -> list[dict[str, str]]:
        """Return what a record says of the tensors that something was made from."""
        cited = []
        for origin in origins:
            part: Part = self._plan.parts[origin.part]
            sha256 = self.shard(origin.part).sha256(origin.tensor)
            cited.append({"model": part.model, "key": part.key, "tensor": origin.tensor, "sha256": sha256})
        return cited

    def stream(self, origin: Origin) -> Iterator[bytes]:
        """Yield a parent's tensor in pieces.

        Raises:
            CheckpointError: If it is missing or cut off.
            DigestMismatchError: After the last piece, if it is not what its record says.
        """
        shard, digest = self.shard(origin.part), hashlib.sha256()
        for piece in stream_span(shard.path, shard.span(origin.tensor)):
            digest.update(piece)
            yield piece
        self._compare(shard, origin, digest.hexdigest())

    def copy(self, tensor: Tensor, advance: Callable[[], object] = lambda: None) -> Produced:
        """Return a tensor that is its one parent's, byte for byte; ``advance`` is called when it is through."""
        (origin,) = tensor.origins
        shard = self.shard(origin.part)
        span = shard.span(origin.tensor)

        def chunks() -> Iterator[bytes]:
            yield from stream_span(shard.path, span)
            advance()

        return Produced(
            tensor.name,
            tensor.dtype,
            tensor.shape,
            chunks,
            {"action": "copy", "from": self.cite(tensor.origins)},
            expected=shard.sha256(origin.tensor),
        )

    def _compare(self, shard: ShardFile, origin: Origin, found: str) -> None:
        expected = shard.sha256(origin.tensor)
        if found != expected:
            raise DigestMismatchError(
                f"{shard.path}: tensor {origin.tensor}",
                expected,
                found,
                "The file was damaged: delete it and run again.",
            )
