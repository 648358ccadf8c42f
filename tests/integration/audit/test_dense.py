"""Dense merges: a passthrough is compared, of the others nothing is proven."""

import json

from herdbook.release.finding import Outcome
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


def test_of_other_dense_merges_nothing_is_proven_and_that_is_said(stage):
    config = {
        "merge_method": "slerp",
        "base_model": "herd/base",
        "parameters": {"t": 0.5},
        "slices": [
            {"sources": [{"model": f"herd/{one}", "layer_range": [0, 2]} for one in ("base", "tuned")]}
        ],
    }
    found = verify(
        stage.merge(stage.sources["base"], config, json.loads((stage.herd / "base/config.json").read_text()))
    )
    assert not failed(found)
    assert not of(found, "equal")
    assert unproven(found) == {"weights"}
    assert "slerp" in of(found, "unproven")[0].detail
