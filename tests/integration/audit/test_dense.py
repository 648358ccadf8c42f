"""Dense merges: what a passthrough copies is compared, all else is recomputed."""

import json

import pytest
import torch
import yaml

from herdbook.audit.difference import Difference
from herdbook.audit.outcomes import MOST_SHOWN
from herdbook.release.finding import Outcome
from herdbook.steps.merge.as_mergekit import merge_as_mergekit
from support.strangers import (
    failed,
    of,
    unproven,
    verify,
)
from support.verification import status


def test_a_passthrough_merge_is_compared_layer_by_layer(stage):
    config = {
        "merge_method": "passthrough",
        "dtype": "bfloat16",
        "slices": [
            {"sources": [{"model": "herd/base", "layer_range": [0, 2]}]},
            {"sources": [{"model": "herd/tuned", "layer_range": [1, 2]}]},
        ],
    }
    base, tuned = stage.sources["base"], stage.sources["tuned"]
    tensors = {name: one for name, one in base.items() if "layers" in name or "embed" in name}
    tensors |= {name: tuned[name] for name in ("model.norm.weight", "lm_head.weight")}
    tensors |= {
        name.replace("layers.1", "layers.2"): one.clone() for name, one in tuned.items() if "layers.1" in name
    }
    model = json.loads((stage.herd / "base/config.json").read_text()) | {"num_hidden_layers": 3}
    found = verify(stage.merge(tensors, config, model))
    assert status(found) == 0
    assert [one.subject for one in of(found, "equal", Outcome.PASSED)] == ["ends", "layers 0-1", "layers 2-2"]
    wrong = tensors | {"model.layers.2.mlp.up_proj.weight": base["model.layers.1.mlp.up_proj.weight"].clone()}
    found = verify(stage.merge(wrong, config, model))
    assert failed(found) == [("equal", "layers 2-2")]
    assert "equal to herd/base" in of(found, "equal", Outcome.FAILED)[0].detail


# -- merges whose numbers are computed ---------------------------------------------------------------------------------------


def merged(stage, formula, names=("base", "tuned", "other"), dtype=torch.bfloat16):
    """Return the tensors that a formula makes of those of models, in float32."""
    models = [stage.sources[name] for name in names]
    return {name: formula(*(one[name].float() for one in models)).to(dtype) for name in models[0]}


def put(stage, tensors, config, **changes):
    """Put a dense merge on the Hub; return its name."""
    model = json.loads((stage.herd / "base/config.json").read_text()) | changes
    return stage.merge(tensors, config, model)


def of_models(*names, **parameters):
    return [{"model": f"herd/{name}", "parameters": parameters} for name in names]


def linear(first=0.3, second=0.7):
    models = of_models("tuned", weight=first) + of_models("other", weight=second)
    return {"merge_method": "linear", "models": models, "dtype": "bfloat16"}


def details(found):
    return [one.detail for one in of(found, "made", Outcome.FAILED)]


def test_a_linear_merge_is_recomputed(stage):
    def mean(tuned, other):
        return 0.3 * tuned + 0.7 * other

    found = verify(put(stage, merged(stage, mean, ("tuned", "other")), linear()))
    assert not failed(found)
    (made, *_) = of(found, "made", Outcome.PASSED)
    assert "linear" in made.detail
    assert of(found, "sample")[0].subject == "21 of 21 tensors"
    assert unproven(found) <= {"roundings", "tokenizer"}
    sampled = verify(put(stage, merged(stage, mean, ("tuned", "other")), linear()), sample_bytes=20_000)
    assert not failed(sampled)
    assert "Detection probability" in of(sampled, "sample")[0].detail


def test_what_many_tensors_are_instead_is_looked_for_in_the_first_ones_only(stage, monkeypatch, capsys):
    """It takes longer than to compare them: before, each block of each tensor was recomputed in all orders of the models."""
    looked, real = [], Difference._order
    monkeypatch.setattr(Difference, "_order", lambda self: looked.append(1) or real(self))
    tensors = merged(stage, lambda _, tuned, other: 0.25 * tuned + 0.75 * other)
    found = verify(put(stage, tensors, linear()))
    assert len(tensors) > MOST_SHOWN
    assert len(looked) == MOST_SHOWN
    assert len(details(found)) == MOST_SHOWN + 1
    assert sum("fit the weights 0.250 and 0.750 best" in one for one in details(found)) == MOST_SHOWN
    assert capsys.readouterr().err.count("the comparison goes on") == 1


def test_another_weight_is_named(stage):
    def mean(tuned, other):
        return 0.25 * tuned + 0.75 * other

    found = verify(put(stage, merged(stage, mean, ("tuned", "other")), linear()))
    assert (
        "They fit the weights 0.250 and 0.750 best; the configuration gives 0.300 and 0.700"
        in details(found)[0]
    )


def test_another_source_fails(stage):
    def mean(tuned, base):
        return 0.3 * tuned + 0.7 * base

    found = verify(put(stage, merged(stage, mean, ("tuned", "base")), linear()))
    assert len(failed(found)) == 9  # eight tensors, and a line for the others
    assert "Another model, another weight or another version" in details(found)[0]


def test_a_model_that_was_not_merged_is_named(stage):
    found = verify(put(stage, stage.sources["other"], linear()))
    assert "They are those of herd/other alone" in details(found)[0]


def test_one_altered_number_is_found(stage):
    def mean(tuned, other):
        return 0.3 * tuned + 0.7 * other

    tensors = merged(stage, mean, ("tuned", "other"))
    tensors["model.layers.1.mlp.up_proj.weight"].view(-1)[77] += 0.5
    found = verify(put(stage, tensors, linear()))
    assert failed(found) == [("made", "model.layers.1.mlp.up_proj.weight")]
    assert "single numbers were altered" in details(found)[0]


def test_swapped_models_are_named(stage):
    config = {
        "merge_method": "slerp",
        "base_model": "herd/tuned",
        "models": [{"model": "herd/tuned"}, {"model": "herd/other"}],
        "parameters": {"t": 0.2},
        "dtype": "bfloat16",
    }
    tensors = {
        name: merge_as_mergekit(
            "slerp", [stage.sources[one][name] for one in ("other", "tuned")], name, {"t": 0.2}
        )
        for name in stage.sources["base"]
    }
    found = verify(put(stage, tensors, config))
    assert any("in the order herd/other and herd/tuned (swapped)" in detail for detail in details(found))


def test_another_dtype_is_named_and_compared_all_the_same(stage):
    def mean(tuned, other):
        return 0.3 * tuned + 0.7 * other

    rounded = merged(stage, mean, ("tuned", "other"))
    found = verify(put(stage, {name: one.float() for name, one in rounded.items()}, linear()))
    assert failed(found) == [("dtype", "21 tensors")]
    assert "are float32, and the configuration gives bfloat16" in of(found, "dtype")[0].detail


def test_tensors_that_are_missing_or_of_another_shape_are_named(stage):
    def mean(tuned, other):
        return 0.3 * tuned + 0.7 * other

    tensors = merged(stage, mean, ("tuned", "other"))
    del tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"][:4]
    found = verify(put(stage, tensors, linear()))
    lines = [one.detail for one in of(found, "layout", Outcome.FAILED)]
    assert "model.norm.weight" in lines[0]
    assert "another shape" in lines[1]


def test_steps_are_computed_on_the_fly(stage):
    config = {"name": "half", **linear(0.5, 0.5)}
    last = {
        "merge_method": "task_arithmetic",
        "base_model": "herd/base",
        "models": [{"model": "half", "parameters": {"weight": 0.5}}],
        "dtype": "bfloat16",
    }

    def both(base, tuned, other):
        half = (0.5 * tuned + 0.5 * other).bfloat16().float()
        return base + 0.5 * (half - base)

    folder = stage.write(
        merged(stage, both), config, json.loads((stage.herd / "base/config.json").read_text())
    )
    folder.with_suffix(".yml").write_text(yaml.safe_dump_all([config, last]))
    found = verify(folder)
    assert not failed(found)
    assert "linear and task_arithmetic" in of(found, "made", Outcome.PASSED)[0].detail
    assert {one.subject for one in of(found, "source")} == {"herd/base", "herd/tuned", "herd/other"}


# -- elements that are dropped at random


def dropped(stage, density):
    """Return the tensors of DARE of two models, by the definition: masks, and factors that keep the sum of magnitudes."""
    generator = torch.Generator().manual_seed(11)
    tensors = {}
    for name, base in stage.sources["base"].items():
        total = base.float()
        for model in ("tuned", "other"):
            delta = stage.sources[model][name].float() - base.float()
            kept = delta * (torch.rand(delta.shape, generator=generator) < density)
            if kept.abs().sum() > 0:
                kept *= delta.abs().sum() / kept.abs().sum()
            total = total + 0.5 * kept
        tensors[name] = total.bfloat16()
    return tensors


def dare(density):
    return {
        "merge_method": "dare_linear",
        "base_model": "herd/base",
        "models": of_models("tuned", "other", weight=0.5, density=density),
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }


def test_what_was_dropped_at_random_is_possible(stage):
    found = verify(put(stage, dropped(stage, 0.6), dare(0.6)), sample_bytes=12_000)
    assert not failed(found)
    assert any("dropping or keeping" in one.detail for one in of(found, "made", Outcome.PASSED))
    assert "drawn" in unproven(found)
    found = verify(put(stage, stage.sources["tuned"], dare(0.6)), sample_bytes=6_000)
    assert any("are none of the values" in detail for detail in details(found))


# -- what cannot be recomputed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"merge_method": "frobnicate"}, "frobnicate"),
        ({"models": of_models("tuned", "other", weight=[{"filter": "mlp", "value": 0.5}])}, "weight"),
        ({"models": of_models("tuned", "gone", weight=0.5)}, "herd/gone"),
        ({"models": of_models("tuned+herd/adapter", weight=0.5)}, "adapter"),
    ],
)
def test_what_cannot_be_planned_is_unproven_with_the_reason(stage, changes, reason):
    found = verify(put(stage, stage.sources["base"], {**linear(), **changes}))
    assert not failed(found)
    assert not of(found, "made")
    assert any(reason in one.detail for one in [*of(found, "unproven"), *of(found, "claim")])


def test_a_card_leads_to_no_folder_of_this_machine(stage, monkeypatch):
    monkeypatch.chdir(stage.root)
    config = {**linear(), "models": [{"model": "herd", "parameters": {"weight": 1.0}}]}
    found = verify(put(stage, stage.sources["base"], config))
    assert not of(found, "made")
    assert "path on its author's machine" in of(found, "source")[0].detail
