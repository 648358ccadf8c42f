"""Traversal of graphs of models, jobs or tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    Node = TypeVar("Node", bound=Hashable)


def reachable(starts: Iterable[Node], following: Callable[[Node], Iterable[Node]]) -> list[Node]:
    """Return some nodes and all that can be reached from them, each once, the nearest first.

    Args:
        starts: The nodes to start from.
        following: Returns the direct successors of a node, such as the models that a model is made from.
    """
    seen = dict.fromkeys(starts)
    reached = list(seen)
    for node in reached:
        new = [successor for successor in dict.fromkeys(following(node)) if successor not in seen]
        seen |= dict.fromkeys(new)
        reached += new
    return reached
