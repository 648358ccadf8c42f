"""The routers of anybody's mixture: in a folder, or on the Hub, where nothing but they and some headers is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.errors import SourceError
from herdbook.hub.tensors import tensors_of
from herdbook.steps.routing.rows import ROUTER, look, spell, verdict
from herdbook.weights.tensors import DTYPES, from_bytes

if TYPE_CHECKING:
    import torch


def routers_of(model: str) -> dict[int, torch.Tensor]:
    """Return the routers of a mixture by layer, each of shape ``(experts, hidden)`` in its own dtype.

    Args:
        model: A folder, a safetensors file, or ``owner/name``, optionally ``@revision``, on the Hub.

    Raises:
        SourceError: If there is no such checkpoint, or it has no routers.
        CheckpointError: If a router holds NaN or infinite values.
    """
    found = {}
    for span, read in tensors_of(model):
        place = ROUTER.match(span.name)
        if place and len(span.shape) == 2 and span.dtype in DTYPES:
            found[int(place[1])] = from_bytes(read(), span.dtype, span.shape, f"{model}: {span.name}")
    if not found:
        raise SourceError(
            f"{model}: has no routers; it is no Mixture of Experts, or of a kind that is not known here"
        )
    return dict(sorted(found.items()))


def as_json(model: str, routers: dict[int, torch.Tensor]) -> dict[str, Any]:
    """Return what there is to say of routers, as plain data."""
    return {
        "model": model,
        "rows": [look(layer, router).describe() for layer, router in routers.items()],
        "verdict": verdict(routers),
    }


def as_text(model: str, routers: dict[int, torch.Tensor]) -> str:
    """Return what there is to say of routers, for a terminal."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for layer, router in routers.items():
        shapes.setdefault(tuple(router.shape), []).append(layer)
    lines = [
        f"{model}: {shape[0]} experts, rows of {shape[1]} numbers, in layers {spell(layers)}"
        for shape, layers in shapes.items()
    ]
    lines.append(f"{'layer':>6} {'largest cosine':>15} {'shortest row':>13} {'longest row':>12}")
    for layer, router in routers.items():
        rows = look(layer, router)
        cosine = "-" if rows.cosine is None else f"{rows.cosine:.4f}"
        lines.append(f"{layer:>6} {cosine:>15} {rows.shortest:>13.4g} {rows.longest:>12.4g}")
    said = verdict(routers)
    return "\n".join(
        [*lines, "", *(said or ["No row is zero, and no two rows of a layer are equal or nearly parallel."])]
    )
