"""Mixtures of each family that llama.cpp knows go through its real converter; the experts come out as they went in."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from herdbook.errors import StepError
from herdbook.inference.forward import CheckpointFolder
from herdbook.tools.converter import CONVERTER
from herdbook.weights.gguf_file import read_gguf
from support import tiny

pytestmark = pytest.mark.slow
MODELS = Path(__file__).parents[2] / "results/models"
MATRICES = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


@pytest.mark.parametrize(
    ("kind", "architecture"), [("llama", "llama"), ("qwen2", "qwen2moe"), ("qwen3", "qwen3moe")]
)
def test_a_mixture_goes_through_the_converter(tmp_path, kind, architecture):
    try:
        CONVERTER.find()
    except StepError as error:
        pytest.skip(str(error))
    # The converter knows tokenizers by a table of real ones; that of the demo's base is in it.
    tokenizer = next(MODELS.glob("base-*/tokenizer.json"), None)
    if tokenizer is None:
        pytest.skip("needs the demo's base: snakemake --cores all")
    names = ["base", "b", *(["s"] if kind == "qwen2" else [])]
    extra = {"head_dim": 8} if kind == "qwen3" else {}
    for seed, name in enumerate(names):
        tiny.write_model(tmp_path / name, seed=seed, model_type=kind, vocab=49152, **extra)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer.with_name(file), tmp_path / name / file)
    moe = {"base": "base", "experts": [{"model": name, "prompts": [name]} for name in ("base", "b")]}
    if kind == "qwen2":
        moe["shared_experts"] = [{"model": "s", "prompts": ["x"]}]
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml", {**{name: {"folder": name} for name in names}, "mix": {"moe": moe}}
    )
    plan = tiny.build(recipe, tmp_path / "results")
    folder = plan.layout.folder(plan.released).absolute()
    CONVERTER.run([str(folder), "--outfile", str(tmp_path / "out.gguf"), "--outtype", "f32"], tmp_path)
    made = read_gguf(tmp_path / "out.gguf")
    assert made.value("general.architecture") == architecture
    assert made.value(f"{architecture}.expert_count") == 2
    sources = [CheckpointFolder(tmp_path / name) for name in ("base", "b")]
    for layer in range(2):
        for short, matrix in MATRICES.items():
            tensor = made.tensors[f"blk.{layer}.ffn_{short}_exps.weight"]
            expected = torch.cat([one[f"model.layers.{layer}.mlp.{matrix}.weight"] for one in sources])
            found = made.read_rows(tensor, 0, tensor.rows)
            assert np.array_equal(
                np.asarray(found).view(np.float32).reshape(expected.shape), expected.numpy()
            )
        router = made.tensors[f"blk.{layer}.ffn_gate_inp.weight"]
        assert tuple(router.shape) == (2, 32)
