"""Ranks that mean nothing, or not what they seem to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support import tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def lasered(rank: Any) -> Callable[[Path], Path]:
    """Return a maker of a recipe of a model that is lasered by a rank."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1)
        cut = {"laser": "base", "rank": rank, "matrices": ["mlp.up_proj"]}
        return tiny.write_recipe(folder / "recipe.yaml", {"base": {"folder": "base"}, "cut": cut})

    return make


CASES = [
    Case(wrong, lasered(rank), f"models.cut{message}")
    for wrong, rank, message in (
        (
            "a budget of rank that is a percentage",
            {"budget": 90},
            ".rank.budget: must be at most 1 (found 90)",
        ),
        ("a budget of nothing", {"budget": 0}, ".rank.budget: must be greater than 0 (found 0)"),
        (
            "a budget with a rank for each matrix beside it",
            {"budget": 0.9, "fraction": 0.5},
            ".rank: give a number, mp-edge, gavish-donoho, laser-rmt, or one of",
        ),
        ("two budgets without a guard that tries them", [{"budget": 0.9}, {"budget": 0.5}], ": several ranks need a guard"),
        (
            "a budget by the outputs on no text",
            {"svd-llm": {"budget": 0.9}},
            ": svd-llm, `select: {by: gradient}` and `guard` read a text",
        ),
        ("a budget by the outputs of a rule that has none", {"svd-llm": {"gavish-donoho": 0.1}}, ".rank.svd-llm: give a number, {fraction: 0.9}, {energy: 0.99} or {budget: 0.9}"),
        ("clusters without a rank", {"clustered": {"clusters": 4}}, ".rank.clustered.keep: missing"),
        ("one cluster", {"clustered": {"clusters": 1, "keep": 4}}, ".rank.clustered.clusters: must be at least 2 (found 1)"),
        ("clusters that each keep another rank", {"clustered": {"clusters": 4, "keep": {"energy": 0.9}}}, ".rank.clustered.keep: give a number or {fraction: 0.9}: all clusters keep the same rank"),
    )
]  # fmt: skip
