"""Merges of runs of layers, against the tensors that a loop over whole models and their layers gives."""

import json

import pytest
import torch

from herdbook.errors import RecipeError
from herdbook.inference.forward import CheckpointFolder
from herdbook.plan import load
from support import tiny

HERD = {name: {"folder": name} for name in "abc"}


@pytest.fixture(scope="module")
def herd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("herd")
    for seed, name in enumerate(HERD):
        tiny.write_model(folder / name, seed=seed, layers=4)
    return folder


def built(herd, tmp_path, models):
    for name in HERD:
        (tmp_path / name).symlink_to(herd / name)
    recipe = tiny.write_recipe(tmp_path / "recipe.yaml", {**HERD, **models})
    plan = tiny.build(recipe, tmp_path / "results")
    return CheckpointFolder(plan.layout.folder(plan.released))


def planned(herd, tmp_path, **entry):
    for name in HERD:
        if not (tmp_path / name).exists():
            (tmp_path / name).symlink_to(herd / name)
    recipe = tiny.write_recipe(tmp_path / "recipe.yaml", {**HERD, "made": {"merge": entry}})
    tiny.lock(recipe)
    return load(recipe, tmp_path / "results")


def layer(folder, number):
    start = f"model.layers.{number}."
    return {name.removeprefix(start): folder[name] for name in folder.spans if name.startswith(start)}


def numbers(folder):
    return {name.split(".")[2] for name in folder.spans if "layers" in name}


def mean(left, right, weight):
    return {name: (1 - weight) * left[name] + weight * right[name] for name in left}


def linear(first, second, weight, **entry):
    models = [{"model": first, "weight": 1 - weight}, {"model": second, "weight": weight}]
    return {"merge": {"method": "linear", "models": models, "dtype": "float32", **entry}}


def test_a_run_of_layers_has_their_numbers_from_zero(herd, tmp_path):
    made = built(herd, tmp_path, {"made": linear("a", "b", 0.25, layers={"a": "1-2", "b": "2-3"})})
    a, b = CheckpointFolder(herd / "a"), CheckpointFolder(herd / "b")
    assert numbers(made) == {"0", "1"}
    for new, (left, right) in enumerate([(1, 2), (2, 3)]):
        expected = mean(layer(a, left), layer(b, right), 0.25)
        found = layer(made, new)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor)
    for name in ("model.embed_tokens.weight", "model.norm.weight"):
        torch.testing.assert_close(made[name], 0.75 * a[name] + 0.25 * b[name])


def test_a_gradient_is_spread_over_the_run(herd, tmp_path):
    entry = {"method": "slerp", "base": "a", "other": "b", "t": [0, 1], "dtype": "float32", "layers": "1-3"}
    made = built(herd, tmp_path, {"made": {"merge": entry}})
    a, b = CheckpointFolder(herd / "a"), CheckpointFolder(herd / "b")
    for name, tensor in layer(made, 0).items():
        assert torch.equal(tensor, layer(a, 1)[name].float())
    for name, tensor in layer(made, 2).items():
        assert torch.equal(tensor, layer(b, 3)[name].float())


def test_slices_of_several_models_are_a_stack_of_merges(herd, tmp_path):
    slices = [{"model": "low", "layers": "0-1"}, {"model": "high", "layers": "0-1"}]
    made = built(
        herd,
        tmp_path,
        {
            "low": linear("a", "b", 0.5, layers="0-1"),
            "high": linear("a", "c", 0.125, layers="2-3"),
            "made": {"merge": {"method": "passthrough", "slices": slices}},
        },
    )
    a, b, c = (CheckpointFolder(herd / name) for name in "abc")
    assert numbers(made) == set("0123")
    for number in range(4):
        other, weight = (b, 0.5) if number < 2 else (c, 0.125)
        for name, tensor in mean(layer(a, number), layer(other, number), weight).items():
            torch.testing.assert_close(layer(made, number)[name], tensor)
    embeddings, norm = "model.embed_tokens.weight", "model.norm.weight"
    torch.testing.assert_close(made[embeddings], (a[embeddings] + b[embeddings]) / 2)
    torch.testing.assert_close(made[norm], 0.875 * a[norm] + 0.125 * c[norm])


@pytest.mark.parametrize("method", ["linear", "nuslerp"])
def test_all_layers_of_all_models_are_the_same_as_no_choice(herd, tmp_path, method):
    entry = {
        "linear": {"models": [{"model": "a", "weight": 1}, {"model": "b", "weight": [0, 1]}]},
        "nuslerp": {"models": [{"model": "a"}, {"model": "b"}], "parameters": {"weight": 1}},
    }[method]
    keys = {
        planned(herd, tmp_path, method=method, **entry, **chosen).released.key
        for chosen in ({}, {"layers": "0-3"}, {"layers": {"a": "0-3", "b": "0-3"}})
    }
    other = planned(herd, tmp_path, method=method, **entry, layers="0-2").released.key
    assert len(keys) == 1
    assert other not in keys


def test_an_own_list_of_the_layers_is_cut(herd, tmp_path):
    for name in "ab":
        folder = tmp_path / name
        tiny.write_model(folder, layers=4)
        config = json.loads((folder / "config.json").read_text())
        config["layer_types"] = ["full_attention"] * 4
        (folder / "config.json").write_text(json.dumps(config))
    models = [{"model": "a"}, {"model": "b"}]
    plan = planned(herd, tmp_path, method="linear", models=models, layers="2-3")
    assert plan.released.config["layer_types"] == ["full_attention"] * 2


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ("0-4", "models.made.merge.layers: layer 4 does not exist in 'a'; the last is 3"),
        ("3-2", "models.made.merge.layers: the range 3-2 is empty"),
        ({"a": "0-1"}, "models.made.merge.layers: 'b' is missing"),
        ({"a": "0-1", "b": "0-1", "c": "0-1"}, "models.made.merge.layers.c: 'c' is not one of the merged models"),
        ({"a": "0-1", "b": "0-2"}, "models.made.merge.layers: each model needs equally many layers; found 2, 3"),
        ("0-99999999999999999999", "models.made.merge.layers"),
    ],
)  # fmt: skip
def test_layers_that_cannot_be_taken(herd, tmp_path, layers, problem):
    models = [{"model": "a"}, {"model": "b"}]
    with pytest.raises(RecipeError) as caught:
        planned(herd, tmp_path, method="linear", models=models, layers=layers)
    assert problem in str(caught.value)
