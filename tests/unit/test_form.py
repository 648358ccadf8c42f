"""The tensors that a configuration implies, against those that transformers makes."""

import pytest
import torch

from herdbook.architectures.form import implied, misfits

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
CHANGES = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 16},
}
NULLS = {"head_dim": None, "num_key_value_heads": None}  # as older versions of transformers wrote them


def of_transformers(config):
    from transformers import AutoConfig, AutoModelForCausalLM

    plain = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **plain))
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_configuration_implies_what_transformers_makes(model_type, changes):
    config = {"model_type": model_type, **SIZES, **changes}
    assert implied(config) == of_transformers(config)


@pytest.mark.parametrize("key", NULLS)
def test_null_is_read_as_transformers_does(key):
    config = {"model_type": "llama", **SIZES, key: None}
    assert implied(config) == of_transformers(config)


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("key", ["head_dim", "num_key_value_heads", "tie_word_embeddings"])
def test_defaults_are_those_of_transformers(model_type, key):
    sizes = {**SIZES, "hidden_size": 512, "num_attention_heads": 32}
    config = {"model_type": model_type, **sizes}
    config.pop(key, None)
    assert implied(config) == of_transformers(config)


def test_what_older_checkpoints_also_contain_is_accepted():
    config = {"model_type": "llama", **SIZES, "tie_word_embeddings": True}
    spare = {"lm_head.weight": (50, 48), "model.layers.0.self_attn.rotary_emb.inv_freq": (4,)}
    assert misfits(config, implied(config) | spare) == []
    assert misfits({**config, "tie_word_embeddings": False}, implied(config)) != []
    assert misfits({"model_type": "of next year"}, {}) == []
