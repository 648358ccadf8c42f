"""Merges of models that also read images: all of a model, or each module for itself."""

import json
import os
import shutil

import pytest
import torch
from transformers import AutoModelForImageTextToText

from herdbook import plan as plans
from herdbook.architectures.meaning import differences, lengths
from herdbook.architectures.modules import module_of, split
from herdbook.cli.main import main
from herdbook.errors import RecipeError, SourceError
from herdbook.inference.forward import CheckpointFolder
from herdbook.lock.whole import check_config
from herdbook.plan import Node
from herdbook.plan.images import spread_over_projector
from herdbook.recipe import Merge
from support import tiny

WEIGHTS = {"text_decoder": (0.25, 0.75), "vision_tower": (1.0, 0.0), "multi_modal_projector": (0.5, 0.5)}
PARTS = {
    "language_model.": "text_decoder",
    "vision_tower.": "vision_tower",
    "multi_modal_projector.": "multi_modal_projector",
}


@pytest.fixture(scope="module")
def herd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("herd")
    for seed, name in enumerate("ab"):
        tiny.write_vision_model(folder / name, seed)
    tiny.write_model(folder / "text")
    return folder


def weighted(one, other):
    both = {"a": one, "b": other}
    return {
        "method": "linear",
        "models": [{"model": name, "weight": weight} for name, weight in both.items()],
    }


def recipe(herd, tmp_path, made, **sections):
    models = {name: {"folder": os.path.relpath(herd / name, tmp_path)} for name in ("a", "b")}
    return tiny.write_recipe(tmp_path / "recipe.yaml", {**models, "merged": made}, **sections)


def by_module(**changes):
    entries = {module: weighted(*weights) for module, weights in WEIGHTS.items()} | changes
    return {"merge": {"method": "modules", "modules": {name: one for name, one in entries.items() if one}}}


def refused(herd, tmp_path, made, **sections):
    path = recipe(herd, tmp_path, made, **sections)
    tiny.lock(path)
    with pytest.raises(RecipeError) as caught:
        plans.load(path)
    return [line.partition("recipe.yaml: ")[2] for line in str(caught.value).splitlines()]


def test_each_module_is_merged_for_itself(herd, tmp_path):
    made = by_module(vision_tower={"method": "linear", "dtype": "float32", "models": [{"model": "a"}]})
    plan = tiny.build(recipe(herd, tmp_path, made), tmp_path / "results")
    folder = plan.layout.folder(plan.released)
    ours, *parents = (CheckpointFolder(place) for place in (folder, herd / "a", herd / "b"))
    assert ours.spans.keys() == parents[0].spans.keys() == parents[1].spans.keys()
    for name in ours.spans:
        one, other = (parent[name].double() for parent in parents)
        weights = WEIGHTS[next(module for start, module in PARTS.items() if name.startswith(start))]
        torch.testing.assert_close(ours[name].double(), weights[0] * one + weights[1] * other)
    _, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    assert (folder / "preprocessor_config.json").read_bytes() == (
        herd / "a/preprocessor_config.json"
    ).read_bytes()
    labels = {part.label for part in plan.released.parts}
    assert labels == {"text_decoder-1", "vision_tower-1", "multi_modal_projector-1"}


def test_lists_are_spread_over_the_layers_of_each_module(herd, tmp_path):
    merge = {
        "method": "linear",
        "normalize": False,
        "models": [{"model": "a", "weight": [0, 1]}, {"model": "b", "weight": 0}],
    }
    path = recipe(herd, tmp_path, {"merge": merge})
    tiny.lock(path)
    node = plans.load(path).released
    weights = {name: of[0] for part in node.parts for name, of in weights_of(part).items()}
    for start in ("language_model.model.layers", "vision_tower.transformer.layers"):
        found = {weights[name] for name in weights if name.startswith(f"{start}.1.")}
        assert found == {0.5}, start
    assert weights["multi_modal_projector.linear_1.weight"] == 0


def weights_of(part):
    return {name: of["weights"] for name, of in part.operation.values.items()}


def test_modules_of_both_ways_to_name_tensors():
    names = {
        "text_decoder": [
            "language_model.model.layers.0.mlp.up_proj.weight",
            "language_model.lm_head.weight",
            "model.language_model.norm.weight",
            "model.embed_tokens.weight",
            "lm_head.weight",
        ],
        "vision_tower": [
            "visual.blocks.0.attn.qkv.weight",
            "vision_tower.vision_model.post_layernorm.bias",
            "model.visual.pos_embed.weight",
        ],
        "multi_modal_projector": [
            "visual.merger.mlp.0.bias",
            "model.visual.deepstack_merger_list.0.norm.bias",
            "multi_modal_projector.a",
        ],
    }
    every = [name for held in names.values() for name in held]
    assert split(every, names) == (names, [])
    assert split(every, ["visual", "default"])[0]["visual"] == [
        "visual.blocks.0.attn.qkv.weight",
        "visual.merger.mlp.0.bias",
    ]
    assert module_of("visuals.x", ["visual"]) is None


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (by_module(vision_tower=None), ["models.merged.merge.modules: none has vision_tower."]),
        (by_module(vision={"method": "linear", "models": [{"model": "a"}]}), ["models.merged.merge.modules.vision: 'a' has no tensors of it"]),
        (
            by_module(text_decoder={**weighted(1, 1), "layers": "0-1"}),
            ["models.merged.merge.modules.text_decoder.layers: modules are merged whole, and it has 3 layers; leave it out"],
        ),
        (by_module(vision_tower=weighted(0, 0)), ["models.merged.merge.modules.vision_tower.models: the weights of vision_tower."]),
        ({"merge": {**weighted(1, 1), "layers": "0-1"}}, ["models.merged.merge.layers: 'a' also reads images"]),
        ({"merge": {**weighted(1, 1), "tokenizer": {"source": "union"}}}, ["models.merged.merge.tokenizer: 'a' also reads images"]),
        (
            {"merge": {"method": "passthrough", "slices": [{"model": "a", "layers": "0-1"}]}},
            ["models.merged.merge: 'a' also reads images, whose layers cannot be stacked"],
        ),
        ({"laser": "a", "rank": 2, "matrices": ["mlp.down_proj"]}, ["models.merged.laser: 'a' also reads images"]),
        (
            {"moe": {"base": "a", "gate": "random", "experts": [{"model": "a"}, {"model": "b"}]}},
            ["models.merged.moe: 'a' also reads images"],
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_made(herd, tmp_path, made, expected):
    found = refused(herd, tmp_path, made)
    assert len(found) == len(expected)
    for words, line in zip(expected, found, strict=True):
        assert line.startswith(words)


def test_what_is_asked_of_the_result(herd, tmp_path):
    tiny.write_task(tmp_path / "task.yaml")
    sections = {"quantize": {"methods": ["Q8_0"]}, "evaluate": {"tasks": ["task.yaml"], "models": ["a"]}}
    assert refused(herd, tmp_path, by_module(), **sections) == [
        "quantize: 'merged' also reads images, and files of models of text alone are made; leave it out",
        "evaluate.models.0: 'a' also reads images, and models of text alone are measured; leave it out",
    ]


def test_configurations_are_compared_module_by_module(herd):
    config = json.loads((herd / "a/config.json").read_text())

    def changed(section, **settings):
        return {**config, section: {**config[section], **settings}}

    assert differences(config, {**config, "transformers_version": "0", "dtype": "float16"}) == []
    assert differences(changed("text_config", rms_norm_eps=0.5), config) == [
        "a norm epsilon of 0.5, not 1e-06 (in text_config)"
    ]
    assert differences(changed("vision_config", patch_size=7), config) == [
        "a patch_size of 7, not 14 (in vision_config)"
    ]
    assert differences({**config, "spatial_merge_size": 4}, config) == ["a spatial_merge_size of 4, not 2"]
    [line] = lengths(changed("text_config", max_position_embeddings=64), config)
    assert line == "context (64 tokens, 128 tokens) (in text_config)"


def test_another_processor_is_a_warning(herd, tmp_path):
    shutil.copytree(herd / "b", tmp_path / "c")
    (tmp_path / "c/preprocessor_config.json").write_text('{"size": 7}')
    path = recipe(herd, tmp_path, {"merge": weighted(1, 1)})
    text = path.read_text().replace(os.path.relpath(herd / "b", tmp_path), "c")
    path.write_text(text)
    tiny.lock(path)
    [warning] = plans.load(path).warnings
    assert warning.startswith(
        "models.merged.merge: preprocessor_config.json of 'b' is not that of 'a', which the result has"
    )


def test_a_processor_that_leads_to_code_is_refused(herd, tmp_path):
    shutil.copytree(herd / "b", tmp_path / "c")
    (tmp_path / "c/preprocessor_config.json").write_text('{"auto_map": {"AutoProcessor": "x--y"}}')
    path = tiny.write_recipe(tmp_path / "recipe.yaml", {"c": {"folder": "c"}})
    with pytest.raises(
        SourceError, match=r"preprocessor_config.json requires running its own code \(auto_map\)"
    ):
        tiny.lock(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"text_config": "x"}, "text_config is not a mapping"),
        ({"architectures": None}, "names no class"),
        (
            {"vision_config": {"num_hidden_layers": "7"}},
            "vision_config: num_hidden_layers: expected a whole number",
        ),
        ({"vision_config": {"num_hidden_layers": 10**9}}, "vision_config has 1000000000 layers"),
        (
            {"text_config": {"rope_parameters": {"rope_theta": "x"}}},
            "text_config: rope_parameters.rope_theta",
        ),
    ],
)
def test_configurations_that_are_refused(herd, changes, problem):
    config = json.loads((herd / "a/config.json").read_text())
    with pytest.raises(SourceError, match=problem):
        check_config({**config, **changes}, "folder: a")


def test_what_other_commands_do_not_take(herd, tmp_path, capsys):
    assert (
        main(["extract", str(herd / "a"), str(herd / "b"), "-o", str(tmp_path / "made"), "--rank", "2"]) == 2
    )
    assert "also reads images, and adapters are extracted for models of text alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "t", "warned"),
    [("qwen2_vl", [0, 1], True), ("qwen2_vl", 0.5, False), ("llava", [0, 1], False)],
)
def test_values_over_the_layers_of_a_projector_that_mergekit_writes_twice_are_a_warning(kind, t, warned):
    merge = Merge.model_validate({"merge": {"method": "slerp", "base": "a", "other": "b", "t": t}})
    node = Node("m", "merge", "0" * 64, merge, ("a", "b"), (), {"model_type": kind})
    assert bool(list(spread_over_projector(node))) is warned
