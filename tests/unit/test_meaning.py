"""Spellings of one meaning, and a head beside tied embeddings."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from herdbook.architectures.meaning import differences
from support import tiny

LLAMA = {"model_type": "llama", "num_attention_heads": 4, "rope_theta": 5000.0}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            {"rope_theta": 5000},
            {"rope_theta": None, "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}},
        ),
        ({"rope_scaling": None}, {"rope_scaling": {"rope_type": "default"}}),
        (
            {"rope_scaling": {"type": "linear", "factor": 2}},
            {
                "rope_theta": None,
                "rope_parameters": {"rope_theta": 5000, "rope_type": "linear", "factor": 2.0},
            },
        ),
        ({"hidden_act": "swish"}, {"hidden_act": "silu"}),
        ({}, {"hidden_act": "silu", "rms_norm_eps": 1e-6, "num_key_value_heads": 4}),
    ],
)
def test_spellings_of_one_meaning_are_equal(one, other):
    assert differences(LLAMA | one, LLAMA | other) == []
    assert differences(LLAMA | one, LLAMA | other | {"rms_norm_eps": 1e-3}) != []


def test_a_tied_model_that_stores_its_head_merges_with_one_that_does_not(tmp_path):
    for seed, name in enumerate("ab"):
        tiny.write_model(tmp_path / name, seed=seed, tie_word_embeddings=True)
    weights = tmp_path / "a/model.safetensors"
    held = load_file(weights)
    held["lm_head.weight"] = held["model.embed_tokens.weight"].clone()
    save_file(held, weights, metadata={"format": "pt"})
    models = {
        **{name: {"folder": name} for name in "ab"},
        "mean": {"merge": {"method": "linear", "models": [{"model": "a"}, {"model": "b"}]}},
    }
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", models), tmp_path / "results")
    made = load_file(plan.layout.folder(plan.released) / "model.safetensors")
    other = load_file(tmp_path / "b/model.safetensors")
    assert made.keys() == other.keys()
    for name, tensor in made.items():
        torch.testing.assert_close(
            tensor.float(), ((held[name].float() + other[name].float()) / 2).bfloat16().float()
        )
