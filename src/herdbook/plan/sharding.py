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

    A layer is never divided unless it alone is larger than ``max_bytes``; then it is cut between tensors.

    Args:
        tensors: In any order.
        max_bytes: Size that a run does not exceed, unless one tensor alone does.
    """
    ordered = sorted(tensors, key=lambda tensor: (_place(tensor.name), tensor.name))
    runs: list[list[Tensor]] = []
    filled = 0
    for _, group in groupby(ordered, key=lambda tensor: _place(tensor.name)):
        layer = list(group)
        pieces = (
            [layer] if sum(tensor.size_bytes for tensor in layer) <= max_bytes else [[one] for one in layer]
        )
        for piece in pieces:
            size = sum(tensor.size_bytes for tensor in piece)
            if not runs or filled + size > max_bytes:
                runs.append([])
                filled = 0
            runs[-1] += piece
            filled += size
    return [tuple(run) for run in runs]


def _place(name: str) -> tuple[int, int]:
    layer = layer_of(name)
    if layer is not None:
        return (1, layer)
    return (0, 0) if "embed" in name else (2, 0)
