"""Imported configurations beside the real mergekit, which merges what the same text says."""

import pytest
import torch
import yaml

from herdbook.importing import import_recipe
from herdbook.inference.forward import CheckpointFolder
from support import tiny
from support.mergekit import MERGEKIT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mergekit")]
HERD = "abc"


@pytest.fixture
def herd(tmp_path):
    for seed, name in enumerate(HERD):
        tiny.write_model(tmp_path / name, seed=seed, layers=4)
    return tmp_path


def run(root, first, stop, **parameters):
    return {"layer_range": [first, stop], "model": root, **({"parameters": parameters} if parameters else {})}


def configurations(root):
    a, b, c = (str(root / name) for name in HERD)
    return {
        "slices as mergekit-evolve writes them": {
            "merge_method": "ties",
            "base_model": a,
            "parameters": {"normalize": 1.0, "int8_mask": True},
            "slices": [
                {"sources": [run(b, 0, 2, weight=0.5, density=0.5), run(c, 0, 2, weight=0.25), run(a, 0, 2)]},
                {"sources": [run(b, 2, 4, weight=[0.1, 0.9]), run(c, 2, 4, weight=0.75), run(a, 2, 4)]},
            ],
        },
        "one slice of all layers, with filters at three levels": {
            "merge_method": "linear",
            "slices": [
                {
                    "sources": [run(a, 0, 4, weight=[{"filter": "mlp", "value": [0.1, 0.7]}]), run(b, 0, 4)],
                    "parameters": {"weight": {"filter": "self_attn", "value": 0.2}},
                }
            ],
            "parameters": {"weight": 0.3},
        },
        "other layers of each model": {
            "merge_method": "slerp",
            "base_model": a,
            "slices": [{"sources": [run(a, 1, 3), run(b, 2, 4)], "parameters": {"t": [0.2, 0.8]}}],
        },
        "a slice that mergekit makes": {
            "merge_method": "nuslerp",
            "slices": [{"sources": [run(a, 1, 4, weight=0.3), run(b, 0, 3, weight=0.7)]}],
        },
        "a whole model, scaled": {
            "merge_method": "passthrough",
            "models": [{"model": a, "parameters": {"scale": [{"filter": "down_proj", "value": 0.5}]}}],
        },
        "the base of a linear merge is a model": {
            "merge_method": "linear",
            "base_model": c,
            "models": [{"model": a, "parameters": {"weight": 0.5}}, {"model": b}],
            "parameters": {"weight": 0.25},
        },
    }


@pytest.mark.parametrize("name", configurations(tiny.Path("x")))
def test_an_imported_configuration_gives_the_tensors_of_mergekit(herd, name):
    path = herd / "mergekit_config.yml"
    path.write_text(yaml.safe_dump({"dtype": "float32", **configurations(herd)[name]}), encoding="utf-8")
    MERGEKIT.run([str(path), str(herd / "theirs")], herd)
    recipe = herd / "recipe.yaml"
    recipe.write_text(import_recipe(path, relative_to=herd).text, encoding="utf-8")
    plan = tiny.build(recipe, herd / "results")
    ours, theirs = CheckpointFolder(plan.layout.folder(plan.released)), CheckpointFolder(herd / "theirs")
    assert ours.spans.keys() == theirs.spans.keys()
    for one in ours.spans:
        assert torch.equal(ours[one], theirs[one]), one
