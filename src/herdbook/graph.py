"""Walking graphs: of models, of jobs, of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    Node = TypeVar("Node", bound=Hashable)


def reachable(starts: Iterable[Node], following: Callable[[Node], Iterable[Node]]) -> list[Node]:
    """Return all that some nodes lead to, and themselves: each once, the nearest first.

    Args:
        starts: Where to begin.
        following: Returns where a node leads directly, such as the models that a model is made from.
    """
    found = dict.fromkeys(starts)
    waiting = list(found)
    for node in waiting:
        new = [one for one in dict.fromkeys(following(node)) if one not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return waiting
