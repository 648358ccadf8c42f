"""The linear layers of a model: those whose matrices are encoded for GPU servers, and those that keep their width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.dense import layer_of
from herdbook.architectures.form import HEAD
from herdbook.architectures.mixtures import is_router

if TYPE_CHECKING:
    from collections.abc import Iterable

SUFFIX = ".weight"


def is_encoded(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is the matrix of a linear layer inside a model's layers, and no router.

    Args:
        name: Its canonical name.
        shape: Its shape.
    """
    return layer_of(name) is not None and name.endswith(SUFFIX) and len(shape) == 2 and not is_router(name)


def kept(names: Iterable[str]) -> list[str]:
    """Return the linear layers that keep their width, in the order of the model: its routers, and its head.

    A tied head is a layer without a tensor of its own.

    Args:
        names: The names of all tensors.
    """
    routers = [name for name in names if is_router(name)]
    inside = sorted(routers, key=lambda name: (layer_of(name) or 0, name))
    return [name.removesuffix(SUFFIX) for name in (*inside, HEAD)]
