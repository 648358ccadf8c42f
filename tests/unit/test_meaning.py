"""Spellings of one meaning, and a head beside tied embeddings."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from herdbook.architectures.meaning import ALIKE, differences, lengths
from herdbook.lock.computed import ACTIVATIONS, SCALINGS
from herdbook.plan import load
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
        (
            {"rope_scaling": {"type": "yarn", "factor": 4}},
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": None}},
        ),
        ({"hidden_act": "swish"}, {"hidden_act": "silu"}),
        ({}, {"hidden_act": "silu", "rms_norm_eps": 1e-6, "num_key_value_heads": 4}),
    ],
)
def test_spellings_of_one_meaning_are_equal(one, other):
    assert differences(LLAMA | one, LLAMA | other) == []
    assert differences(LLAMA | one, LLAMA | other | {"rms_norm_eps": 1e-3}) != []


@pytest.mark.parametrize("kind", ["qwen2_moe", "qwen3_moe", "deepseek"])
def test_mixtures_that_weight_their_experts_otherwise_differ(kind):
    one, other = ({"model_type": kind, "norm_topk_prob": value} for value in (True, False))
    assert differences(one, other) == ["a norm_topk_prob of True, not False"]
    assert differences(other, {"model_type": kind}) == []  # the default


def test_a_setting_that_only_one_configuration_contains_is_told(tmp_path):
    granite = {"model_type": "granite", "embedding_multiplier": 12.0}
    tiny.write_model(tmp_path / "a", **granite, logits_scaling=8.0)
    tiny.write_model(tmp_path / "b", seed=1, **granite, attention_bias=False)
    models = {
        **{name: {"folder": name} for name in "ab"},
        "mean": {"merge": {"method": "linear", "models": [{"model": "a"}, {"model": "b"}]}},
    }
    path = tiny.write_recipe(tmp_path / "r.yaml", models)
    tiny.lock(path)
    (warning,) = load(path).warnings
    assert "models.mean.merge: 'a' has a logits_scaling of 8.0, and 'b' does not state it" in warning


MISTRAL = {"model_type": "mistral"}
QWEN = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 128}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (MISTRAL, MISTRAL | {"sliding_window": 4096, "max_position_embeddings": 131072}, []),
        (MISTRAL, MISTRAL | {"sliding_window": None}, ["sliding window (4096 tokens, none)"]),
        (MISTRAL | {"sliding_window": None}, {"model_type": "llama", "max_position_embeddings": 131072}, []),
        ({"model_type": "llama"}, {"model_type": "llama", "max_position_embeddings": 8192},
         ["context (2048 tokens, 8192 tokens)"]),
        (QWEN, QWEN | {"use_sliding_window": False}, ["sliding window (128 tokens, none)"]),
        (QWEN, QWEN | {"max_window_layers": 7}, ["layers with the window (from 28 on, from 7 on)"]),
        ({"model_type": "mixtral"}, {"model_type": "mixtral", "num_experts_per_tok": 4},
         ["experts per token (2, 4)"]),
        ({"model_type": "gemma2", "sliding_window": 64}, {"model_type": "gemma2", "sliding_window": 32},
         ["sliding_window (64, 32)"]),
        ({"model_type": "starcoder2", "sliding_window": 64}, {"model_type": "starcoder2"},
         ["sliding_window (64, not stated)"]),
    ],
)  # fmt: skip
def test_lengths_that_differ_are_told(one, other, expected):
    assert lengths(one, other) == expected
    assert bool(lengths(other, one)) == bool(expected)


def test_a_merge_of_models_with_other_windows_says_whose_it_has(tmp_path):
    for seed, (name, window) in enumerate({"a": 16, "b": None}.items()):
        tiny.write_model(tmp_path / name, seed=seed, model_type="mistral", sliding_window=window)
    models = {
        **{name: {"folder": name} for name in "ab"},
        "mean": {"merge": {"method": "linear", "models": [{"model": "a"}, {"model": "b"}]}},
    }
    path = tiny.write_recipe(tmp_path / "r.yaml", models)
    tiny.lock(path)
    assert load(path).warnings == (
        "models.mean.merge: 'a' and 'b' differ in sliding window (16 tokens, none); the result has that of 'a'",
    )


# Settings as the configurations of version 4 have them, by type; of each that transformers 5 writes, nothing may differ.
OLDER = {
    **{
        kind: {}
        for kind in ("llama", "mistral", "qwen2", "qwen3", "granite", "olmo2", "cohere", "starcoder2")
    },
    **{kind: {"partial_rotary_factor": 0.25} for kind in ("phi", "stablelm", "glm4")},
    "gemma3_text": {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
    "olmo3": {"rope_theta": 5e5},
    "gpt_neox": {"rotary_emb_base": 10000, "rotary_pct": 0.25},
    "phi3": {"original_max_position_embeddings": 64, "partial_rotary_factor": 1.0},
}
SCALED = {
    "none": None,
    "linear": {"rope_type": "linear", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0},
    "longrope": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
}


@pytest.mark.parametrize("scaling", SCALED)
@pytest.mark.parametrize("kind", OLDER)
def test_a_configuration_means_the_same_after_transformers_has_saved_it(kind, scaling):
    from transformers import CONFIG_MAPPING

    if (kind == "phi3") != (scaling == "longrope"):
        pytest.skip("longrope is the only way of Phi-3, and of no other type")
    older = {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
        "rope_scaling": SCALED[scaling],
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 1),
        **OLDER[kind],
    }
    settings = CONFIG_MAPPING[kind](**copy.deepcopy(older))
    newer = json.loads(settings.to_json_string())
    defaults = {key: value for key, value in newer.items() if key not in {"rope_parameters", "rope_theta"}}
    theta = older.get("rope_theta") or settings.rope_parameters.get("rope_theta")
    config = {**defaults, **older, "model_type": kind, "rope_theta": theta}
    assert differences(config, newer) == differences(newer, config) == []
    changed = {**config, "rope_theta": 12345.0, "rotary_emb_base": 12345.0}
    assert differences(changed, newer) != []


@pytest.mark.parametrize("kind", sorted(ALIKE - {"deepseek"}))
def test_layers_that_are_said_to_be_alike_have_no_settings_by_their_number(kind):
    from transformers import CONFIG_MAPPING

    def by_number(count):
        config = CONFIG_MAPPING[kind](num_hidden_layers=count, use_sliding_window=False).to_dict()
        lists = {
            key: value for key, value in config.items() if isinstance(value, list) and key != "layer_types"
        }
        return lists, set(config.get("layer_types") or ()) - {"full_attention"}

    assert by_number(6) == by_number(11)
    assert by_number(6)[1] == set()


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


def test_the_ways_to_scale_and_the_activations_are_those_of_transformers():
    from transformers.activations import ACT2FN
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    assert SCALINGS.keys() - {"default"} <= ROPE_INIT_FUNCTIONS.keys()
    assert ACT2FN.keys() >= ACTIVATIONS
