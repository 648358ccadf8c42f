"""Recipes and locks that only planning reads: models of any number of sources of one form, without files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.lock import Lock, LockedFile, LockedSource, LockedTensor, request
from herdbook.recipe import Recipe
from support import buttercup

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 5 * buttercup.GB  # of a weights file


def mixture(count: int) -> dict[str, Any]:
    """Return the entry of a mixture of ``count`` sources, of which the first is the base."""
    experts = [{"model": f"s{n}", "prompts": [f"w{n}"]} for n in range(count)]
    return {"moe": {"base": "s0", "experts": experts}}


def merge(count: int) -> dict[str, Any]:
    """Return the entry of a mean of ``count`` sources."""
    models = [{"model": f"s{n}", "weight": 1} for n in range(count)]
    return {"merge": {"method": "linear", "models": models}}


def stack(count: int, layers: int = buttercup.FULL.layers) -> dict[str, Any]:
    """Return the entry of all layers of ``count`` sources, one source after the other."""
    slices = [{"model": f"s{n}", "layers": f"0-{layers - 1}"} for n in range(count)]
    return {"merge": {"method": "passthrough", "slices": slices}}


def recipe_of(entry: Mapping[str, Any], count: int) -> Recipe:
    """Return a recipe that releases a model made from ``count`` sources."""
    data = {
        "models": {**{f"s{n}": {"folder": f"s{n}"} for n in range(count)}, "made": entry},
        "release": {"model": "made", "name": "Made", "license": "apache-2.0"},
    }
    return Recipe.model_validate(data)


def sources(widths: buttercup.Widths, count: int) -> Lock:
    """Return the lock of ``count`` sources of one form, each with digests of its own."""
    layout, shapes = buttercup.shard_layout(LIMIT, widths), widths.shapes()
    recipe = recipe_of(merge(count), count)
    tensors = tuple(
        LockedTensor(name=name, dtype="BF16", shape=shapes[name], file=file)
        for file, names in layout.items()
        for name in names
    )
    return Lock(
        sources={
            f"s{n}": LockedSource(
                asked=request(recipe.models[f"s{n}"]),
                uri=f"folder:s{n}",
                revision=f"{n:064x}",
                weights="safetensors",
                files=tuple(
                    LockedFile(name=name, size_bytes=1, sha256=f"{n:032x}{m:032x}")
                    for m, name in enumerate(layout)
                ),
                members=("config.json",),
                tensors=tensors,
                config=widths.config(),
            )
            for n in range(count)
        }
    )
