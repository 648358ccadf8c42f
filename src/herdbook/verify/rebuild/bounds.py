"""How far a release's tensor may be from the one that was recomputed here. The verifier computes it; no record affects it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from herdbook.verify.rebuild.tensors import ancestors, slices_of
from herdbook.weights.checkpoint import read_header, read_span
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from herdbook.plan import Origin, Plan
    from herdbook.provenance.lineage import LineageSlice
    from herdbook.release.reader import Release

EPSILON = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24}  # unit roundoff


def allowed(plan: Plan, origin: Origin, slice_name: str | None, dtype: str) -> float:
    """Return the allowed distance between two computations of a tensor, relative to its norm (both Frobenius).

    It is zero where only equal bits are accepted, and infinite where the rank of a LASER among the ancestors cuts between
    equal singular values, so that the result is not unique.

    Args:
        plan: The plan; all that the tensor is made from was recomputed in its results.
        origin: The tensor.
        slice_name: The slice of it, if it is stacked.
        dtype: Its dtype.
    """
    _, tensor = plan.nodes[plan.parts[origin.part].model].tensors[origin.tensor]
    targets = [origin]
    if slice_name in tensor.slices:
        targets = [tensor.origins[tensor.slices.index(str(slice_name))]]
    cut = (
        read_record(plan.layout.record(plan.parts[key]))["tensors"][name]
        for key, tensors in ancestors(plan, targets).items()
        for name, ancestor in tensors.items()
        if ancestor.action == "laser"
    )
    return bound(cut, dtype)


def bound(reduced: Iterable[Mapping[str, Any]], dtype: str) -> float:
    """Return the allowed distance that follows from the reductions among a tensor's ancestors; see ``allowed``.

    LASER's tolerance t applies to float64 before rounding to the dtype with unit roundoff u. An entry then falls on the
    other side of a rounding boundary with a probability of about t / u, and moves by about u: the root mean square
    change is sqrt(t u). Four times that, plus t itself, is allowed.

    Args:
        reduced: The entry of each reduction in the record that was written here.
        dtype: The tensor's dtype; for one that is not in ``EPSILON``, whose numbers are codes, any distance above zero.
    """
    total = 0.0
    for entry in reduced:
        if entry["action"] == "laser":  # a search may also leave a matrix as it is
            tolerance = entry.get("tolerance")
            total += tolerance if isinstance(tolerance, int | float) else math.inf
    return total + 4 * math.sqrt(total * EPSILON.get(dtype, 0.0)) if total else 0.0


def distance(plan: Plan, release: Release, origin: Origin, slice_: LineageSlice) -> float:
    """Return the Frobenius norm of the difference between ours and the release's tensor, over the norm of ours."""
    from herdbook.steps.laser.reduce import relative_change
    from herdbook.weights.tensors import from_bytes

    path = plan.layout.shard(plan.parts[origin.part])
    span = read_header(path)[origin.tensor]
    data: Any = read_span(path, span)
    record = read_record(plan.layout.record(plan.parts[origin.part]))["tensors"][origin.tensor]
    offset = 0
    for name, entry in slices_of(record):
        size = math.prod(entry["shape"]) * (span.end - span.start) // max(1, math.prod(span.shape))
        if name == slice_.slice:
            data = data[offset : offset + size]
            break
        offset += size
    shape = slice_.shape if len(slice_.shape) > 1 else (1, *slice_.shape)
    ours = from_bytes(data, slice_.dtype, shape, origin.tensor)
    theirs = from_bytes(
        bytearray(release.subject.read_range(slice_.file, slice_.begin, slice_.end)),
        slice_.dtype,
        shape,
        slice_.tensor,
    )
    return relative_change(ours, theirs)


def distance_in_file(plan: Plan, release: Release, origin: Origin, file: str) -> float:
    """Return the distance as ``distance`` does, between a whole tensor and the one of that name in a file of the release."""
    from herdbook.steps.laser.reduce import relative_change
    from herdbook.weights.tensors import from_bytes

    path = plan.layout.shard(plan.parts[origin.part])
    ours, theirs = read_header(path)[origin.tensor], release.subject.header(file).get(origin.tensor)
    if theirs is None or (theirs.dtype, theirs.shape) != (ours.dtype, ours.shape):
        return math.inf
    shape = ours.shape if len(ours.shape) > 1 else (1, *ours.shape)
    data = read_span(path, ours), bytearray(release.subject.read_range(file, theirs.start, theirs.end))
    if data[0] == data[1]:
        return 0.0
    return relative_change(*(from_bytes(each, ours.dtype, shape, origin.tensor) for each in data))
