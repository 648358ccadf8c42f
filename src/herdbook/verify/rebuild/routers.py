"""Making a mixture's routers again: from the release's own bytes where it holds them, else from upstream."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from herdbook.errors import UnverifiedError
from herdbook.files import atomic_writer, write_json
from herdbook.plan import Origin
from herdbook.plan.folder import files_origin
from herdbook.plan.operation import DrawRouters, MakeRouters
from herdbook.recipe.moe import GATES
from herdbook.verify.rebuild.tensors import remake
from herdbook.weights.checkpoint import (
    Produced,
    read_header,
    read_record,
    read_span,
    stream_span,
    write_shard,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from herdbook.plan import Node, Plan
    from herdbook.provenance.lineage import LineageSlice
    from herdbook.release.finding import Check, Finding, Options
    from herdbook.release.reader import Release
    from herdbook.verify.rebuild.workspace import Workspace

PIECE_BYTES = 1 << 24
# Kernels of other processors sum in other orders; in float32 that is far less than what rounding to the weights' dtype
# takes. Where a model is run in bfloat16, as mergekit's bits want it, it is more.
TOLERANCE = {"BF16": 2.0**-7, "F16": 2.0**-9, "F32": 2.0**-12}


def routers(workspace: Workspace, release: Release, options: Options, check: Check) -> Iterator[Finding]:
    """Make the routers again and compare them.

    Yields:
        A finding for each router that differs, and one for all that do not.
    """
    plan = workspace.plan
    part = next(
        (one for one in plan.released.parts if isinstance(one.operation, MakeRouters | DrawRouters)), None
    )
    operation = part.operation if part else None
    if part is None or not isinstance(operation, MakeRouters | DrawRouters):
        yield check.passed(plan.released.name, "has no routers")
        return
    home = replace(plan, layout=replace(plan.layout, root=plan.layout.root / "routers"))
    told = ""
    if isinstance(operation, MakeRouters):
        told = _base(workspace, home, release, operation, options)
    from herdbook.steps.moe.step import moe

    moe(home, part)
    made = read_record(home.layout.record(part))["tensors"]
    slices = {one.tensor: one for one in release.lineage() if one.tensor in made}
    same, near, furthest = 0, 0, 0.0
    for name, entry in made.items():
        one = slices[name]
        if entry["sha256"] == one.sha256:
            same += 1
            continue
        difference = _difference(home.layout.shard(part), name, release, one)
        about = {"file": one.file, "tensor": name, "expected": entry["sha256"], "found": one.sha256}
        limit = TOLERANCE[one.dtype]
        if difference <= limit and isinstance(operation, MakeRouters):
            near += 1
            furthest = max(furthest, difference)
        else:
            detail = f"a row differs by {difference:.1e} of its length from what the prompts give; {limit:.1e} are allowed"
            yield check.failed(name, detail, **about)
    if same + near:
        detail = (
            f"{same} by `{operation.gate}` the same bits again"
            + (f", {near} within {furthest:.1e} of them" if near else "")
            + told
        )
        yield check.passed(f"{same + near} of {len(made)} routers", detail)


def _difference(shard: Path, name: str, release: Release, one: LineageSlice) -> float:
    """Return the largest distance between rows, over the length of ours."""
    from herdbook.weights.tensors import from_bytes

    ours = from_bytes(read_span(shard, read_header(shard)[name]), one.dtype, one.shape, name).double()
    data = bytearray(release.subject.read_range(one.file, one.begin, one.end))
    theirs = from_bytes(data, one.dtype, one.shape, name).double()
    lengths = ours.norm(dim=-1).clamp(min=1e-12)
    return float(((theirs - ours).norm(dim=-1) / lengths).max())


def _base(workspace: Workspace, home: Plan, release: Release, make: MakeRouters, options: Options) -> str:
    """Put the model that the prompts ran through together, and return where its weights are from.

    Raises:
        UnverifiedError: If more than the sample's size must be made from upstream for it, or it cannot be had.
    """
    from herdbook.inference.forward import EMBEDDINGS

    base = home.by_key[make.base]
    wanted = {
        name: (one, tensor)
        for name, (one, tensor) in base.tensors.items()
        if GATES[make.gate].layers or name == EMBEDDINGS
    }
    held: dict[str, LineageSlice] = {one.sha256: one for one in release.lineage()}
    records = release.records()
    sources: dict[str, Callable[[], Iterable[bytes]]] = {}
    missing = []
    for name, (one, tensor) in wanted.items():
        sha256 = records[one.key]["tensors"][name]["sha256"]
        if sha256 in held and held[sha256].end - held[sha256].begin == tensor.size_bytes:
            sources[name] = _from_release(release, held[sha256])
        else:
            missing.append(Origin(one.key, name))
    size = sum(base.tensors[origin.tensor][1].size_bytes for origin in missing)
    if options.sample_bytes is not None and size > options.sample_bytes:
        raise UnverifiedError(
            f"routers: {base.name} is no expert of the release, so {size / 1e9:.2f} GB of it must be made from upstream; "
            "that is done with --sample all"
        )
    problems = remake(workspace, records, missing)
    for origin in missing:
        if origin.part in problems:
            raise problems[origin.part]
        shard = workspace.plan.layout.shard(workspace.plan.parts[origin.part])
        span = read_header(shard)[origin.tensor]
        sources[origin.tensor] = lambda shard=shard, span=span: stream_span(shard, span)  # type: ignore[misc]
    folder = home.layout.folder(base)
    write_shard(
        folder / "model.safetensors",
        home.layout.root / "base.json",
        (Produced(name, tensor.dtype, tensor.shape, sources[name]) for name, (_, tensor) in wanted.items()),
        {},
    )
    _put_files(workspace, release, base, folder)
    own = len(wanted) - len(missing)
    return f"; {base.name}, which the prompts ran through, is {own} tensors of the release and {len(missing)} made from upstream"


def _from_release(release: Release, one: LineageSlice) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        for start in range(one.begin, one.end, PIECE_BYTES):
            yield release.subject.read_range(one.file, start, min(one.end, start + PIECE_BYTES))

    return pieces


def _put_files(workspace: Workspace, release: Release, base: Node, folder: Path) -> None:
    """Put configuration and tokenizer beside the base's weights: the release's own where they are the same files."""
    plan = workspace.plan
    root, released = files_origin(plan, base), files_origin(plan, plan.released)
    if root.name == released.name:
        for name in released.files:
            with atomic_writer(folder / name) as file:
                file.write(release.subject.read(name))
    else:
        from herdbook.steps.fetch.step import make_files

        workspace.within_reach(root)
        make_files(plan, root, folder)
    write_json(folder / "config.json", base.config)
