"""Cutting a model into parts: runs of consecutive layers, each no larger than the recipe's shard size."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from herdbook.architectures.dense import layer_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan.model import Tensor


def cut(tensors: Iterable[Tensor], max_bytes: int) -> list[tuple[Tensor, ...]]:
    """Cut tensors into runs: embeddings, then layer by layer, then the last norm and the head.

    A layer is divided only if it alone is larger than ``max_bytes``; then it is cut between tensors.

    Args:
        tensors: The tensors, in any order.
        max_bytes: The largest size of a run, unless one tensor alone is larger.
    """
    ordered = sorted(tensors, key=lambda tensor: (_position(tensor.name), tensor.name))
    runs: list[list[Tensor]] = []
    filled = 0
    for _, group in groupby(ordered, key=lambda tensor: _position(tensor.name)):
        layer = list(group)
        fits = sum(tensor.size_bytes for tensor in layer) <= max_bytes
        pieces = [layer] if fits else [[tensor] for tensor in layer]
        for piece in pieces:
            size = sum(tensor.size_bytes for tensor in piece)
            if not runs or filled + size > max_bytes:
                runs.append([])
                filled = 0
            runs[-1] += piece
            filled += size
    return [tuple(run) for run in runs]


def _position(name: str) -> tuple[int, int]:
    layer = layer_of(name)
    if layer is not None:
        return (1, layer)
    return (0, 0) if "embed" in name else (2, 0)
