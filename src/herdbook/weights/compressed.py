"""The tensors of an encoded model, and those of the model that it was made from: how one follows from the other, for each format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from herdbook import limits
from herdbook.architectures import linear, mlx
from herdbook.architectures.form import described

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from herdbook.quantization.scheme import Library, Scheme

    Form = dict[str, tuple[int, ...]]


class Layout(Protocol):
    """How the readers of a format want a model: which matrices are encoded, and what tensors are called."""

    def is_encoded(self, name: str, shape: tuple[int, ...]) -> bool:
        """Return whether a tensor with a canonical name and a shape is a matrix that is encoded."""

    def is_left_out(self, name: str, config: Mapping[str, Any]) -> bool:
        """Return whether a tensor is not in the encoded model."""

    def kept(self, names: Iterable[str]) -> list[str]:
        """Return the linear layers that keep their width, as ``config.json`` names them."""

    def module_of(self, name: str) -> str:
        """Return what the names of the tensors start with that a matrix is stored as."""

    def is_stacked(self, module: str) -> bool:
        """Return whether several matrices are stacked in the tensors of a module."""

    def matrices_of(self, module: str, count: int) -> list[str]:
        """Return the canonical names of the matrices that are stored under a module's name."""

    def settings_of(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of ``config.json`` that differ from those of the model that is encoded, besides the format."""

    def objections(self, name: str, config: Mapping[str, Any], tensors: Iterable[str]) -> Iterator[str]:
        """Yield why readers of the format cannot hold a model."""

    def warnings(self, config: Mapping[str, Any]) -> list[str]:
        """Return what readers of the format compute otherwise than the model that is encoded."""


LAYOUTS: dict[Library, Layout] = {"compressed-tensors": linear, "mlx": mlx}


def modules_of(names: Iterable[str], layout: Layout) -> dict[str, list[str]]:
    """Return the matrices that are stored together, by the name of their module; those of experts in the order of the experts.

    Args:
        names: The canonical names of matrices that are encoded.
        layout: The layout of the format.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(layout.module_of(name), []).append(name)
    return {module: layout.matrices_of(module, len(matrices)) for module, matrices in found.items()}


def stacked(shape: tuple[int, ...], count: int, module: str, layout: Layout) -> tuple[int, ...]:
    """Return the shape of a module's matrices together: that of one, or with their number before it if they are stacked."""
    return (count, *shape) if layout.is_stacked(module) else shape


def held(form: Mapping[str, tuple[int, ...]], scheme: Scheme) -> dict[str, list[str]]:
    """Return the canonical names of the matrices in an encoded model, by the module that they are stored under.

    Args:
        form: The shape of each tensor of the encoded model by name.
        scheme: The scheme.
    """
    layout, found = LAYOUTS[scheme.library], {}
    for name in form:
        module, _, last = name.rpartition(".")
        shape = form.get(f"{module}.{scheme.numbers}", ())
        count = shape[0] if layout.is_stacked(module) and shape else 1
        if last == scheme.scales and len(shape) >= 2 and count <= limits.TENSORS:
            found[module] = layout.matrices_of(module, count)
    return found


def full_width(
    form: Mapping[str, tuple[int, ...]], scheme: Scheme, config: Mapping[str, Any]
) -> tuple[Form, list[str]]:
    """Return the shapes of the tensors of the model that was encoded, and what is wrong with those that its matrices are stored as.

    Args:
        form: The shape of each tensor of the encoded model by name.
        scheme: The scheme.
        config: The content of its ``config.json``.
    """
    layout, modules = LAYOUTS[scheme.library], held(form, scheme)
    parts = scheme.stored("BF16", (scheme.rows, scheme.columns))
    restored: Form = {}
    for name, shape in form.items():
        module, _, last = name.rpartition(".")
        if module not in modules or last not in parts:
            restored[name] = tuple(shape)
        elif last == scheme.numbers:
            own = (shape[-2], scheme.columns_in(shape[-1]))
            restored |= dict.fromkeys(modules[module], own)
    encoded = [name for name, shape in restored.items() if layout.is_encoded(name, shape)]
    expected: Form = {
        name: shape
        for name, shape in restored.items()
        if not (layout.is_encoded(name, shape) or layout.is_left_out(name, config))
    }
    for module, matrices in modules_of(encoded, layout).items():
        if layout.is_left_out(matrices[0], config) or matrices[0] not in restored:
            continue
        whole = stacked(restored[matrices[0]], len(matrices), module, layout)
        expected |= {f"{module}.{part}": own for part, (_, own) in scheme.stored("BF16", whole).items()}
    missing = [name for name in expected if name not in form]
    unknown = [name for name in form if name not in expected]
    wrong = [
        (name, tuple(form[name]), shape)
        for name, shape in expected.items()
        if name in form and tuple(form[name]) != shape
    ]
    return restored, described(missing, unknown, wrong)
