"""The linear layers of a model: those whose matrices are encoded for GPU servers, and those that keep their width.

Tensors keep their names, and all are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.architectures.dense import layer_of
from herdbook.architectures.form import HEAD, is_known
from herdbook.architectures.mixtures import is_router

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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


def is_left_out(name: str, config: Mapping[str, Any]) -> bool:
    """Return whether a tensor is not in the encoded model: none is left out."""
    del name, config
    return False


def module_of(name: str) -> str:
    """Return what the names of the tensors start with that a matrix is stored as."""
    return name.removesuffix(SUFFIX)


def is_stacked(module: str) -> bool:
    """Return whether several matrices are stacked in the tensors of a module: in none."""
    del module
    return False


def matrices_of(module: str, count: int) -> list[str]:
    """Return the canonical names of the matrices that are stored under a module's name."""
    del count
    return [f"{module}{SUFFIX}"]


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of ``config.json`` that differ from those of the model that is encoded, besides the format: none."""
    del config
    return {}


def objections(name: str, config: Mapping[str, Any], tensors: Iterable[str]) -> Iterator[str]:
    """Yield why readers of these formats cannot hold a model.

    Args:
        name: Its name in the recipe.
        config: The content of its ``config.json``.
        tensors: The names of its tensors.
    """
    del tensors
    if not is_known(config):
        yield (
            f"which matrices of {name!r} are linear layers is not known for its model_type {config.get('model_type')!r}; leave it out"
        )


def warnings(config: Mapping[str, Any]) -> list[str]:
    """Return what readers of these formats compute otherwise than the model that is encoded: nothing that is known."""
    del config
    return []
