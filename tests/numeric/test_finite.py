"""No step writes NaN or an infinity: it names the tensor, whether a source has such a value or a result is too large for its dtype."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from herdbook.errors import CheckpointError
from support import tiny

NORM, DOWN = "model.norm.weight", "model.layers.0.mlp.down_proj.weight"
LASER = {"laser": "a", "rank": {"fraction": 0.04}, "matrices": ["mlp.down_proj"]}
MEAN = {"merge": {"method": "linear", "models": [{"model": "a"}, {"model": "b"}]}}
MIXTURE = {"moe": {"base": "a", "gate": "random", "experts": [{"model": "a"}, {"model": "b"}]}}
TUNED = {"adapter": "adapter", "on": "a"}
MADE = {"copied": None, "laser": LASER, "mean": MEAN, "mixture": MIXTURE, "adapter": TUNED}
SCALED = {
    "moe": {
        "base": "a",
        "gate": "random",
        "semantics": "mergekit-0.1.5",
        "experts": [{"model": "a", "residual_scale": 1e6}, {"model": "b"}],
    }
}


def change(path, name, edit):
    held = load_file(path)
    held[name] = edit(held[name].clone())
    save_file(held, path, metadata={"format": "pt"})


def put(value):
    def edit(tensor):
        tensor.view(-1)[3] = value
        return tensor

    return edit


def build(folder, made, dtype=torch.bfloat16):
    """Return a function that builds two models and one that is made of them, or the first alone."""
    for seed, name in enumerate("ab"):
        tiny.write_model(folder / name, seed=seed, dtype=dtype)
    tiny.write_adapter(folder / "adapter", folder / "a")
    models = {name: {"folder": name} for name in ("ab" if made else "a")}
    recipe = tiny.write_recipe(folder / "r.yaml", models | ({"made": made} if made else {}))
    return lambda: tiny.build(recipe, folder / "results")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("name", [NORM, DOWN])
@pytest.mark.parametrize("made", MADE)
def test_a_value_in_a_source_is_named_whatever_is_made_of_it(tmp_path, made, name, value):
    run = build(tmp_path, MADE[made])
    change(tmp_path / "a/model.safetensors", name, put(value))
    with pytest.raises(
        CheckpointError, match=f"a/model.safetensors: tensor {name} contains NaN or infinite values"
    ):
        run()


@pytest.mark.parametrize("side", ["A", "B"])
def test_a_value_in_an_adapter_is_named(tmp_path, side):
    run = build(tmp_path, TUNED)
    name = f"base_model.model.{DOWN.removesuffix('.weight')}.lora_{side}.weight"
    change(tmp_path / "adapter/adapter_model.safetensors", name, put(float("nan")))
    with pytest.raises(CheckpointError, match=f"lora_{side}.weight.*: contains NaN|tensor {DOWN}"):
        run()


def corner(tensor):
    """Return a matrix whose best approximation of rank 1 is larger than the largest number of float16."""
    tensor[:] = 0
    tensor[:2, :2] = torch.tensor([[65504.0, 65504.0], [65504.0, 30000.0]])
    return tensor


@pytest.mark.parametrize(
    ("made", "edit", "message"),
    [
        (LASER, corner, f"tensor {DOWN}, reduced: has values that F16 cannot represent"),
        (SCALED, put(1.0), f"tensor {DOWN}, with noise: has values that F16 cannot represent"),
    ],
)
def test_results_that_are_too_large_for_their_dtype_are_named(tmp_path, made, edit, message):
    run = build(tmp_path, made, torch.float16)
    change(tmp_path / "a/model.safetensors", DOWN, edit)
    with pytest.raises(CheckpointError, match=message):
        run()


@pytest.mark.parametrize("entry", [MEAN, MIXTURE])
def test_numbers_that_a_narrower_dtype_cannot_represent_are_named(tmp_path, entry):
    ((kind, settings),) = entry.items()
    run = build(tmp_path, {kind: settings | {"dtype": "float16"}}, torch.float32)
    change(tmp_path / "a/model.safetensors", DOWN, lambda tensor: tensor + 1e6)
    with pytest.raises(CheckpointError, match=r"tensor model.layers.0.*values that F16 cannot represent"):
        run()
