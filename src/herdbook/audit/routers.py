"""The routers of a published mixture: what their rows show without the prompts.

They are read from a folder, or from the Hub, where only the routers and some headers are downloaded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from herdbook.audit.level import LEVEL, UNPROVEN
from herdbook.errors import HerdbookError, SourceError
from herdbook.hub.tensors import open_tensors
from herdbook.humanize import ranges
from herdbook.recipe.moe import DRAWN_GATES, MERGEKIT_GATES
from herdbook.release.finding import Check
from herdbook.steps.routing.rows import ROUTER, look, verdict
from herdbook.weights.tensors import DTYPES, from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from herdbook.audit.configuration import Configuration
    from herdbook.audit.model import Model
    from herdbook.release.finding import Finding
    from herdbook.steps.routing.rows import Rows

ROWS = Check(LEVEL, "routers")
LENGTHS = Check(LEVEL, "gate")
MAX_ROUTER_BYTES = 64_000_000
UNIT = 0.02  # largest deviation from 1 of a unit row's length after rounding to bfloat16, with a margin
DEVIATIONS = 6.0


def check(configuration: Configuration, merge: Model) -> Iterator[Finding]:
    """Yield what the routers show, and what remains unproven."""
    routers: dict[int, torch.Tensor] = {}
    for name, piece in merge.pieces.items():
        match = ROUTER.match(name)
        if not match or len(piece.shape) != 2 or piece.dtype not in DTYPES:
            continue
        if piece.size_bytes > MAX_ROUTER_BYTES:
            yield ROWS.unverified(name, f"has {piece.size_bytes} bytes, too many for a router", tensor=name)
            continue
        try:
            routers[int(match[1])] = from_bytes(merge.read(name), piece.dtype, piece.shape, name)
        except (HerdbookError, OSError) as error:
            yield ROWS.error(name, error, file=piece.file, tensor=piece.tensor)
    if not routers:
        return
    routers = dict(sorted(routers.items()))
    rows = [look(layer, router) for layer, router in routers.items()]
    yield from _rows(configuration, routers, rows)
    yield from _lengths(configuration, rows, next(iter(routers.values())).shape[1])
    if configuration.gate in DRAWN_GATES:
        reason = f"`gate_mode: {configuration.gate}` draws them at random, and random numbers cannot be distinguished from others of the same lengths"
    else:
        reason = (
            "they follow from the base, the prompts and the version of mergekit, so proving them means recomputing them "
            "(`herdbook import` makes a recipe from the configuration; then run `herdbook lock` and a build)"
        )
    size = sum(router.numel() * router.element_size() for router in routers.values())
    detail = f"The rows of the {len(routers)} routers ({size:,} bytes) are not proven: {reason}."
    yield UNPROVEN.unverified("routers", detail)


def _rows(
    configuration: Configuration, routers: dict[int, torch.Tensor], rows: list[Rows]
) -> Iterator[Finding]:
    count = len(configuration.experts)
    mismatched = [row.layer for row in rows if row.experts != count]
    if mismatched:
        detail = f"do not have {count} rows, one for each expert that the configuration names"
        yield ROWS.failed(f"layers {ranges(mismatched)}", detail)
    verdicts = verdict(routers)
    same = [line for line in verdicts if "cheap_embed" in line]
    if configuration.gate == "cheap_embed" and not same and len(routers) > 1:
        yield ROWS.failed("all layers", "differ from each other, which `gate_mode: cheap_embed` never makes")
    problems = [line for line in verdicts if line not in same or configuration.gate != "cheap_embed"]
    for line in problems:
        yield ROWS.failed(f"{len(rows)} routers", line)
    if not problems and not mismatched:
        cosine = max((row.cosine for row in rows if row.cosine is not None), default=0.0)
        detail = (
            f"no row is zero, and no two of a layer are equal or nearly parallel; largest cosine {cosine:.4f}"
        )
        yield ROWS.passed(f"{len(rows)} routers", detail)


def _lengths(configuration: Configuration, rows: list[Rows], hidden: int) -> Iterator[Finding]:
    """Yield whether the rows are as long as the gate's mode makes them."""
    if configuration.gate not in MERGEKIT_GATES and configuration.gate != "hidden_last":
        yield LENGTHS.unverified(
            configuration.gate, "is not a gate_mode of mergekit, so the lengths of its rows are not known"
        )
        return
    lowest, highest = _bounds(configuration.gate, hidden)
    short = min((row.shortest for row in rows if not row.zero), default=lowest)
    long = max(row.longest for row in rows)
    lengths = f"rows of length {short:.4g} to {long:.4g}"
    if lowest <= short and long <= highest:
        yield LENGTHS.passed(
            configuration.gate, f"{lengths}, as `gate_mode: {configuration.gate}` makes them"
        )
    else:
        detail = (
            f"{lengths}; `gate_mode: {configuration.gate}` makes {lowest:.4g} to {highest:.4g}. They were trained or scaled after the "
            "merge, or made in another way"
        )
        yield LENGTHS.failed(configuration.gate, detail)


def _bounds(gate: str, hidden: int) -> tuple[float, float]:
    """Return the bounds of a mode's row lengths for ``hidden`` numbers: around 1, or six standard deviations for drawn rows."""
    if gate == "random":  # of N(0, 1): a chi distribution, whose variance is 1/2 nearly
        mean, spread = math.sqrt(hidden), DEVIATIONS * math.sqrt(0.5)
        return max(0.0, mean - spread), mean + spread
    if (
        gate == "uniform_random"
    ):  # within 1/sqrt(hidden) of zero: of the squared length, mean 1/3, variance 4/(45 hidden)
        spread = DEVIATIONS * math.sqrt(4 / (45 * hidden))
        return math.sqrt(max(0.0, 1 / 3 - spread)), math.sqrt(1 / 3 + spread)
    return 1 - UNIT, 1 + UNIT


def read_routers(model: str) -> dict[int, torch.Tensor]:
    """Return the routers of a mixture by layer, each of shape ``(experts, hidden)`` in its own dtype.

    Args:
        model: A folder, a safetensors file, or ``owner/name``, optionally ``@revision``, on the Hub.

    Raises:
        SourceError: If the checkpoint does not exist or has no routers.
        CheckpointError: If a router contains NaN or infinite values.
    """
    routers = {}
    for span, read in open_tensors(model):
        match = ROUTER.match(span.name)
        if match and len(span.shape) == 2 and span.dtype in DTYPES:
            routers[int(match[1])] = from_bytes(read(), span.dtype, span.shape, f"{model}: {span.name}")
    if not routers:
        raise SourceError(
            f"{model}: has no routers; it is not a Mixture of Experts, or of an unsupported kind"
        )
    return dict(sorted(routers.items()))


def as_json(model: str, routers: dict[int, torch.Tensor]) -> dict[str, Any]:
    """Return a description of routers as plain data."""
    return {
        "model": model,
        "rows": [look(layer, router).describe() for layer, router in routers.items()],
        "verdict": verdict(routers),
    }


def as_text(model: str, routers: dict[int, torch.Tensor]) -> str:
    """Return a description of routers for a terminal."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for layer, router in routers.items():
        shapes.setdefault(tuple(router.shape), []).append(layer)
    lines = [
        f"{model}: {shape[0]} experts, rows of {shape[1]} numbers, in layers {ranges(layers)}"
        for shape, layers in shapes.items()
    ]
    lines.append(f"{'layer':>6} {'largest cosine':>15} {'shortest row':>13} {'longest row':>12}")
    for layer, router in routers.items():
        rows = look(layer, router)
        cosine = "-" if rows.cosine is None else f"{rows.cosine:.4f}"
        lines.append(f"{layer:>6} {cosine:>15} {rows.shortest:>13.4g} {rows.longest:>12.4g}")
    verdicts = verdict(routers)
    return "\n".join(
        [
            *lines,
            "",
            *(verdicts or ["No row is zero, and no two rows of a layer are equal or nearly parallel."]),
        ]
    )
