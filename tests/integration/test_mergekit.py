"""Parity with mergekit: the real one, in its own place, makes the same mixtures, and every tensor is compared."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from herdbook import plan as plans
from herdbook.importing import import_recipe
from support import tiny
from support.tools import MERGEKIT_MOE

ROOT = Path(__file__).parents[2]
MINIATURE = ROOT / "config/miniature.yaml"


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mergekit")]


def tensors_in(folder):
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    return found


def plain(tensors):
    """Return tensors by names that no layout decides: a fused one is cut along its experts, gate above up."""
    names = {"w1": "gate", "w2": "down", "w3": "up"}
    found = {}
    for name, tensor in tensors.items():
        if fused := re.fullmatch(r"(.+)\.mlp\.experts\.(gate_up_proj|down_proj)", name):
            for expert, rows in enumerate(tensor):
                halves = rows.chunk(2) if fused[2] == "gate_up_proj" else [rows]
                matrices = ("gate", "up") if fused[2] == "gate_up_proj" else ("down",)
                for matrix, half in zip(matrices, halves, strict=True):
                    found[f"{fused[1]}.experts.{expert}.{matrix}"] = half
        elif own := re.fullmatch(r"(.+)\.(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(\w+)\.weight", name):
            matrix = names.get(own[3], own[3].removesuffix("_proj"))
            found[f"{own[1]}.experts.{own[2]}.{matrix}"] = tensor
        else:
            found[re.sub(r"\.(block_sparse_moe|mlp)\.gate\.weight$", ".router", name)] = tensor
    return found


def both(tmp_path, config):
    """Return mergekit's tensors and ours, made of the same configuration."""
    path = tmp_path / "mergekit_moe_config.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    MERGEKIT_MOE.run([str(path), str(tmp_path / "theirs")], tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(import_recipe(path, relative_to=tmp_path).text, encoding="utf-8")
    plan = tiny.build(recipe, tmp_path / "results")
    return plain(tensors_in(tmp_path / "theirs")), plain(tensors_in(plan.layout.folder(plan.released)))


def assert_same_bits(theirs, ours):
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype, name
        assert tensor.equal(ours[name]), name


@pytest.mark.parametrize("gate", ["hidden", "hidden_avg", "cheap_embed"])
def test_the_real_herd(tmp_path, gate):
    """Three SmolLM2 of 135M, 482 tensors, 30 of them routers."""
    plan = plans.load(MINIATURE, ROOT / "results")
    herd = {name: tmp_path / name for name in ("base", "python", "prose")}
    for name, link in herd.items():  # a recipe may not climb to the root of the file system
        link.symlink_to(plan.layout.folder(plan.nodes[name]).absolute())
    if not all((folder / "config.json").exists() for folder in herd.values()):
        pytest.skip("needs what `make demo` builds")
    config = {
        "base_model": str(herd["base"]),
        "gate_mode": gate,
        "dtype": "bfloat16",
        "experts": [
            {"source_model": str(herd["base"]), "positive_prompts": ["Explain how to", "The country has"]},
            {
                "source_model": str(herd["python"]),
                "positive_prompts": ["def main():\n    return", "import os\nfrom typing import Any"],
                "negative_prompts": ["She had never, in all her life,"],
            },
            {
                "source_model": str(herd["prose"]),
                "positive_prompts": ["She had never, in all her life,", "The captain stood upon the deck"],
                "residual_scale": 0.7,
            },
        ],
    }
    theirs, ours = both(tmp_path, config)
    assert len(theirs) == 482
    assert_same_bits(theirs, ours)


@pytest.mark.parametrize(
    ("kind", "shared", "architecture", "out"),
    [
        ("llama", False, "deepseek", torch.bfloat16),
        ("mistral", True, "DeepSeek MoE", torch.float16),
        ("qwen2", True, None, torch.bfloat16),
        ("llama", True, "qwen", torch.bfloat16),
        ("qwen3", False, None, torch.float32),
    ],
)
def test_families(tmp_path, kind, shared, architecture, out):
    for seed, name in enumerate(("base", "one", "two")):
        tiny.write_model(tmp_path / name, seed=seed, model_type=kind, layers=3, head_dim=8)
    config = {
        "base_model": str(tmp_path / "base"),
        "architecture": architecture,
        "dtype": str(out).removeprefix("torch."),
        "experts": [
            {"source_model": str(tmp_path / "one"), "positive_prompts": ["w1 w2 w3", "w4"]},
            {"source_model": str(tmp_path / "two"), "positive_prompts": ["w9"], "residual_scale": 0.3},
        ],
    }
    if shared:
        # mergekit reads a shared expert through the loader of a routed one (its source must be among them)
        prompts = {} if str(architecture).startswith("Deep") else {"positive_prompts": ["w5 w6"]}
        config["shared_experts"] = [{"source_model": str(tmp_path / "one"), **prompts}]
    theirs, ours = both(tmp_path, config)
    assert_same_bits(theirs, ours)
