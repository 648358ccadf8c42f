"""Configurations in the forms in which people publish them: each has a meaning, stated here, that the recipe must have."""

import os
from pathlib import Path

import pytest
import yaml

from herdbook import recipe as recipes
from herdbook import yamlio
from herdbook.audit.configuration import parse
from herdbook.cli.main import main
from herdbook.errors import RecipeError, UnverifiedError
from herdbook.importing import keys
from herdbook.importing.convert import convert
from herdbook.importing.methods import NATIVE
from herdbook.recipe.mergekit_methods import METHODS

DATA = Path(__file__).parents[1] / "data/mergekit"
DOCS = Path(__file__).parents[2] / "docs/import.md"


def hub(*names):
    return {name.lower().partition("@")[0]: {"hub": f"farm/{name}"} for name in names}


def merge(method, **entry):
    return {"merge": {"method": method, "dtype": "bfloat16", **entry}}


def modules(tokenizer, **entries):
    own = {name: {"dtype": "bfloat16", **entry} for name, entry in entries.items()}
    return {"merge": {"method": "modules", "modules": own, **({"tokenizer": tokenizer} if tokenizer else {})}}


OAK_TO_ELM = {
    "method": "slerp",
    "base": "oak",
    "other": "elm",
    "dtype": "float32",
    "out_dtype": "bfloat16",
}


def prompted(model, *prompts, **entry):
    return {"model": model, "prompts": list(prompts), **entry}


# The models of each recipe, written by hand from mergekit's documentation of what the configuration means.
MEANINGS = {
    "slerp-slice.yaml": {
        **hub("oak", "elm"),
        "merged": merge(
            "slerp",
            base="oak",
            other="elm",
            t=[
                {"filter": "mlp", "value": [1, 0.5, 0]},
                {"filter": "self_attn", "value": [0, 0.25, 1]},
                {"value": 0.4},
            ],
            layers="0-27",
            dtype="float16",
        ),
    },
    "dare-base-listed.yaml": {
        **hub("root", "oak", "elm"),
        "merged": merge(
            "dare_linear",
            base="root",
            models=[
                {"model": "oak", "weight": 0.5, "density": 0.6},
                {"model": "elm", "weight": 0.2, "density": 0.4},
            ],
            normalize=True,
        ),
    },
    "self-stack.yaml": {
        **hub("oak", "elm"),
        "merged": merge(
            "passthrough",
            slices=[
                {"model": "oak", "layers": "0-11"},
                {"model": "oak", "layers": "6-17"},
                {"model": "elm", "layers": "18-23"},
            ],
        ),
    },
    "steps.yaml": {
        **hub("root", "oak", "elm", "ash"),
        "sapling": merge(
            "ties",
            base="root",
            models=[
                {"model": "oak", "weight": 0.7, "density": 0.5},
                {"model": "elm", "weight": 0.3, "density": 0.5},
            ],
        ),
        "merged": merge("model_stock", base="root", models=["sapling", "ash"]),
    },
    "steps-to-a-mixture.yaml": {
        **hub("oak", "elm", "ash"),
        "sapling": merge("linear", models=[{"model": "oak", "weight": 0.5}, {"model": "elm", "weight": 0.5}]),
        "grove": {
            "moe": {
                "base": "sapling",
                "semantics": "mergekit-0.1.5",
                "gate": "hidden",
                "experts_per_token": 2,
                "experts": [prompted("sapling", "grow"), prompted("ash", "burn")],
                "dtype": "bfloat16",
            }
        },
    },
    "card.md": {
        **hub("oak", "elm", "ash"),
        "left-4b": merge("slerp", base="oak", other="elm", t=0.3, dtype="float32", out_dtype="bfloat16"),
        "merged": merge("slerp", base="left-4b", other="ash", t=[0, 0.5, 0]),
    },
    "card-preformatted.md": {
        "oak": {"hub": "farm/oak"},
        "elm-4b": {"hub": "farm/Elm-4B"},
        "merged": merge("linear", models=[{"model": "oak", "weight": 1}, {"model": "elm-4b", "weight": 2}]),
    },
    "card-quoted.md": {
        **hub("root", "oak"),
        "merged": merge(
            "task_arithmetic", base="root", models=[{"model": "oak", "weight": 0.8}], **{"lambda": 0.9}
        ),
    },
    "card-bare.md": {
        **hub("oak", "elm"),
        "merged": merge(
            "linear", models=[{"model": "oak", "weight": 0.25}, {"model": "elm", "weight": 0.75}]
        ),
    },
    "shared-expert.yaml": {
        **hub("root", "oak", "elm", "ash"),
        "mixture": {
            "moe": {
                "base": "root",
                "semantics": "mergekit-0.1.5",
                "gate": "cheap_embed",
                "experts_per_token": 2,
                "experts": [prompted("oak", "x"), prompted("elm", "y")],
                "shared_experts": [{"model": "ash"}],
                "family": "deepseek",
            }
        },
    },
    "shared-expert-prompts.yaml": {
        **hub("root", "oak", "elm", "ash"),
        "mixture": {
            "moe": {
                "base": "root",
                "semantics": "mergekit-0.1.5",
                "gate": "hidden",
                "experts_per_token": 2,
                "experts": [prompted("oak", "x"), prompted("elm", "y", negative_prompts=["z"])],
                "shared_experts": [prompted("ash", "all", residual_scale=0.2)],
                "family": "qwen2",
            }
        },
    },
    "zeros.yaml": {
        **hub("root", "oak", "elm"),
        "mixture": {
            "moe": {
                "base": "root",
                "semantics": "mergekit-0.1.5",
                "gate": "hidden",
                "experts_per_token": 1,
                "experts": [prompted("oak", "x"), prompted("elm", "y", residual_scale=0)],
            }
        },
    },
    "card-prose.md": {
        **hub("root", "oak", "elm"),
        "oak2flat": merge("task_arithmetic", base="root", models=[{"model": "oak", "weight": 1.0}]),
        "merged": merge(
            "passthrough",
            slices=[{"model": "oak2flat", "layers": "0-12"}, {"model": "elm", "layers": "3-21"}],
        ),
    },
    "card-details.md": {
        **hub("root", "oak", "elm", "ash"),
        "first": merge(
            "karcher",
            models=[{"model": "oak"}, {"model": "elm"}],
            parameters={"tol": 1e-10, "max_iter": 1200},
            tokenizer={"source": "union"},
        ),
        "merged": merge(
            "della_linear",
            base="root",
            models=[
                {
                    "model": "first",
                    "parameters": {"density": 0.5, "epsilon": 0.4, "weight": [0.9, 0.2, 0.2, 0.95, 0.4, 0.2]},
                },
                {"model": "ash", "parameters": {"density": 0.5, "epsilon": 0.4, "weight": [0.1, 0.9, 1.0]}},
            ],
            parameters={"lambda": 1.0, "normalize": True},
            layers="0-39",
            tokenizer={"source": "union"},
        ),
    },
    "base-with-parameters.yaml": {
        **hub("root", "oak"),
        "merged": merge(
            "della_linear",
            base="root",
            models=[
                {
                    "model": "oak",
                    "parameters": {
                        "weight": [
                            {"filter": "self_attn", "value": 0.35},
                            {"filter": "mlp", "value": 0.2},
                            {"value": 0.25},
                        ],
                        "density": 0.65,
                    },
                }
            ],
            parameters={"normalize": True, "epsilon": 0.05, "lambda": 1},
            tokenizer={"source": "union", "chat_template": "chatml"},
        ),
    },
    "one-module.yaml": {
        **hub("oak", "elm"),
        "merged": modules(
            "oak", text_decoder={"method": "slerp", "base": "oak", "other": "elm", "t": 0.3, "layers": "0-31"}
        ),
    },
    "several-modules.yaml": {
        **hub("oak", "elm"),
        "merged": modules(
            "elm",
            text_decoder={
                "t": [{"filter": "mlp", "value": 0.9}, {"value": [0, 1]}],
                "layers": "0-47",
                **OAK_TO_ELM,
            },
            vision_tower={"t": 0.1, **OAK_TO_ELM},
            multi_modal_projector={"t": 0.4, **OAK_TO_ELM},
        ),
    },
    "kept-modules.yaml": {
        **hub("oak", "elm"),
        "merged": modules(
            None,
            text_decoder={
                "method": "linear",
                "models": [{"model": "oak", "weight": 0.5}],
                "normalize": False,
                "layers": "0-27",
            },
            **{
                name: {"method": "linear", "models": [{"model": "elm"}], "normalize": False}
                for name in ("vision_tower", "multi_modal_projector")
            },
        ),
    },
    "card-alike.md": {
        **hub("oak"),
        "mixture": {
            "moe": {
                "base": "oak",
                "semantics": "mergekit-0.1.5",
                "gate": "hidden",
                "experts_per_token": 2,
                "experts": [prompted("oak", ""), prompted("oak", "")],
                "dtype": "bfloat16",
            }
        },
    },
    "anchored-prompts.yaml": {
        **hub("oak", "elm"),
        "mixture": {
            "moe": {
                "base": "oak",
                "semantics": "mergekit-0.1.5",
                "gate": "hidden",
                "experts_per_token": 2,
                "experts": [
                    prompted("oak", "chat", "code", negative_prompts=["scene"]),
                    prompted("elm", "scene", negative_prompts=["chat", "code"]),
                ],
            }
        },
    },
    "revision-beside.yaml": {
        **hub("oak"),
        "merged": merge(
            "passthrough", slices=[{"model": "oak", "layers": "0-23"}, {"model": "oak", "layers": "8-31"}]
        ),
    },
    "adapters-of-a-base.yaml": {
        **hub("root", "ash"),
        "moss": {"adapter": {"hub": "farm/moss"}, "on": "root"},
        "fern": {"adapter": {"hub": "farm/fern"}, "on": "root"},
        "merged": merge("model_stock", base="root", models=["moss", "fern", "ash"]),
    },
    "fusion.md": {
        **hub("oak", "elm"),
        "merged": merge("arcee_fusion", base="oak", models=[{"model": "elm"}]),
    },
    "text-numbers.yaml": {
        **hub("root", "oak"),
        "merged": merge(
            "task_arithmetic",
            base="root",
            models=[{"model": "oak", "weight": 0.5}],
            normalize=False,
            **{"lambda": 1.0},
        ),
    },
    "modules.yaml": {
        **hub("oak", "elm"),
        "merged": merge(
            "nuslerp",
            models=[
                {"model": "oak", "parameters": {"weight": 0.3}},
                {"model": "elm", "parameters": {"weight": 0.7}},
            ],
            parameters={"nuslerp_row_wise": True},
            layers="0-15",
            tokenizer={"source": "union"},
        ),
    },
    "tokenizer.yaml": {
        **hub("oak", "elm"),
        "merged": merge(
            "linear",
            models=[{"model": "oak", "weight": 0.6}, {"model": "elm", "weight": 0.4}],
            tokenizer={
                "source": "union",
                "tokens": {
                    "<|start|>": {"source": "elm"},
                    "<|stop|>": {
                        "source": {"kind": "model_token", "model": "elm", "token": "</s>"},
                        "force": True,
                    },
                    "<|none|>": {"source": {"kind": "zero"}},
                },
                "pad_to_multiple_of": 32,
                "chat_template": "chatml",
            },
        ),
    },
    "legacy-tokenizer.yaml": {
        **hub("root", "oak", "elm"),
        "merged": merge(
            "della_linear",
            base="root",
            models=[
                {"model": "oak", "parameters": {"weight": [0.2, 0.8], "density": 0.5}},
                {"model": "elm", "parameters": {"weight": 0.1, "density": [0.9, 0.3]}},
            ],
            parameters={"normalize": False, "epsilon": 0.1, "lambda": 1.1},
            tokenizer={"source": "base"},
            dtype="float32",
            out_dtype="bfloat16",
        ),
    },
    "twice.yaml": {
        **hub("oak", "elm"),
        "merged": merge(
            "karcher",
            models=[{"model": "oak"}, {"model": "elm"}, {"model": "oak"}],
            parameters={"max_iter": 20, "tol": 1e-7},
        ),
    },
    "adapter.yaml": {
        "root": {"hub": "farm/root@v2"},
        "bark-lora": {"adapter": {"hub": "farm/bark-lora@main"}, "on": "root"},
        "elm": {"hub": "farm/elm@0123abc"},
        "merged": merge(
            "linear", models=[{"model": "bark-lora", "weight": 0.3}, {"model": "elm", "weight": 0.7}]
        ),
    },
    "adapter-alone.yaml": {
        **hub("root"),
        "bark-lora": {"adapter": {"hub": "farm/bark-lora"}, "on": "root"},
        "merged": merge("linear", models=[{"model": "bark-lora"}], normalize=False),
    },
    "scaled-stack.yaml": {
        **hub("oak"),
        "merged": merge(
            "passthrough",
            slices=[
                {"model": "oak", "layers": "0-3"},
                {
                    "model": "oak",
                    "layers": "4-7",
                    "scale": [
                        {"filter": "o_proj", "value": 0.0},
                        {"filter": "down_proj", "value": 0.0},
                        {"value": 1.0},
                    ],
                },
                {"model": "oak", "layers": "8-11"},
            ],
        ),
    },
    "neox.yaml": {
        **hub("neox-a", "neox-b"),
        "merged": merge("slerp", base="neox-a", other="neox-b", t=[0, 0.5, 1], layers="0-5", dtype="float16"),
    },
    "evolved.yaml": {
        **hub("root", "oak", "elm"),
        "merged-slice-1": merge(
            "ties",
            base="root",
            normalize=True,
            models=[
                {"model": "oak", "weight": [{"filter": "mlp", "value": 0.5}, {"value": 0.25}]},
                {"model": "elm", "weight": 0.75, "density": 0.5},
            ],
            layers="0-3",
        ),
        "merged-slice-2": merge(
            "ties",
            base="root",
            normalize=True,
            models=[{"model": "oak", "weight": 1}, {"model": "elm", "weight": 0.5}],
            layers="4-7",
        ),
        "merged": {
            "merge": {
                "method": "passthrough",
                "slices": [
                    {"model": "merged-slice-1", "layers": "0-3"},
                    {"model": "merged-slice-2", "layers": "0-3"},
                ],
            }
        },
    },
    "levels.yaml": {
        **hub("oak", "elm"),
        "merged": merge(
            "linear",
            normalize=False,
            models=[
                {
                    "model": "oak",
                    "weight": [
                        {"filter": "mlp", "value": 0.1},
                        {"filter": "self_attn", "value": 0.2},
                        {"value": 0.3},
                    ],
                },
                {"model": "elm", "weight": [{"filter": "self_attn", "value": 0.2}, {"value": 0.3}]},
            ],
            layers="0-7",
        ),
    },
    "anchors.yaml": {
        **hub("oak", "elm"),
        "merged": merge("linear", models=[{"model": "oak", "weight": 0.5}, {"model": "elm", "weight": 0.5}]),
    },
}
# What has to be said of them.
SAID = {
    "dare-base-listed.yaml": ["int8_mask: left out; it only saves memory", "seed: 0", "no revision is named"],
    "card.md": ["license: other, from the card; LICENSE is a file", "Two-Trees, from the card"],
    "shared-expert.yaml": ["experts_per_token: 2"],
    "shared-expert-prompts.yaml": ["family: qwen2, since the shared expert has prompts"],
    "zeros.yaml": ["noise_scale: left out; 0 is no noise"],
    "legacy-tokenizer.yaml": ["parameters.int8_mask"],
    "adapter.yaml": ["override_architecture of farm/elm@0123abc"],
    "adapter-alone.yaml": ["passthrough of one whole model"],
    "twice.yaml": ["tokenizer: the first model's"],
    "evolved.yaml": ["each slice is a merge of its own"],
    "revision-beside.yaml": ["slices.0.sources.0.revision: left out"],
    "base-with-parameters.yaml": [
        "parameters.int_space: left out",
        "models.1.parameters.weight: left out; the base takes part",
    ],
    "levels.yaml": ["parameters.t: left out; linear has no such parameter"],
}
# Configurations that cannot be imported, and all that is wrong with them, in order.
REFUSED = {
    "relative-folder.yaml": [
        "line 1: base_model: './here' names a folder, and no such folder exists on this machine",
        "line 5: experts.1.source_model: '../gone' names a folder, and no such folder exists on this machine",
        "--map './here=owner/name'",
    ],
    "paths.md": [
        r"line 8: base_model: 'C:\models\Oak-7B' names a folder, and no such folder exists on this machine; it may be 'farm/Oak-7B'",
        "line 12: experts.1.source_model: '/mnt/data/elm' names a folder, and no such folder exists on this machine; it may be 'farm/elm'",
        "line 14: experts.2.source_model: 'farm_ash' is neither",
        "--map @FILE",
    ],
    "shared-expert-refused.yaml": ["line 6: shared_experts: the shared expert has prompts"],
    "wrong-types.yaml": [
        "line 2: experts_per_token: 'many' is not a whole number",
        "line 5: experts.1.positive_prompts.0: 1984 is not a text",
        "line 6: shared_experts: 2 is not a list",
    ],
}


def imported(name, text=None, mapping=None):
    path = DATA / name
    text = path.read_text(encoding="utf-8") if text is None else text
    return convert(text, path, None, None, DATA, mapping or {})


def refused(text, name="x.yaml", mapping=None):
    with pytest.raises(RecipeError) as caught:
        imported(name, text, mapping)
    return caught.value.problems


def without_semantics(models):
    """Return models without ``semantics`` of merges, which the recipe language has for some methods."""
    return {
        name: {"merge": _without(one["merge"])} if "merge" in one else one for name, one in models.items()
    }


def _without(entry):
    """Return a merge, or merges of modules, without ``semantics``."""
    return {
        key: {name: _without(one) for name, one in value.items()} if key == "modules" else value
        for key, value in entry.items()
        if key != "semantics"
    }


def test_each_file_has_its_meaning_here():
    assert {path.name for path in DATA.iterdir()} == MEANINGS.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", MEANINGS)
def test_a_configuration_keeps_its_meaning(name):
    made = imported(name)
    assert without_semantics(made.content["models"]) == MEANINGS[name]
    assert yaml.safe_load(made.text) == made.content, "the comments change nothing"
    said = " ".join(" ".join(made.text.replace("#", " ").split()).split())
    for words in SAID.get(name, []):
        assert words in said
        assert any(words in line for line in made.assumed)


@pytest.mark.parametrize("name", MEANINGS)
def test_the_recipe_is_one(name, tmp_path):
    output = tmp_path / "recipe.yaml"
    arguments = ["import", str(DATA / name), "-o", str(output)]
    assert main(arguments) == 0
    assert recipes.load(output).release.model in {"merged", "mixture", "grove"}


@pytest.mark.parametrize("name", REFUSED)
def test_all_that_is_wrong_is_said_at_once_and_nothing_is_written(name, tmp_path, capsys):
    output = tmp_path / "recipe.yaml"
    assert main(["import", str(DATA / name), "-o", str(output)]) == 2
    said = capsys.readouterr().err
    assert not output.exists()
    assert len(said.splitlines()) == len(REFUSED[name])
    for words, line in zip(REFUSED[name], said.splitlines(), strict=True):
        assert words in line


def test_the_user_says_what_names_stand_for(tmp_path, capsys):
    names = tmp_path / "names"
    names.write_text("# the author's\nC:\\models\\Oak-7B = farm/Oak-7B@v1\n\nfarm_ash=farm/ash\n")
    arguments = ["import", str(DATA / "paths.md"), "--map", f"@{names}", "--map"]
    assert main([*arguments, "/mnt/data/elm=farm/elm"]) == 0
    made = yamlio.load(capsys.readouterr().out)
    assert [one["hub"] for one in list(made["models"].values())[:3]] == [
        "farm/Oak-7B@v1",
        "farm/elm",
        "farm/ash",
    ]
    assert main([*arguments, "/mnt/data/elf=farm/elm"]) == 2
    said = capsys.readouterr().err
    assert "'/mnt/data/elm' names a folder" in said
    assert "--map /mnt/data/elf: no configuration names it; did you mean '/mnt/data/elm'?" in said
    assert main(["import", str(DATA / "paths.md"), "--map", "elm", "--map", "a=b/c", "--map", "a=b/d"]) == 2
    said = capsys.readouterr().err
    assert "expected NAME=owner/name, found 'elm'" in said
    assert "'a' stands for 'b/c' already" in said


def test_check_only_tells(tmp_path, capsys):
    output = tmp_path / "recipe.yaml"
    assert main(["import", str(DATA / "steps.yaml"), "--check", "-o", str(output)]) == 0
    assert "can be imported: root, oak, elm, sapling, ash, merged" in capsys.readouterr().out
    assert main(["import", str(DATA / "wrong-types.yaml"), "--check"]) == 2
    assert not output.exists()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
LINEAR = "merge_method: linear\nmodels: [{model: a/b, parameters: {weight: 1}}, {model: a/c, parameters: {weight: 1}}]\n"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "merge_methd: linear\nmerge_method: task_arithmatic\nbase_model: a/b\nmodels: [{model: a/c}, {modell: a/d}]\n",
            [
                "line 1: merge_methd: unknown key; did you mean 'merge_method'?",
                "line 2: merge_method: unknown method 'task_arithmatic'; did you mean 'task_arithmetic'?",
                "line 4: models.1: `model` is required, found 'modell'",
            ],
        ),
        (
            ("# mine\nmodels:\n  - {model: a/c, parameters: {weigth: 1}}\n  - {modell: a/d}\nbase_model: a/b\ndtype: bf16\n"
            "merge_metod: dare_ties\nparamters: {lambda: 1}\n"),
            [
                "line 3: models.0.parameters.weigth: dare_ties has no parameter 'weigth'; did you mean 'weight'?",
                "line 4: models.1: `model` is required, found 'modell'",
                "line 6: dtype: 'bf16' is not one of",
                "line 7: merge_metod: unknown key; did you mean 'merge_method'?",
                "line 8: paramters: unknown key; did you mean 'parameters'?",
            ],
        ),
        (
            "method: slerp\nmodles: [{model: a/b}, {modell: a/c}]\nbase_model: a/b\n",
            [
                "line 1: method: unknown key; did you mean 'merge_method'?",
                "line 2: modles: unknown key; did you mean 'models'?",
                "line 2: models.1: `model` is required, found 'modell'",
            ],
        ),
        (
            "modules:\n  text_decoder: {merge_metod: linear, slcies: [{sources: [{modl: a/b, layer_range: [0, 2]}]}]}\n",
            [
                "line 2: modules.text_decoder.slcies: unknown key; did you mean 'slices'?",
                "line 2: modules.text_decoder.merge_metod: unknown key; did you mean 'merge_method'?",
                "line 2: modules.text_decoder.slices.0.sources.0: `model` is required, found 'modl'",
            ],
        ),
        (
            "basemodel: a/b\ngate_mode: random\ndtype: bf16\nexpertes:\n  - source_model: a/c\n    noise_scael: 1\n  - source_modl: a/d\n",
            [
                "line 1: basemodel: unknown key; did you mean 'base_model'?",
                "line 3: dtype: 'bf16' is not one of",
                "line 4: expertes: unknown key; did you mean 'experts'?",
                "line 6: experts.0.noise_scael: unknown key; did you mean 'noise_scale'?",
                "line 7: experts.1: `source_model` is required, found 'source_modl'",
            ],
        ),
        # a document with a misspelt key is not left out because another one has none
        (f"{LINEAR}---\n{LINEAR.replace('merge_', 'merge-')}", ["line 4: merge-method: unknown key; did you mean 'merge_method'?"]),
        (f"---\n{LINEAR.replace('merge_', 'merge-')}---\n{LINEAR}", ["line 2: merge-method: unknown key; did you mean 'merge_method'?"]),
        (
            f"# A card\n\n```sh\n: [ :\n```\n\n```yaml\n{LINEAR.replace('merge_', 'merge-')}```\n",
            ["line 8: merge-method: unknown key; did you mean 'merge_method'?"],
        ),
        ("models: {x: {hub: a/b}}\nrelease: {model: x}\n", ["is a recipe of Herdbook, which needs no import"]),
        (
            "genome:\n  models: [a/b, a/c]\n  merge_method: ties\n  base_model: a/b\ntasks: [{name: gsm8k}]\n",
            ["is a search of mergekit-evolve (`genome`), not a merge"],
        ),
        ("exports: [a]\nname: x\n", ["contains no configuration of mergekit-moe"]),
        (
            ("merge_method: ties\nbase_model: a/b\ndtype: bf16\nparameters: {int8_maks: true, lambda: .inf}\n"
            "models:\n  - model: a/c\n    parameters: {weigth: 1}\n  - {model: a/d, parameters: {weight: x}}\n"),
            [
                "line 3: dtype: 'bf16' is not one of bfloat16, float16, float32; did you mean 'bfloat16'?",
                "line 4: parameters.int8_maks: ties has no parameter 'int8_maks'; did you mean 'int8_mask'?",
                "line 4: parameters.lambda: inf is not a number",
                "line 7: models.0.parameters.weigth: ties has no parameter 'weigth'; did you mean 'weight'?",
                "line 8: models.1.parameters.weight: 'x' is not a number",
            ],
        ),
        (
            f"name: one\n{LINEAR.replace('a/c', 'two')}---\nname: two\n{LINEAR.replace('a/c', './intermediates/one')}",
            ["steps use each other in a circle: 'one' (line 1) -> 'two' (line 5) -> 'one' (line 1)"],
        ),
        (f"name: one\n{LINEAR}---\nname: one\n{LINEAR.replace('a/c', 'a/d')}", ["line 5: name: another step is called 'one', too"]),
        (
            ("merge_method: linear\nmodules:\n  text_decoder: {models: [{model: a/b}], paramters: {weight: 1}}\n"
            "  vision_tower: {slices: [&s {sources: [{model: a/b, layer_range: [0, 2]}]}, *s]}\ntokenizer: {}\nchat_template: auto\n"),
            [
                "line 1: modules.vision_tower.slices: 2 slices are given, and modules are merged whole",
                "line 3: modules.text_decoder.paramters: unknown key; did you mean 'parameters'?",
                "line 5: tokenizer: rows of models of several modules are not lined up; name `base`, or a model",
                "line 6: chat_template: models of several modules keep that of their tokenizer's model",
            ],
        ),
        (
            "merge_method: linear\nmodules: {text_decoder: {}, vision_tower: 3}\n",
            [
                "line 2: modules.text_decoder: expected exactly one of `models` and `slices`",
                "line 2: modules.vision_tower: 3 is not a mapping",
            ],
        ),
        (LINEAR + "slices: [{sources: []}]\n", ["line 1: expected exactly one of `models`, `slices` and `modules`, found models and slices"]),
        ("merge_method: slerp\nmodels: [{model: a/b}, {model: a/c}]\n", ["line 1: `base_model` is missing; slerp needs one"]),
        (
            "merge_method: slerp\nbase_model: a/b\nmodels: [{model: a/c}, {model: a/d}]\n",
            ["line 3: models: slerp merges 1 besides the base, and 2 are given"],
        ),
        (
            ("merge_method: passthrough\nslices:\n  - sources: [{model: a/b, layer_range: [4, 2]}]\n"
            "  - sources: [{model: a/b, layer_range: [0, x]}]\n"),
            [
                "line 3: slices.0.sources.0.layer_range: [4, 2] is not a range of layers",
                "line 4: slices.1.sources.0.layer_range.1: 'x' is not a whole number",
            ],
        ),
        (
            "merge_method: linear\nslices:\n  - sources: [{model: a/b, layer_range: [0, 4]}, {model: a/c, layer_range: [0, 5]}]\n",
            ["line 3: slices.0: its sources have different numbers of layers: 4, 5"],
        ),
        (
            "merge_method: cabs\nsources: {a: {path: /b}}\n",
            ["line 1: expected exactly one of `models`, `slices` and `modules`", "line 1: merge_method: unknown method 'cabs'"],
        ),
        (
            "merge_method: slerp\nbase_model: a/b\nmodels: [{model: a/c}, {model: a/d}]\n",
            ["line 3: models: slerp merges 1 besides the base, and 2 are given; the base a/b is not among the models"],
        ),
        (
            LINEAR + "tokenizer: {tokens: {<x>: {force: true}}}\n",
            ["line 3: tokenizer.tokens.<x>: `source` is missing: mergekit fails if a model does not have the token"],
        ),
        (
            LINEAR.replace("a/c", "output/c"),
            ["line 2: models.1.model: 'output/c' is neither a folder on this machine nor another step", "--map 'output/c=owner/name'"],
        ),
        (LINEAR.replace("a/c", "../c"), ["line 2: models.1.model: '../c' names a folder", "--map '../c=owner/name'"]),
        (LINEAR.replace("a/c", '"a/c\\u202e\\x1b"'), ["line 2: models.1.model: "]),
        (LINEAR.replace("linear", "LINEAR"), ["line 1: merge_method: unknown method 'LINEAR'; did you mean 'linear'?"]),
        (LINEAR + "name: 'a\x1bb'\n", ["line 3, column 9: not YAML: the control character '\\x1b'"]),
        (BOMB + LINEAR, ["expands to more than"]),
        ("merge_method: linear\nmodels: &a [*a]\n", ["expands to more than"]),
        ("x" * 600_000, ["refused: it has 600,000 characters"]),
    ],
)  # fmt: skip
def test_bad_input(text, problems):
    found = refused(text)
    assert len(found) == len(problems)
    for words, line in zip(problems, found, strict=True):
        assert words in line
        assert len(line) < 500


def test_prompts_keep_control_characters_which_nobody_s_terminal_gets():
    prompts = ["red \x1b[31m\u202e", "\ttab\nline\0"]
    experts = [
        {"source_model": f"a/{n}", "positive_prompts": [text]} for n, text in zip("bc", prompts, strict=True)
    ]
    text = yaml.safe_dump({"base_model": "a/b", "gate_mode": "hidden", "experts": experts})
    made = imported("x.yaml", text)
    assert [one["prompts"] for one in made.content["models"]["mixture"]["moe"]["experts"]] == [
        [one] for one in prompts
    ]
    assert yaml.safe_load(made.text) == made.content
    assert all(one.isprintable() for one in made.text.splitlines())
    assert recipes.parse(made.text).models["mixture"].moe.experts[1].prompts == [prompts[1]]


def test_a_megabyte_of_aliases_is_refused_before_it_is_expanded():
    text = BOMB + "more: [" + ", ".join(["*a"] * 250_000) + "]\n" + LINEAR
    assert len(text) > 1_000_000
    assert "refused: it has" in refused(text)[0]
    shorter = BOMB + f"more: [{', '.join(['*i'] * 1000)}]\n" + LINEAR
    assert "expands to more than" in refused(shorter)[0]


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ("a/b@v1", {"hub": "a/b@v1"}),
        ("a/b/", {"hub": "a/b"}),
        ("https://huggingface.co/a/b/tree/v1", {"hub": "a/b@v1"}),
        (f"/root/.cache/huggingface/hub/models--a--b.c/snapshots/{'0' * 40}", {"hub": f"a/b.c@{'0' * 40}"}),
        ("{path: a/b, revision: 12}", {"hub": "a/b@12"}),
        ("{model: {path: a/b}, lora: null}", {"hub": "a/b"}),
    ],
)
def test_references(given, model):
    made = imported(
        "x.yaml", f"merge_method: linear\nmodels: [{{model: {given}, parameters: {{weight: 1}}}}]\n"
    )
    assert next(iter(made.content["models"].values())) == model


def test_the_old_form_of_a_tokenizer_s_model():
    made = imported("x.yaml", LINEAR + "tokenizer_source: model:a/c@v1\n").content["models"]
    assert made["merged"]["merge"]["tokenizer"] == {"source": "c-2"}
    assert made["c-2"] == {"hub": "a/c@v1"}


@pytest.mark.parametrize(
    "card",
    [
        f"Made with `merge_method: ties`: see below.\n\n{LINEAR}\nThanks: to all.\n",
        f'```python\n# merge_method: none\nname = "x"\nyaml_config = """\n{LINEAR}"""\n```\n',
    ],
    ids=["a text without any mark", "a notebook's cell"],
)
def test_a_configuration_in_a_text(card):
    made = imported("README.md", card)
    assert made.content["models"]["merged"]["merge"]["method"] == "linear"
    line = 1 + card[: card.index("{model: a/c")].count("\n")
    assert refused(card.replace("a/c", "./c"))[0].startswith(f"line {line}: models.1.model: './c'")


def test_keys_that_are_only_a_little_alike_are_left_out():
    made = imported("x.yaml", f"model_type: MistralForCausalLM\n{LINEAR}")
    assert "model_type: left out, since mergekit ignores it too" in made.assumed


def test_a_step_that_is_not_used_is_named():
    made = imported("x.yaml", f"name: extra\n{LINEAR}---\n{LINEAR.replace('a/c', 'a/d')}")
    assert set(made.content["models"]) == {"b", "d", "merged"}
    assert any("the step 'extra' (line 1): left out" in line for line in made.assumed)


def test_what_most_steps_lead_to_is_released():
    card = f"## First: make **tmp-one**\n```yaml\n{LINEAR}```\n## Final\n```\nmerge_method: passthrough\nslices:\n"
    card += "- sources: [{model: /work/tmp-one, layer_range: [0, 3]}]\n- sources: [{model: ./out/tmp-one, layer_range: [1, 4]}]\n"
    made = imported("x.md", card + f"```\n## A variant\n```yaml\n{LINEAR.replace('a/c', 'a/d')}```\n")
    assert set(made.content["models"]) == {"b", "c", "tmp-one", "merged"}
    assert [one["model"] for one in made.content["models"]["merged"]["merge"]["slices"]] == ["tmp-one"] * 2
    assert any("the step line 15: left out" in line for line in made.assumed)


def test_one_model_with_two_runs_of_layers_has_two_names():
    sources = "{model: a/b, layer_range: [0, 4]}, {model: a/b, layer_range: [4, 8]}"
    made = imported(
        "x.yaml",
        f"merge_method: slerp\nbase_model: a/b\nparameters: {{t: 0.5}}\nslices: [{{sources: [{sources}]}}]\n",
    )
    entry = made.content["models"].pop("merged")["merge"]
    assert made.content["models"] == {"b": {"hub": "a/b"}, "b-2": {"hub": "a/b"}}
    assert (entry["base"], entry["other"], entry["layers"]) == ("b", "b-2", {"b": "0-3", "b-2": "4-7"})


def test_an_audit_reads_the_last_of_several_steps():
    read = parse((DATA / "card.md").read_bytes(), "README.md")
    assert (read.method, read.base, read.models) == ("slerp", "Left-4B", ("Left-4B", "farm/ash"))
    assert parse((DATA / "legacy-tokenizer.yaml").read_bytes(), "c.yml").dtype == "BF16"
    runs = parse((DATA / "self-stack.yaml").read_bytes(), "c.yml").runs
    assert [(run.source, run.first, run.stop) for run in runs][1:] == [
        ("farm/oak", 6, 18),
        ("farm/elm", 18, 24),
    ]
    card = f"```yaml\n{LINEAR}```\n```yaml\n{LINEAR.replace('a/c', 'a/d')}```\n"
    with pytest.raises(UnverifiedError, match="several different configurations"):
        parse(card.encode(), "README.md")


def test_a_folder_is_one_if_it_is_there(tmp_path):
    (tmp_path / "here").mkdir()
    path = tmp_path / "c.yaml"
    made = convert(LINEAR.replace("a/c", "./here"), path, None, None, tmp_path, {})
    assert made.content["models"]["here"] == {"folder": "here"}


@pytest.mark.parametrize("method", sorted({**NATIVE, **METHODS}))
def test_every_method_becomes_a_merge(method):
    known = {**NATIVE, **METHODS}[method]
    values = {"number": 0.5, "integer": 3, "boolean": True}
    shared = {
        key: values[kind] for key, kind in known.shared.items() if key not in {"rescale", "filter_wise"}
    }
    names = ["a/c", "a/d"][: known.models or 2]
    if method == "passthrough":
        names = ["a/b"]
    config = {
        "merge_method": method,
        **({"base_model": "a/b"} if known.base == "required" else {}),
        "models": [
            {"model": name, "parameters": {key: values[kind] for key, kind in known.of_models.items()}}
            for name in names
        ],
        "parameters": shared,
        "dtype": "bfloat16",
    }
    made = imported("x.yaml", yaml.safe_dump(config))
    assert recipes.parse(made.text).models["merged"].merge.inputs


def test_a_recipe_contains_no_path_of_this_machine(tmp_path):
    (tmp_path / "here").mkdir()
    config = {
        "merge_method": "linear",
        "base_model": str(tmp_path / "here"),
        "models": [{"model": "/root/author/b", "parameters": {"weight": 1}}],
        "parameters": {"weight": 2},
    }
    mapping = {"/root/author/b": "farm/b"}
    made = convert(yaml.safe_dump(config), tmp_path / "c.yaml", None, None, tmp_path, mapping)
    assert "here: `base_model` takes part" in made.text
    assert "farm/b: what 'b' is by --map" in made.text
    assert str(tmp_path) not in made.text
    assert "/root" not in made.text


# What is done with each key of a configuration: of a dense merge, its slices and models, a mixture and its experts.
KEYS = {
    "merge_method": "the methods above; `moe` for a mixture",
    "name": "names a step, which others use",
    "models": "whole models",
    "slices": "`layers` of a merge, a stack, or a stack of merges",
    "modules": "merges of modules of a model that also reads images; `default` alone is a model of text",
    "base_model": "also of a single slice; if listed among the models, it takes no part",
    "parameters": "numbers, lists over the layers, filters; of models, slices, modules and the whole, in mergekit's order of precedence",
    "dtype": "what is computed with",
    "out_dtype": "what is written",
    "tokenizer": "with `tokens` and `pad_to_multiple_of`",
    "tokenizer_source": "the old form of `tokenizer.source`; also `model:NAME`",
    "chat_template": "in `tokenizer` of the recipe",
    "sources": "the models of a slice",
    "model": "`path@revision+adapter`, or the same as a mapping",
    "layer_range": "`layers` of the recipe, which names the last layer instead of the one after it",
    "residual_weight": "mergekit ignores it",
    "experts": "the experts",
    "shared_experts": "with prompts Qwen-MoE, unless `architecture` names another",
    "gate_mode": "`gate`",
    "experts_per_token": "2 if left out",
    "architecture": "`family`",
    "source_model": "as `model`",
    "positive_prompts": "`prompts`",
    "negative_prompts": "as in mergekit",
    "noise_scale": "0 is no noise",
    "residual_scale": "0 is a factor",
}


def table():
    """Return the documentation's tables of methods and keys."""
    rows = ["| method | computed by |", "| --- | --- |"]
    drawn = sorted(name for name, method in {**NATIVE, **METHODS}.items() if method.draws)
    here = sorted({**NATIVE, **METHODS}.keys() - set(drawn))
    rows += [f"| {', '.join(f'`{name}`' for name in here)} | Herdbook, in mergekit's bits ({len(here)}) |"]
    rows += [
        f"| {', '.join(f'`{name}`' for name in drawn)} | Herdbook, with random numbers of its own ({len(drawn)}) |",
        "| none | mergekit (0) |",
    ]
    rows += [
        "| any other | nothing: refused, with the nearest name |",
        "",
        "| key | becomes |",
        "| --- | --- |",
    ]
    return "\n".join([*rows, *(f"| `{key}` | {meaning} |" for key, meaning in KEYS.items())])


def test_the_documentation_lists_methods_and_keys():
    sections = (
        keys.DENSE_KEYS,
        keys.SLICE_KEYS,
        keys.SOURCE_KEYS,
        keys.MIXTURE_KEYS,
        keys.EXPERT_KEYS,
    )
    assert KEYS.keys() == {key for keys in sections for key in keys}
    assert table() in DOCS.read_text(encoding="utf-8")


def test_hostile_texts_take_no_time():
    """Each would take minutes if looked at once for each of its lines."""
    for text in (
        "<pre>" * 80_000,
        "```yaml\n" * 50_000,
        "> " * 200_000 + "x\nexperts: [\n",
        "`" * 400_000 + "\nmerge_method: x",
        "**" * 200_000 + "\n```\nmerge_method: x\n```",
        "models:\n" * 50_000,
        "<pre>a</pre>" * 30_000 + "merge_method: x",
        "```\nexperts: 1\n```\n" * 20_000,
        "\n" * 400_000 + "experts: 1",
    ):
        with pytest.raises(RecipeError):
            imported("x.md", "---\nlicense: mit\n---\n" + text)


@pytest.mark.parametrize(
    ("file", "arguments", "name", "origin"),
    [
        ("mk_dare.yml", ["-o", "recipes/dare.yaml"], "dare", "the output's name"),
        ("mk_dare.yml", ["-o", "recipes/a b.v2.yaml", "--check"], "a-b.v2", "the output's name"),
        ("mk_dare.yml", [], "mk_dare", "the configuration's name"),
        ("mk_dare.yml", ["-o", "recipe.yaml"], "mk_dare", "the configuration's name"),
        ("mk_dare.yml", ["-o", os.devnull], "mk_dare", "the configuration's name"),
        ("mergekit_config.yml", ["-o", "mine.yaml"], "mine", "the output's name"),
        *(
            (file, [], "Oaks", "the folder")
            for file in ("mergekit_config.yml", "mergekit_moe_config.yml", "MoE.yaml", "config.yaml", "README.md")
        ),
        ("named.yml", ["-o", "recipes/dare.yaml"], "Elm", "the configuration"),
    ],
)  # fmt: skip
def test_a_release_is_named_by_what_is_specific(tmp_path, monkeypatch, capsys, file, arguments, name, origin):
    folder = tmp_path / "Oaks"
    (folder / "recipes").mkdir(parents=True)
    monkeypatch.chdir(folder)
    Path(file).write_text(("name: Elm\n" if file == "named.yml" else "") + LINEAR, encoding="utf-8")
    assert main(["import", file, *arguments]) == 0
    said = capsys.readouterr()
    assert f"assumed: release.name: {name}, from {origin}" in said.err.splitlines()
    written = next(
        (Path(path).read_text(encoding="utf-8") for path in arguments[1:2] if Path(path).is_file()), said.out
    )
    if "--check" not in arguments and os.devnull not in arguments:
        assert yamlio.load(written)["release"]["name"] == name


@pytest.mark.parametrize("path", ["/nowhere/beta", "./nope"])
def test_a_wrong_path_is_the_author_s_only_in_what_was_found_elsewhere(path):
    text = LINEAR.replace("a/c", path)
    first, advice = refused(text)
    assert (
        first == f"line 2: models.1.model: '{path}' names a folder, and no such folder exists on this machine"
    )
    assert advice.startswith(
        f"correct the configuration, or define what each of these names is with --map '{path}="
    )
    with pytest.raises(RecipeError) as caught:
        convert(text, Path("a/b/README.md"), None, None, Path(), {}, is_local=False)
    kind = (
        "is a path of the author's machine" if path[0] == "/" else "is neither a folder on this machine nor"
    )
    assert kind in caught.value.problems[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a/b"], "a/b: there is no such file. Of a model on the Hub: herdbook new FOLDER --from a/b"),
        (["https://huggingface.co/a/b"], "herdbook new FOLDER --from a/b"),
        (["recipes/mine.yml"], "recipes/mine.yml: cannot be read: No such file or directory"),
        (["c.tar.gz"], "c.tar.gz: is an archive; unpack it, and name the file with the configuration"),
        (["c.yml", "-o", "."], ".: is a folder; name the file of the recipe"),
    ],
)
def test_what_is_no_file_is_told_before_anything_is_read(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("c.yml").write_text(LINEAR, encoding="utf-8")
    Path("c.tar.gz").write_bytes(b"\x1f\x8b\xff")
    assert main(["import", *arguments]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
