"""The tensors that a configuration implies, against those that transformers makes and loads."""

import pytest
import torch

from herdbook.architectures.form import implied, misfits
from herdbook.errors import StepError
from herdbook.weights import loading

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


MIXED = {
    "num_experts": 4,
    "num_local_experts": 4,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
}
MIXTURES = {
    "mixtral": [{}, {"head_dim": 16}, {"tie_word_embeddings": True}],
    "qwen2_moe": [{}, {"decoder_sparse_step": 2}, {"mlp_only_layers": [1]}, {"qkv_bias": False}],
    "qwen3_moe": [{}, {"attention_bias": True}, {"head_dim": 16}, {"mlp_only_layers": [0, 2]}],
}


@pytest.mark.parametrize(
    ("model_type", "changes"), [(kind, changes) for kind, several in MIXTURES.items() for changes in several]
)
def test_a_mixture_s_configuration_implies_what_transformers_makes_and_loads(model_type, changes):
    config = {"model_type": model_type, **SIZES, **MIXED, **changes}
    assert implied(config, fused=True) == of_transformers(config)
    for fused in (False, True):
        form = implied(config, fused=fused)
        assert misfits(config, form) == []
        assert loading.by_transformers(config, form) == []


def test_deepseek_s_first_layers_and_shared_experts():
    counts = {"n_routed_experts": 4, "n_shared_experts": 2, "first_k_dense_replace": 1, "moe_layer_freq": 2}
    form = implied({"model_type": "deepseek", **SIZES, "moe_intermediate_size": 24, **counts})
    shapes = {name: shape for name, shape in form.items() if ".mlp." in name and "up_proj" in name}
    assert shapes == {
        "model.layers.0.mlp.up_proj.weight": (80, 48),
        "model.layers.1.mlp.up_proj.weight": (80, 48),
        "model.layers.2.mlp.shared_experts.up_proj.weight": (48, 48),
        **{f"model.layers.2.mlp.experts.{place}.up_proj.weight": (24, 48) for place in range(4)},
    }
    assert form["model.layers.2.mlp.gate.weight"] == (4, 48)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_size": None}, "its config.json lacks 'intermediate_size'"),
        ({"hidden_size": "48"}, "its config.json has '48' as hidden_size"),
        ({"num_key_value_heads": -2}, "its config.json has -2 as num_key_value_heads"),
        ({"num_hidden_layers": 10**12}, "its config.json implies more than 1,000,000 tensors"),
        ({"model_type": "mixtral", "num_local_experts": 10**12}, "its config.json implies more than"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": 3}, "its config.json has 3 as mlp_only_layers"),
    ],
)
def test_a_configuration_without_usable_numbers_is_named(changes, message):
    [line] = misfits({"model_type": "llama", **SIZES, **MIXED, **changes}, {})
    assert message in line


@pytest.mark.parametrize("model_type", ["gemma2", "phi3", "olmo2", "gpt_neox", "llama"])
def test_other_types_are_loaded_by_transformers_without_their_weights(model_type, capfd):
    config = {"model_type": model_type, **SIZES, "pad_token_id": 0}
    form = of_transformers(config)
    assert loading.by_transformers(config, form) == []
    name, missing = "extra.weight", next(name for name in form if ".1." in name)
    shape = form[missing]
    lines = loading.by_transformers(config, {**{n: s for n, s in form.items() if n != missing}, name: (3,)})
    assert [missing in lines[0], name in lines[1], len(lines)] == [True, True, 2]
    [line] = loading.by_transformers(config, {**form, missing: (*shape[:-1], 7)})
    assert f"{missing} has shape {[*shape[:-1], 7]}, and its config.json implies {list(shape)}" in line
    assert capfd.readouterr() == ("", "")


def test_what_transformers_cannot_load_is_named():
    for kind in ("of next year", "vit"):
        with pytest.raises(StepError, match=f"transformers has no language model of type '{kind}'"):
            loading.loading_problems({"model_type": kind}, {})
    [line] = loading.loading_problems(
        {"model_type": "gemma2", **SIZES, "num_hidden_layers": 10**9}, {"a": (1,)}
    )
    assert "implies 1000000000 layers" in line
    [line] = loading.loading_problems(
        {"model_type": "gemma2", **SIZES, "hidden_size": "wide"}, dict.fromkeys("abc", (1,))
    )
    assert "transformers cannot read its config.json" in line
