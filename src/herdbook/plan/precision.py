"""Precision: which models lose bits of their numbers when they are joined, since the result is of a narrower dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.recipe import Merge, Moe
from herdbook.weights.dtypes import DTYPE_CODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.plan.model import Node

# The dtypes whose every number the dtype can represent.
HOLDS = {
    "F64": {"F64", "F32", "F16", "BF16"},
    "F32": {"F32", "F16", "BF16"},
    "F16": {"F16"},
    "BF16": {"BF16"},
}


def roundings(node: Node, nodes: Mapping[str, Node]) -> Iterator[str]:
    """Yield a line for each model whose numbers are rounded when a merge or a mixture takes them over."""
    if not isinstance(node.recipe, Merge | Moe):
        return
    written = _dtypes(node)
    held = set().union(*(HOLDS.get(dtype, {dtype}) for dtype in written))
    merge = node.recipe.merge if isinstance(node.recipe, Merge) else None
    if merge and merge.is_as_mergekit and merge.dtype:
        computed = DTYPE_CODES[merge.dtype]  # mergekit rounds to it before anything else
        held &= HOLDS[computed]
        written = list(dict.fromkeys([computed, *written]))
    for parent in dict.fromkeys(node.parents):
        lost = [dtype for dtype in _dtypes(nodes[parent]) if dtype not in held]
        if lost:
            yield (
                f"models.{node.name}: {parent!r} has numbers in {' and '.join(lost)}, which are rounded to "
                f"{' and '.join(written)}; `dtype` sets another one"
            )


def _dtypes(node: Node) -> list[str]:
    return sorted({tensor.dtype for part in node.parts for tensor in part.tensors})
