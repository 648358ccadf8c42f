"""The moe step: one shard of a Mixture of Experts. Most shards are renamed copies; the routers' shard is computed."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

from herdbook.architectures.mixtures import FAMILIES, MLP, expert_of
from herdbook.files import CHUNK_BYTES
from herdbook.plan.operation import DrawRouters, LineUp, MakeRouters, PerturbExperts
from herdbook.progress import track
from herdbook.steps.inputs import ParentShards
from herdbook.weights.checkpoint import Produced, write_shard
from herdbook.weights.dtypes import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import torch

    from herdbook.plan import Origin, Part, Plan, Tensor
    from herdbook.weights.digests import Piece
    from herdbook.weights.record import SliceEntry, TensorEntry

# The ends of the names of the matrices that a residual scale applies to.
DOWN = tuple({f".{family.matrices[MLP[2]]}.weight" for family in FAMILIES.values()})


def moe(plan: Plan, part: Part) -> None:
    """Make a shard.

    Raises:
        CheckpointError: If a parent's tensor is damaged; it is named.
        StepError: If a prompt cannot be used.
    """
    shard, record = plan.layout.shard(part), plan.layout.record(part)
    match part.operation:
        case MakeRouters() as make:
            write_shard(shard, record, _routers(plan, part, make), part.about)
        case DrawRouters() as draw:
            write_shard(shard, record, _random_routers(part, draw), part.about)
        case operation:
            perturbing = operation if isinstance(operation, PerturbExperts) else None
            rows = operation.rows if isinstance(operation, LineUp) else {}
            parents = ParentShards(plan)
            with track(f"moe {part.id}", sum(bool(tensor.origins) for tensor in part.tensors)) as advance:
                tensors = (_produced(parents, tensor, perturbing, rows, advance) for tensor in part.tensors)
                write_shard(shard, record, tensors, part.about)


def _produced(
    parents: ParentShards,
    tensor: Tensor,
    perturbing: PerturbExperts | None,
    rows: Mapping[str, list[list[Any]]],
    advance: Callable[[], None],
) -> Produced:
    if tensor.action == "zeros":
        return _zeros(tensor)
    if tensor.action == "rows":
        from herdbook.steps.aligned import put_together

        return put_together(parents, tensor, rows[tensor.name], advance)
    if tensor.action == "copy":
        return parents.copy(tensor, advance)
    return _altered(parents, tensor, perturbing, advance)


def _zeros(tensor: Tensor) -> Produced:
    def chunks() -> Iterator[bytes]:
        remaining = math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]
        while remaining:
            yield bytes(min(remaining, CHUNK_BYTES))
            remaining -= min(remaining, CHUNK_BYTES)

    return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, {"action": "zeros"})


def _altered(
    parents: ParentShards, tensor: Tensor, perturbing: PerturbExperts | None, advance: Callable[[], None]
) -> Produced:
    """Return a tensor that is cast or altered, or in which several tensors are stacked."""
    names = tensor.slices or (tensor.name,)
    entry: TensorEntry = {"action": tensor.action}

    def chunks() -> Iterator[Piece]:
        slices: list[SliceEntry] = []
        for name, origin in zip(names, tensor.origins, strict=True):
            span = parents.shard(origin.part).span(origin.tensor)
            digest = hashlib.sha256()
            if span.dtype == tensor.dtype and tensor.action == "stack":
                pieces: Iterable[Piece] = parents.stream(origin)
            else:
                pieces = [_computed(parents, origin, name, tensor.dtype, perturbing)]
            for piece in pieces:
                digest.update(piece)
                yield piece
            slices.append(
                {
                    "name": name,
                    "shape": list(span.shape),
                    "sha256": digest.hexdigest(),
                    "from": parents.cite((origin,)),
                }
            )
        if tensor.slices:
            entry["slices"] = slices
        else:
            entry["from"] = slices[0]["from"]
        advance()

    return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, entry)


def _computed(
    parents: ParentShards, origin: Origin, name: str, dtype: str, perturbing: PerturbExperts | None
) -> bytes:
    """Return a matrix in a dtype, with the noise and scale of its expert if it has any."""
    from herdbook.steps.moe.cast import cast
    from herdbook.weights.tensors import finite_bytes, from_bytes

    span = parents.shard(origin.part).span(origin.tensor)
    what = f"tensor {origin.tensor}"
    data: bytes | bytearray = parents.read(origin)
    if perturbing:
        from herdbook.steps.moe.perturb import perturb

        location = expert_of(name)
        scale = perturbing.scales[str(location[0]) if location else "shared"]
        residual = scale.residual if name.endswith(DOWN) else None
        tensor = from_bytes(data, span.dtype, span.shape, what)
        data = finite_bytes(
            perturb(tensor, name, perturbing.seed, scale.noise, residual), f"{what}, with noise"
        )
    return bytes(data) if span.dtype == dtype else cast(data, span.dtype, span.shape, dtype, what)


def _random_routers(part: Part, draw: DrawRouters) -> Iterator[Produced]:
    from herdbook.steps.moe.random_gate import as_bytes, random_rows

    for tensor in part.tensors:
        experts, hidden = tensor.shape
        data = as_bytes(random_rows(draw.gate, tensor.name, (experts, hidden), draw.seed), tensor.dtype)
        entry: TensorEntry = {"action": "router", "gate": draw.gate}
        yield Produced(tensor.name, tensor.dtype, tensor.shape, _constant(data), entry)


def _routers(plan: Plan, part: Part, make: MakeRouters) -> Iterator[Produced]:
    from herdbook.weights.tensors import DTYPES, finite_bytes

    entry: TensorEntry = {"action": "router", "gate": make.gate}
    heights = [tensor.shape[0] for tensor in part.tensors[: _routers_a_layer(part)]]
    layers = [
        part.tensors[start : start + len(heights)] for start in range(0, len(part.tensors), len(heights))
    ]
    # Routers are small: `write_shard` collects all of them before it writes the first.
    with track(f"moe {part.id}", len(layers)) as advance:
        for tensors, rows in zip(layers, _rows(plan, make, layers), strict=True):
            for tensor, own in zip(tensors, rows.split(heights), strict=True):
                data = finite_bytes(own.to(DTYPES[tensor.dtype]), f"tensor {tensor.name}")
                yield Produced(tensor.name, tensor.dtype, tensor.shape, _constant(data), entry)
            advance()


def _routers_a_layer(part: Part) -> int:
    """Return the number of router tensors of a layer: one, and another if shared experts have a gate."""
    return 2 if any("shared_expert_gate" in tensor.name for tensor in part.tensors) else 1


def _rows(plan: Plan, make: MakeRouters, layers: list[tuple[Tensor, ...]]) -> Iterator[torch.Tensor]:
    """Yield the rows of each layer: those of the routed experts, then those of the shared ones."""
    folder = plan.layout.folder(plan.by_key[make.base])
    prompts = [(list(positive), list(negative)) for positive, negative in make.prompts]
    if make.as_mergekit:
        from herdbook.steps.moe.mergekit_gates import mergekit_rows

        yield from mergekit_rows(make.gate, folder, prompts)
        return
    import torch

    from herdbook.steps.moe.router import router_rows

    torch.set_num_threads(1)  # sums over a tensor depend on the number of threads that share them
    kept = plan.layout.states(make.base)
    yield from router_rows(
        make.gate, folder, prompts, len(layers), chat_template=make.chat_template, kept=kept
    )


def _constant(data: bytes) -> Any:
    return lambda: [data]
