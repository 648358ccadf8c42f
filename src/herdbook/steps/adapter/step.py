"""The adapter step: one shard of a model with an adapter folded in."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from herdbook import hub
from herdbook.architectures.lora import scale_of
from herdbook.lock import ADAPTER_WEIGHTS, check_pinned
from herdbook.plan.operation import FoldAdapter
from herdbook.progress import track
from herdbook.recipe import Adapter, Hub
from herdbook.steps.inputs import ParentShards
from herdbook.weights.checkpoint import Produced, read_header, read_span, write_shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.lock import LockedFile
    from herdbook.plan import Part, Plan, Tensor


def adapter(plan: Plan, part: Part) -> None:
    """Make a shard: the adapter is folded into its matrices, and everything else is copied.

    Raises:
        LockError: If the adapter's files are not those that were locked.
        SourceError: If they cannot be read or downloaded.
        CheckpointError: If a tensor is damaged; it is named.
    """
    parents = ParentShards(plan)
    with track(f"adapter {part.id}", sum(tensor.action != "copy" for tensor in part.tensors)) as advance:
        folding = _Folding(plan, part, parents, advance) if isinstance(part.operation, FoldAdapter) else None

        def make(tensor: Tensor) -> Produced:
            if tensor.action == "copy" or folding is None:
                return parents.copy(tensor)
            entry: dict[str, Any] = {}
            chunks = partial(folding.make, tensor, entry)
            return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, entry)

        write_shard(plan.layout.shard(part), plan.layout.record(part), map(make, part.tensors), part.about)


def _locate(plan: Plan, part: Part, model: Adapter, pinned: LockedFile) -> Path:
    """Return the path of a file of the adapter, after comparing its digest."""
    if isinstance(model.adapter, Hub):
        repo, revision = model.adapter.hub.partition("@")[0], plan.lock.adapters[part.model].revision
        remote = hub.RemoteFile(pinned.name, pinned.size_bytes, pinned.sha256, pinned.git_blob)
        return hub.download(repo, str(revision), remote)
    path = plan.beside_recipe(model.adapter) / pinned.name
    check_pinned(path, pinned, f"models.{part.model}.adapter")
    return path


class _Folding:
    def __init__(self, plan: Plan, part: Part, parents: ParentShards, advance: Any) -> None:
        model = plan.nodes[part.model].recipe
        assert isinstance(model, Adapter)  # noqa: S101 - the plan made this part from an adapter
        locked = plan.lock.adapters[part.model]
        files = {pinned.name: _locate(plan, part, model, pinned) for pinned in locked.files}
        self.parents, self.advance, self.config = parents, advance, locked.config
        self.weights = files[ADAPTER_WEIGHTS]
        self.spans = read_header(self.weights)

    def make(self, tensor: Tensor, entry: dict[str, Any]) -> Iterator[bytes]:
        """Yield the bytes of a folded matrix, and complete its entry in the record."""
        from herdbook.steps.adapter.fold import fold
        from herdbook.weights.tensors import from_bytes, to_bytes

        (origin,) = tensor.origins
        module = tensor.name.removesuffix(".weight")
        sides = []
        for side in "AB":
            span = self.spans[f"base_model.model.{module}.lora_{side}.weight"]
            sides.append(
                from_bytes(
                    read_span(self.weights, span), span.dtype, span.shape, f"{self.weights}: {span.name}"
                )
            )
        scale = scale_of(self.config, module)
        weight = from_bytes(self.parents.read(origin), tensor.dtype, tensor.shape, f"tensor {origin.tensor}")
        folded = fold(weight, sides[0], sides[1], scale)
        entry.update(
            {
                "action": "adapter",
                "from": self.parents.cite(tensor.origins),
                "rank": len(sides[0]),
                "scale": scale,
            }
        )
        yield to_bytes(folded)
        self.advance()
