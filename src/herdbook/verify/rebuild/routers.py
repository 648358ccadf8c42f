"""Recompute a mixture's routers: from the release's own bytes where it contains the inputs, else from upstream."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from herdbook import humanize
from herdbook.errors import UnverifiedError
from herdbook.files import atomic_writer, write_json
from herdbook.layout import CONFIG, LINEAGE, WEIGHTS
from herdbook.plan import Origin
from herdbook.plan.alignment import own_vocabulary
from herdbook.plan.folder import files_origin
from herdbook.plan.operation import DrawRouters, MakeRouters
from herdbook.recipe.moe import GATES
from herdbook.release.reader import damaged
from herdbook.verify.rebuild.tensors import recompute
from herdbook.weights.checkpoint import Produced, read_header, read_span, stream_span, write_shard
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from herdbook.plan import Node, Part, Plan
    from herdbook.provenance.lineage import LineageSlice
    from herdbook.release.finding import Check, Finding, Options
    from herdbook.release.reader import Release
    from herdbook.verify.rebuild.workspace import Workspace
    from herdbook.weights.digests import Piece

PIECE_BYTES = 1 << 24
# Kernels of other processors sum in another order. In float32 the effect is far smaller than the rounding to the weights'
# dtype; in bfloat16, which mergekit's bits require, it is larger.
ROUTER_TOLERANCE = {"BF16": 2.0**-7, "F16": 2.0**-9, "F32": 2.0**-12}


def routers(workspace: Workspace, release: Release, options: Options, check: Check) -> Iterator[Finding]:
    """Recompute the routers and compare them.

    Yields:
        A finding for each router that differs, and one for all the others.
    """
    plan = workspace.plan
    found = _released(plan)
    if not found:
        yield check.passed(plan.released.name, "has no routers")
    for key, names in found.items():
        yield from _compared(workspace, release, options, check, plan.parts[key], names)


def _released(plan: Plan) -> dict[str, dict[str, str]]:
    """Return the names of the released routers by the names of those that they are copies of, by key of the part that made these.

    The released model may be made from a mixture: one in a format for GPU servers has its routers as they are.
    """
    tensors = {key: {tensor.name: tensor for tensor in part.tensors} for key, part in plan.parts.items()}
    found: dict[str, dict[str, str]] = {}
    for name, (holder, tensor) in plan.released.tensors.items():
        key, made = holder.key, tensor
        while made.action == "copy":
            (origin,) = made.origins
            key, made = origin.part, tensors[origin.part][origin.tensor]
        if made.action == "router":
            found.setdefault(key, {})[made.name] = name
    return found


def _compared(
    workspace: Workspace,
    release: Release,
    options: Options,
    check: Check,
    part: Part,
    names: Mapping[str, str],
) -> Iterator[Finding]:
    """Recompute the routers that a part made, and compare those of which the release has copies."""
    plan, operation = workspace.plan, part.operation
    assert isinstance(operation, MakeRouters | DrawRouters)  # noqa: S101 - no other operation makes routers
    workspace.code.require_installed(part.code)
    scratch = replace(plan, layout=replace(plan.layout, root=plan.layout.root / "routers"))
    inputs = ""
    if isinstance(operation, MakeRouters):
        inputs = _base(workspace, scratch, release, operation, options)
    from herdbook.steps.moe.step import moe

    moe(scratch, part)
    recomputed = read_record(scratch.layout.record(part))["tensors"]
    by_tensor = {slice_.tensor: slice_ for slice_ in release.lineage()}
    with damaged(LINEAGE):
        slices = {name: by_tensor[released] for name, released in names.items()}
    equal, near, furthest = 0, 0, 0.0
    for name, slice_ in slices.items():
        entry = recomputed[name]
        if entry["sha256"] == slice_.sha256:
            equal += 1
            continue
        difference = _difference(scratch.layout.shard(part), name, release, slice_)
        about = {
            "file": slice_.file,
            "tensor": slice_.tensor,
            "expected": entry["sha256"],
            "found": slice_.sha256,
        }
        limit = ROUTER_TOLERANCE[slice_.dtype]
        if difference <= limit and isinstance(operation, MakeRouters):
            near += 1
            furthest = max(furthest, difference)
        else:
            detail = f"a row differs by {difference:.1e} of its length from the one that the prompts give; {limit:.1e} is allowed"
            yield check.failed(slice_.tensor, detail, **about)
    if equal + near:
        detail = (
            f"{equal} by `{operation.gate}` reproduced bit by bit"
            + (f", {near} within {furthest:.1e} of them" if near else "")
            + inputs
        )
        yield check.passed(f"{equal + near} of {len(slices)} routers", detail)


def _difference(shard: Path, name: str, release: Release, slice_: LineageSlice) -> float:
    """Return the largest distance between rows, over the length of ours."""
    from herdbook.weights.tensors import from_bytes

    ours = from_bytes(read_span(shard, read_header(shard)[name]), slice_.dtype, slice_.shape, name).double()
    data = bytearray(release.subject.read_range(slice_.file, slice_.begin, slice_.end))
    theirs = from_bytes(data, slice_.dtype, slice_.shape, name).double()
    lengths = ours.norm(dim=-1).clamp(min=1e-12)
    return float(((theirs - ours).norm(dim=-1) / lengths).max())


def _base(workspace: Workspace, scratch: Plan, release: Release, make: MakeRouters, options: Options) -> str:
    """Assemble the model that the prompts ran through; return a text about where its weights are from.

    Raises:
        UnverifiedError: If rebuilding it takes more upstream bytes than the sample's size, or a source is not available.
    """
    from herdbook.inference.forward import EMBEDDINGS

    base = scratch.by_key[make.base]
    needed = {
        name: (holder, tensor)
        for name, (holder, tensor) in base.tensors.items()
        if GATES[make.gate].layers or name == EMBEDDINGS
    }
    by_digest: dict[str, LineageSlice] = {slice_.sha256: slice_ for slice_ in release.lineage()}
    records = release.records()
    sources: dict[str, Callable[[], Iterable[Piece]]] = {}
    missing = []
    for name, (holder, tensor) in needed.items():
        with damaged(f"the record of {holder.id}"):
            sha256 = records[holder.key]["tensors"][name]["sha256"]
        if sha256 in by_digest and by_digest[sha256].end - by_digest[sha256].begin == tensor.size_bytes:
            sources[name] = _from_release(release, by_digest[sha256])
        else:
            missing.append(Origin(holder.key, name))
    size = sum(base.tensors[origin.tensor][1].size_bytes for origin in missing)
    if options.sample_bytes is not None and size > options.sample_bytes:
        raise UnverifiedError(
            f"routers: the release does not contain {base.name} as the prompts ran through it, so {humanize.size(size)} of it must be "
            "rebuilt from upstream; pass --sample all to do that"
        )
    problems = recompute(workspace, records, missing)
    for origin in missing:
        if origin.part in problems:
            raise problems[origin.part]
        shard = workspace.plan.layout.shard(workspace.plan.parts[origin.part])
        span = read_header(shard)[origin.tensor]
        sources[origin.tensor] = lambda shard=shard, span=span: stream_span(shard, span)  # type: ignore[misc]
    folder = scratch.layout.folder(base)
    write_shard(
        folder / WEIGHTS,
        scratch.layout.root / "base.json",
        (Produced(name, tensor.dtype, tensor.shape, sources[name]) for name, (_, tensor) in needed.items()),
        {},
    )
    _write_files(workspace, release, base, folder)
    from_release = len(needed) - len(missing)
    return f"; {base.name}, which the prompts ran through, has {from_release} tensors from the release and {len(missing)} rebuilt from upstream"


def _from_release(release: Release, slice_: LineageSlice) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        for start in range(slice_.begin, slice_.end, PIECE_BYTES):
            yield release.subject.read_range(slice_.file, start, min(slice_.end, start + PIECE_BYTES))

    return pieces


def _write_files(workspace: Workspace, release: Release, base: Node, folder: Path) -> None:
    """Write configuration and tokenizer beside the base's weights: the release's own where the files are the same."""
    plan = workspace.plan
    root, released = files_origin(plan, base), files_origin(plan, plan.released)
    own, theirs = (own_vocabulary(plan.lock, plan.nodes, node.name) for node in (base, plan.released))
    if root.name == released.name and own == theirs:
        for name in released.files:
            with atomic_writer(folder / name) as file:
                file.write(release.subject.read(name))
    else:
        from herdbook.steps.assemble.tokenizer import write_tokenizer
        from herdbook.steps.fetch.step import make_files

        make_files(plan, workspace.first_readable(root), folder)
        write_tokenizer(plan, base, folder, folder)
    write_json(folder / CONFIG, base.config)
