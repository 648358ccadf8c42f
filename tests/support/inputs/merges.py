"""Merges whose parameters have no value for some tensor, or no defined result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support import tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MLP_ALONE = [{"filter": "mlp", "value": 0.5}]


def merge(**entry: Any) -> Callable[[Path], Path]:
    """Return a maker of two models and a merge of them."""

    def make(folder: Path) -> Path:
        for seed, name in enumerate("ab"):
            tiny.write_model(folder / name, seed=seed)
        sources = {name: {"folder": name} for name in "ab"}
        return tiny.write_recipe(folder / "recipe.yaml", {**sources, "merged": {"merge": entry}})

    return make


def weighted(first: Any, second: Any) -> list[dict[str, Any]]:
    return [{"model": "a", "weight": first}, {"model": "b", "weight": second}]


CASES = [
    Case(
        "`weight` with a filter that leaves out tensors, and no value for these",
        merge(method="linear", models=weighted(MLP_ALONE, 0.5)),
        "models.merged.merge.models.0.weight: none of its filters matches",
    ),
    Case(
        "`t` of a slerp with a filter that leaves out tensors",
        merge(method="slerp", base="a", other="b", t=MLP_ALONE),
        "models.merged.merge.t: none of its filters matches",
    ),
    Case(
        "`weight` of TIES with a filter that leaves out tensors",
        merge(method="ties", base="a", models=[{"model": "b", "weight": MLP_ALONE}]),
        "models.merged.merge.models.0.weight: none of its filters matches",
    ),
    Case(
        "weights of a mean that sum to zero",
        merge(method="linear", models=weighted(0.5, -0.5)),
        "models.merged.merge.models: the weights of lm_head.weight sum to zero",
    ),
    Case(
        "weights of a mean that sum to zero in one layer alone",
        merge(method="linear", models=weighted([0.5, 1.0], [0.5, -1.0])),
        "models.merged.merge.models: the weights of model.layers.1.",
    ),
]
