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


def as_mergekit(method: str = "della", **entry: Any) -> Callable[[Path], Path]:
    """Return a maker of a merge with mergekit's names, with base ``a`` and model ``b`` unless ``entry`` has others."""
    return merge(**{"method": method, "base": "a", "models": [{"model": "b"}], **entry})


def of_b(**parameters: Any) -> list[dict[str, Any]]:
    return [{"model": "b", "parameters": {"weight": 1.0, **parameters}}]


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
    Case(
        "a filter that matches no tensor",
        merge(method="linear", models=weighted([{"filter": "mpl", "value": 1}, {"value": 0}], 0.5)),
        "models.merged.merge.models.0.weight: filter 'mpl' applies to no tensor",
    ),
    Case(
        "a filter that is a regular expression",
        merge(method="slerp", base="a", other="b", t=[{"filter": "mlp.*proj", "value": 1}, {"value": 0}]),
        "models.merged.merge.t: filter 'mlp.*proj' applies to no tensor",
    ),
    Case(
        "a filter after an entry that applies to all tensors",
        merge(method="ties", base="a", models=[{"model": "b", "density": [{"value": 1}, *MLP_ALONE]}]),
        "models.merged.merge.models.0.density: filter 'mlp' applies to no tensor",
    ),
    Case(
        "a TIES merge all of whose weights are zero",
        merge(
            method="ties",
            base="a",
            models=[{"model": "b", "weight": [{"filter": "mlp", "value": 0}, {"value": 0}]}],
        ),
        "models.merged.merge.models: all weights are zero, so the merge would be the base 'a'",
    ),
    Case(
        "a task vector whose factor is zero in all layers",
        merge(method="task_arithmetic", base="a", models=[{"model": "b"}], **{"lambda": [0, 0]}),
        "models.merged.merge.models: all weights are zero, so the merge would be the base 'a'",
    ),
    Case(
        "a sum whose weights are all zero",
        merge(method="linear", models=weighted(0, 0), normalize=False),
        "models.merged.merge.models: all weights are zero, so the merge would be zero",
    ),
    Case(
        "the base among the models of a TIES merge, with a weight",
        merge(method="ties", base="a", models=weighted(0.5, 0.5)),
        "models.merged.merge.models.0.weight: 'a' is the base, which takes no part in the sum of task vectors",
    ),
    Case(
        "the base of task vectors as their only model",
        merge(method="task_arithmetic", base="a", models=[{"model": "a"}]),
        "models.merged.merge.models: lists no model besides the base 'a'",
    ),
    Case(
        "the base as one of only two models of a model stock",
        merge(method="model_stock", base="a", models=["a", "b"]),
        "models.merged.merge.models: model_stock needs two models besides the base 'a'",
    ),
    Case(
        "`out_dtype` beside a `dtype` that native-1 does not compute in",
        merge(method="linear", models=weighted(0.5, 0.5), dtype="bfloat16", out_dtype="float16"),
        "models.merged.merge.dtype: native-1 computes in float32, not in bfloat16",
    ),
    Case(
        "a weight so large that sums overflow",
        merge(method="linear", models=weighted(1e308, 1e308)),
        "models.merged.merge.models: a weight of lm_head.weight is larger than 1e+30",
    ),
    Case(
        "`weight: true`",
        merge(method="linear", models=weighted(True, 0.5)),
        "True is not a number",
    ),
    Case(
        "`weight` that is not finite",
        merge(method="linear", models=weighted(float("nan"), 0.5)),
        "models.merged.merge.models.0.weight",
    ),
    Case(
        "an empty list of values",
        merge(method="linear", models=weighted([], 0.5)),
        "models.merged.merge.models.0.weight",
    ),
    Case(
        "values and filters in one list",
        merge(method="linear", models=weighted([0.5, {"filter": "mlp", "value": 1}], 0.5)),
        "models.merged.merge.models.0.weight",
    ),
    Case(
        "a misspelt parameter of a merge",
        as_mergekit(models=of_b(), parameters={"normalise": False}),
        "models.merged.merge.parameters: della has no parameter 'normalise', and mergekit would ignore it",
    ),
    Case(
        "a parameter of another method of mergekit",
        as_mergekit("breadcrumbs", models=of_b(epsilon=0.1)),
        "models.merged.merge.models.0.parameters: breadcrumbs has no parameter 'epsilon'",
    ),
    Case(
        "a parameter of the whole merge at a single model",
        as_mergekit(models=of_b(normalize=False)),
        "models.merged.merge.models.0.parameters: normalize is a parameter of the whole merge, and mergekit ignores it here",
    ),
    Case(
        "parameters of the base of a merge",
        as_mergekit(models=[{"model": "a", "parameters": {"weight": 0.5}}, *of_b()]),
        "models.merged.merge.models.0.parameters: 'a' is the base, whose parameters mergekit ignores",
    ),
    Case(
        "a merge without a required parameter",
        as_mergekit(),
        "models.merged.merge.models.0.parameters.weight: no value applies to lm_head.weight",
    ),
    Case(
        "a required parameter of mergekit with a filter that leaves out tensors",
        as_mergekit(models=of_b(weight=MLP_ALONE)),
        "models.merged.merge.models.0.parameters.weight: no value applies to lm_head.weight",
    ),
    Case(
        "`density` of a merge in percent",
        as_mergekit(models=of_b(density=50)),
        "models.merged.merge.models.0.parameters.density: 50 is not above 0 and at most 1",
    ),
    Case(
        "a parameter of mergekit that is not a number",
        as_mergekit(models=of_b(density=[0.5, "half"])),
        "models.merged.merge.models.0.parameters.density: 'half' is not a finite number",
    ),
    Case(
        "a parameter of mergekit without a value",
        as_mergekit(models=of_b(density=None)),
        "models.merged.merge.models.0.parameters.density: None is not a finite number",
    ),
    Case(
        "a misspelt filter of mergekit",
        as_mergekit(models=of_b(density=[{"filters": "mlp", "value": 0.5}])),
        "models.merged.merge.models.0.parameters.density: {'filters': 'mlp', 'value': 0.5} is not of the form",
    ),
    Case(
        "the base twice among the models",
        as_mergekit(models=[{"model": "a"}, *of_b(), {"model": "a"}]),
        "models.merged.merge.models: 'a' is listed twice, and is the base",
    ),
    Case(
        "a `density` and an `epsilon` that give no probabilities",
        as_mergekit(models=of_b(density=0.5, epsilon=0.5)),
        "models.merged.merge: lm_head.weight: density 0.5 and epsilon 0.5 give probabilities from 0 to 1",
    ),
    Case(
        "a seed of a method that draws nothing",
        as_mergekit("breadcrumbs", models=of_b(), seed=1),
        "models.merged.merge.seed: breadcrumbs draws no random numbers; leave it out",
    ),
    Case(
        "a base for a method of mergekit that has none",
        as_mergekit("karcher"),
        "models.merged.merge.base: karcher has no base",
    ),
    Case(
        "a method of mergekit without its base",
        as_mergekit("sce", base=None),
        "models.merged.merge.base: sce needs a base",
    ),
    Case(
        "too few models for a method of mergekit",
        as_mergekit("nuslerp", models=of_b()),
        "models.merged.merge.models: nuslerp merges 2 models besides the base; 1 are listed",
    ),
]
