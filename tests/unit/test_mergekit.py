"""Importing mergekit's configurations."""

import pytest
import yaml

from herdbook import recipe as recipes
from herdbook.cli.main import main
from herdbook.errors import RecipeError
from herdbook.importing import import_recipe

BUTTERCUP = """\
base_model: owner/WestLake-7B-v2
gate_mode: hidden_last
dtype: bfloat16
tokenizer_source: union
experts:
  - source_model: owner/WestLake-7B-v2
    positive_prompts:
      - "What is"
  - source_model: {model: {path: owner/samantha-7b, revision: abc123}}
    positive_prompts: [chat]
    negative_prompts: [code]
    residual_scale: 0.5
  - source_model: owner/WestLake-7B-v2+someone/lora@v1
    positive_prompts: ["write"]
"""


def imported(tmp_path, text, name="mergekit_moe_config.yml", **options):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    made = import_recipe(path, relative_to=tmp_path, **options)
    return recipes.parse(made.text), "\n".join(made.assumed)


def test_a_configuration_becomes_a_recipe(tmp_path):
    recipe, assumed = imported(tmp_path, BUTTERCUP, name="config.yml")
    moe = recipe.models["mixture"].moe
    assert (moe.base, moe.gate, moe.semantics) == ("westlake-7b-v2", "hidden", "mergekit-0.1.5")
    assert [expert.model for expert in moe.experts] == ["westlake-7b-v2", "samantha-7b", "lora"]
    assert recipe.models["samantha-7b"].hub == "owner/samantha-7b@abc123"
    assert recipe.models["lora"].adapter.hub == "someone/lora@v1"
    assert recipe.models["lora"].on == "westlake-7b-v2"
    assert moe.experts[1].negative_prompts == ["code"]
    assert (moe.experts[1].residual_scale, moe.dtype, moe.experts_per_token) == (0.5, "bfloat16", 2)
    for said in (
        "owner/WestLake-7B-v2: no revision is named",
        "tokenizer_source: left out",
        "the version of mergekit is unknown",
        "equal rows",
        "experts_per_token: 2",
        "release.license: unknown",
    ):
        assert said in assumed
    assert "samantha-7b: no revision" not in assumed


def test_a_card_gives_its_configuration_name_and_licence(tmp_path):
    card = f"""---
license: apache-2.0
model_name: Buttercup 4x7B
base_model: [owner/a, owner/b]
---
# Model
```python
experts = 1
```
Config:
```yaml
{BUTTERCUP}```
"""
    recipe, _ = imported(tmp_path, card, name="README.md")
    assert (recipe.release.name, recipe.release.license) == ("Buttercup-4x7B", "apache-2.0")
    assert len(recipe.models["mixture"].moe.experts) == 3


@pytest.mark.parametrize(
    ("lines", "license_"),
    [
        ("license: Proprietary of mine", "unknown"),
        ("license: [mit, apache-2.0]", "unknown"),
        ("license: other\nlicense_name: herd-1.0", "unknown"),
        ("license: other\nlicense_name: herd-1.0\nlicense_link: https://example.org/l", "other"),
    ],
)
def test_a_card_s_licence_is_taken_over_if_a_recipe_can_name_it(tmp_path, lines, license_):
    card = f"---\n{lines}\n---\n```yaml\n{BUTTERCUP}```\n"
    recipe, assumed = imported(tmp_path, card, name="README.md")
    assert recipe.release.license == license_
    assert recipe.release.license_name == ("herd-1.0" if license_ == "other" else None)
    assert f"release.license: {license_}" in assumed


def test_the_version_beside_it_is_read(tmp_path):
    index = '{"metadata": {"mergekit_version": "0.1.4"}, "weight_map": {}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    recipe, assumed = imported(tmp_path, BUTTERCUP)
    assert recipe.models["mixture"].moe.semantics == "mergekit-0.1.4"
    assert "made with mergekit 0.1.4, according to its index" in assumed


def test_folders_are_told_from_repositories(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models/Base Model").symlink_to(tmp_path / "elsewhere")  # named by the link
    text = yaml.safe_dump(
        {
            "base_model": "models/Base Model",
            "gate_mode": "random",
            "experts": [{"source_model": "models/Base Model", "noise_scale": 0.1}, {"source_model": "a/b@c"}],
        }
    )
    recipe, assumed = imported(tmp_path, text)
    assert recipe.models["base-model"].folder == "models/Base Model"
    assert recipe.models["b"].hub == "a/b@c"
    assert "seed: 0, for the routers and the noise" in assumed


def test_shared_experts_and_families(tmp_path):
    content = yaml.safe_load(BUTTERCUP)
    content |= {"shared_experts": [{"source_model": "owner/x"}], "architecture": "DeepSeek"}
    recipe, assumed = imported(tmp_path, yaml.safe_dump(content))
    moe = recipe.models["mixture"].moe
    assert (moe.family, moe.experts_per_token, moe.shared_experts[0].model) == ("deepseek", 2, "x")
    assert "experts_per_token: 2, mergekit's default" in assumed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models: []\n", "contains no configuration of mergekit-moe"),
        ("a: [b\n", "line 2, column 1"),
        ("base_model: a/b\nexperts: 3\n", "line 2: experts: 3 is not a list"),
        ("experts: [{source_model: a/b}]\n", "`base_model`"),
        ("base_model: a/b\nexperts: [{}]\n", "line 2: experts.0: `source_model` is required"),
        (
            "base_model: a\nexperts: [{source_model: a/b}]\n",
            "'a' is neither a folder on this machine nor owner/name",
        ),
        ("base_model: a/b\ngate_mode: x\nexperts: []\n", "line 2: gate_mode: mergekit has no 'x'"),
        ("base_model: a/b\narchitecture: phi\nexperts: []\n", "architecture: mergekit-moe has no 'phi'"),
        (
            "base_model: a/b\nexperts: [{source_model: a/b}, {source_model: a/c}]\n",
            "needs at least one prompt",
        ),
        ("base_model: [1]\nexperts: []\n", "line 1: base_model: [1] does not name a model"),
    ],
)
def test_what_cannot_be_imported(tmp_path, text, expected):
    with pytest.raises(RecipeError) as caught:
        imported(tmp_path, text)
    assert expected in str(caught.value)


def test_the_command_keeps_what_is_there(tmp_path, capsys):
    path, output = tmp_path / "c.yml", tmp_path / "recipe.yaml"
    path.write_text(BUTTERCUP)
    arguments = ["import", str(path), "-o", str(output), "--name", "Mine", "--license", "mit"]
    assert main(arguments) == 0
    first = output.read_text()
    assert first.startswith("# Imported from c.yml; comments state what was assumed.\n# owner/WestLake")
    assert "assumed: semantics" in capsys.readouterr().err
    assert main(arguments) != 0
    assert "the file exists; pass --force to replace it" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    assert output.read_text() == first
    assert main(["import", str(path), "--name", "Mine"]) == 0
    assert "name: Mine" in capsys.readouterr().out
