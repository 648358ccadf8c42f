"""Imported configurations beside the real mergekit, which merges what the same text says."""

import pytest
import torch
import yaml

from herdbook.importing import import_recipe
from herdbook.importing.methods import ALL
from herdbook.inference.forward import CheckpointFolder
from support import tiny
from support.inputs.tokens import add
from support.mergekit import MERGEKIT, merge_all

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


# -- each method, with everything that a configuration can have ------------------------------------------------------------------

GRADIENT = [0.2, 0.9, 0.35]
FILTERED = [{"filter": "mlp", "value": GRADIENT}, {"filter": "embed", "value": 0.7}, {"value": 0.4}]
# Values of parameters, by name, for the first model and for the second.
OF_MODELS = {
    "weight": [FILTERED, GRADIENT],
    "density": [[0.5, 0.8], 0.7],
    "gamma": [0.02, 0.05],
    "epsilon": [0.05, 0.1],
    "scale": [FILTERED, 0.5],
}
SHARED = {
    "normalize": True,
    "rescale": True,
    "int8_mask": True,
    "lambda": FILTERED,
    "t": FILTERED,
    "filter_wise": True,
    "max_iter": 5,
    "tol": "1e-9",
    "normalize_weights": False,
    "eps": 1e-8,
    "nuslerp_flatten": False,
    "nuslerp_row_wise": True,
    "epsilon": 0.1,
    "r": 0.5,
    "alpha": 0.3,
    "select_topk": [0.3, 0.8],
}


def whole(method, root):
    """Return mergekit's configuration of a merge of the step ``first`` and another model, with all that it may have."""
    known = ALL[method]
    models = ["first", str(root / "c")][: known.models or 2]
    own = {
        model: {key: OF_MODELS[key][number] for key in known.of_models} for number, model in enumerate(models)
    }
    settings = {
        "merge_method": method,
        "dtype": "float32",
        "out_dtype": "bfloat16",
        # without a base, mergekit takes the ids of any of the models for a union
        "tokenizer": {"source": "first" if known.base == "ignored" else "union", "pad_to_multiple_of": 4},
        **({} if known.base == "ignored" else {"base_model": str(root / "a")}),
        "parameters": {key: SHARED[key] for key in known.shared},
    }
    if method == "passthrough":
        slices = [
            {"model": model, "layer_range": [n, n + 2], "parameters": own[model]}
            for n, model in enumerate(models)
        ]
        return {**settings, "slices": [{"sources": [one]} for one in slices]}
    entries = [{"model": model, "parameters": own[model]} for model in models]
    if known.base != "ignored":
        entries.insert(1, {"model": str(root / "a")})
    return {**settings, "models": entries}


@pytest.mark.usefixtures("same_draw")
def test_each_method_with_all_options_in_two_steps_has_the_bits_of_mergekit(tmp_path):
    for seed, name in enumerate(HERD):
        # only one of them has tokens of its own, since mergekit takes models in an order that changes
        more = ["<|im_start|>", "<|im_end|>"] if name == "b" else []
        tiny.write_model(tmp_path / name, seed=seed, layers=3, vocab=64 + len(more))
        tiny.write_tokenizer(tmp_path / name, 64)
        for number, token in enumerate(more, start=64):
            add(tmp_path / name, token, number)
    a, b = (str(tmp_path / name) for name in "ab")
    first = {
        "merge_method": "linear",
        "base_model": a,
        "models": [{"model": a, "parameters": {"weight": 0.3}}, {"model": b, "parameters": {"weight": 0.7}}],
        "dtype": "float32",
        "tokenizer": {"source": "union"},
    }
    made = str(tmp_path / "theirs/first")
    merge_all(
        {
            made: first,
            **{
                tmp_path / "theirs" / method: yaml.safe_load(
                    yaml.safe_dump(whole(method, tmp_path)).replace(": first", f": {made}")
                )
                for method in ALL
            },
        }
    )
    for method in ALL:
        path = tmp_path / f"{method}.yml"
        path.write_text(
            yaml.safe_dump_all([{"name": "first", **first}, whole(method, tmp_path)]), encoding="utf-8"
        )
        recipe = tmp_path / f"{method}-recipe.yaml"
        recipe.write_text(import_recipe(path, relative_to=tmp_path).text, encoding="utf-8")
        plan = tiny.build(recipe, tmp_path / "results")
        ours = CheckpointFolder(plan.layout.folder(plan.released))
        theirs = CheckpointFolder(tmp_path / "theirs" / method)
        assert ours.spans.keys() == theirs.spans.keys(), method
        for one in ours.spans:
            mine, their = ours.stored(one), theirs.stored(one)
            assert (mine.dtype, mine.shape) == (their.dtype, their.shape), (method, one)
            assert torch.equal(mine, their), (method, one)


# -- models that also read images ------------------------------------------------------------------------------------------------


def test_modules_are_those_of_mergekit(tmp_path):
    for seed, name in enumerate("ab"):
        tiny.write_vision_model(tmp_path / name, seed, dtype=torch.bfloat16)
    a, b = (str(tmp_path / name) for name in "ab")
    both = [
        {
            "model": b,
            "parameters": {"weight": [{"filter": "attention", "value": [0.3, 0.9]}, {"value": 0.2}]},
        },
        {"model": a},
    ]
    config = {
        "merge_method": "task_arithmetic",
        "base_model": a,
        "dtype": "float32",
        "out_dtype": "bfloat16",
        "modules": {
            "text_decoder": {
                "slices": [{"sources": [run(a, 0, 3), run(b, 0, 3, weight=[0, 1, 0.5])]}],
                "parameters": {"lambda": {"filter": "mlp", "value": 0.8}},
            },
            "vision_tower": {"models": both},
            "multi_modal_projector": {"models": [{"model": b}], "parameters": {"weight": 0.7}},
        },
        "parameters": {"lambda": 1.1},
    }
    # without modules, all are merged alike
    plain = {**config, "models": both}
    del plain["modules"]
    for name, one in {"modules": config, "plain": plain}.items():
        place = tmp_path / name
        place.mkdir()
        (place / "mergekit_config.yml").write_text(yaml.safe_dump(one), encoding="utf-8")
        recipe = place / "recipe.yaml"
        made = import_recipe(place / "mergekit_config.yml", relative_to=place)
        recipe.write_text(made.text, encoding="utf-8")
        plan = tiny.build(recipe, place / "results")
        merge_all({place / "theirs": one})
        ours, theirs = (
            CheckpointFolder(folder) for folder in (plan.layout.folder(plan.released), place / "theirs")
        )
        assert ours.spans.keys() == theirs.spans.keys()
        for tensor in ours.spans:
            assert torch.equal(ours[tensor], theirs[tensor]), (name, tensor)
