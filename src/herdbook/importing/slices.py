"""What takes part in a slice: its sources, with the base, and which of their layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.importing.configuration import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.importing.configuration import DenseConfiguration, Piece
    from herdbook.importing.references import Reference
    from herdbook.importing.value import Value
    from herdbook.recipe.mergekit_methods import Method


def base_of(configuration: DenseConfiguration, piece: Piece) -> Reference | None:
    """Return the base of a slice: its own, or that of the whole."""
    return piece.base or configuration.base


def base_at(configuration: DenseConfiguration, piece: Piece) -> Value:
    """Return the entry that names the base of a slice."""
    own = piece.value.get("base_model") if piece.base else configuration.base_at
    return own or configuration.value


def sources_of(configuration: DenseConfiguration, piece: Piece, method: Method, *at: str) -> list[Source]:
    """Return the sources of a slice, with the base if it takes part and is not listed.

    Args:
        configuration: The merge.
        piece: The slice.
        method: The method.
        at: Where in the recipe assumptions are noted.
    """
    base, listed = base_of(configuration, piece), list(piece.sources)
    if base is None or not listed or any(source.model == base for source in listed):
        return listed
    layers = listed[0].layers
    added = Source(base_at(configuration, piece), base, layers, None)
    if method.base != "ignored":
        if layers is not None:
            configuration.value.notes.assume(
                f"{base.model.public}: layers {range_in_recipe(layers)} of the base, which the slice's sources do not list",
                *at,
            )
        return [added, *listed]
    if layers is not None:
        return listed
    configuration.value.notes.assume(
        f"{base.model.public}: `base_model` takes part like any other model, since {configuration.method} has no base",
        *at,
    )
    return [*listed, added]


def repetitions(sources: Sequence[Source]) -> list[int]:
    """Return for each source how many other runs of layers of the same model come before it.

    A recipe names the layers of a model once for each merge, so that other runs need other names of the same model.
    """
    ranges: dict[Reference, list[tuple[int, int] | None]] = {}
    numbers = []
    for source in sources:
        seen = ranges.setdefault(source.model, [])
        if source.layers not in seen:
            seen.append(source.layers)
        numbers.append(seen.index(source.layers))
    return numbers


def layers_in_recipe(sources: Sequence[Source], names: Sequence[str]) -> dict[str, Any]:
    """Return ``layers`` of a merge: one range if all are equal, one for each name otherwise; nothing if all layers take part."""
    given = {name: source.layers for name, source in zip(names, sources, strict=True)}
    ranges = {name: range_in_recipe(layers) for name, layers in given.items() if layers is not None}
    if not ranges:
        return {}
    return {"layers": next(iter(ranges.values())) if len(set(ranges.values())) == 1 else ranges}


def range_in_recipe(layers: tuple[int, int]) -> str:
    """Return a range of layers as a recipe writes it: with its last layer, not the one after it."""
    return f"{layers[0]}-{layers[1] - 1}"
