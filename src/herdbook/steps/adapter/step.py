"""The adapter step: one shard of a model with an adapter folded in."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.architectures.lora import changes_of, scale_of, token_indices
from herdbook.errors import CheckpointError
from herdbook.lock import ADAPTER_WEIGHTS, check_pinned
from herdbook.plan.operation import FoldAdapter
from herdbook.progress import track
from herdbook.recipe import Adapter, Hub
from herdbook.steps.inputs import ParentShards
from herdbook.weights.checkpoint import Produced, read_header, read_span, write_shard
from herdbook.weights.finite import all_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

    from herdbook.architectures.lora import Role
    from herdbook.lock import LockedFile
    from herdbook.plan import Part, Plan, Tensor
    from herdbook.weights.record import TensorEntry


def adapter(plan: Plan, part: Part) -> None:
    """Make a shard: the adapter is folded into its tensors, and everything else is copied.

    Raises:
        LockError: If the adapter's files are not those that were locked.
        SourceError: If they cannot be read or downloaded.
        CheckpointError: If a tensor is damaged, or becomes NaN or infinite; it is named.
    """
    parents = ParentShards(plan)
    with track(f"adapter {part.id}", sum(tensor.action != "copy" for tensor in part.tensors)) as advance:
        folding = _Folding(plan, part, parents, advance) if isinstance(part.operation, FoldAdapter) else None

        def make(tensor: Tensor) -> Produced:
            if tensor.action == "copy" or folding is None:
                return parents.copy(tensor)
            entry: TensorEntry = {"action": "adapter"}
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
    def __init__(self, plan: Plan, part: Part, parents: ParentShards, advance: Callable[[], None]) -> None:
        model = plan.nodes[part.model].recipe
        assert isinstance(model, Adapter)  # noqa: S101 - the plan made this part from an adapter
        locked = plan.lock.adapters[part.model]
        files = {pinned.name: _locate(plan, part, model, pinned) for pinned in locked.files}
        self.parents, self.advance, self.config = parents, advance, locked.settings
        self.weights = files[ADAPTER_WEIGHTS]
        self.spans = read_header(self.weights)
        self.changes, _ = changes_of(self.spans)

    def make(self, tensor: Tensor, entry: TensorEntry) -> Iterator[bytes]:
        """Yield the bytes of a changed tensor, and complete its entry in the record."""
        from herdbook.weights.tensors import DTYPES, from_bytes, to_bytes

        (origin,) = tensor.origins
        roles = self.changes[tensor.name]
        entry["from"] = self.parents.cite(tensor.origins)
        if "base" in roles:
            weight = self._read(roles["base"])
        else:
            what = f"tensor {origin.tensor}"
            weight = from_bytes(self.parents.read(origin), tensor.dtype, tensor.shape, what)
        data = to_bytes(self._changed(tensor.name, weight, roles, entry).to(DTYPES[tensor.dtype]))
        if not all_finite(data, tensor.dtype):
            raise CheckpointError(
                f"tensor {tensor.name}: the adapter makes values that are NaN, infinite, or too large for {tensor.dtype}"
            )
        yield data
        self.advance()

    def _changed(
        self, name: str, weight: torch.Tensor, roles: dict[Role, str], entry: TensorEntry
    ) -> torch.Tensor:
        """Return what becomes of a tensor, before it is rounded; complete its entry in the record."""
        import torch

        from herdbook.steps.adapter.fold import fold

        module = name.rpartition(".")[0]
        given = {role: self._read(tensor) for role, tensor in roles.items()}
        if given.keys() <= {"saved", "base"}:
            entry["change"] = "replaced"
            return given.get("saved", weight)
        if "tokens" in given:
            entry |= {"change": "tokens", "tokens": token_indices(self.config, module)}
            rows = torch.tensor(entry["tokens"])
            return weight.index_copy(0, rows, given["tokens"].to(weight.dtype))
        scale = scale_of(self.config, module)
        if "bias" in given:
            entry |= {"change": "bias", "scale": scale}
            return weight.to(torch.float64) + scale * given["bias"].to(torch.float64)
        magnitude = given.get("magnitude")
        if magnitude is not None:
            entry["change"] = "dora"
        if "embedding_A" in given:
            lora_a, lora_b = given["embedding_A"], given["embedding_B"]
            folded = fold(weight.T, lora_a, lora_b, scale, magnitude).T
        else:
            lora_a, lora_b = given["A"], given["B"]
            folded = fold(weight, lora_a, lora_b, scale, magnitude)
        entry |= {"rank": len(lora_a), "scale": scale}
        return folded

    def _read(self, name: str) -> torch.Tensor:
        from herdbook.weights.tensors import from_bytes

        span = self.spans[name]
        return from_bytes(read_span(self.weights, span), span.dtype, span.shape, f"{self.weights}: {name}")
