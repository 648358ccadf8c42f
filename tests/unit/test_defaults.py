"""What a missing setting means, beside the configuration classes of transformers and the models that they make."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from herdbook.architectures.defaults import DEFAULTS, head_width, key_value_heads
from herdbook.architectures.mixtures import FAMILIES, kept_window, window_of
from herdbook.plan.configuration import mixture_config
from herdbook.steps.card.counts import context_bytes

KINDS = sorted(DEFAULTS.keys() - {"deepseek"})  # which transformers does not have
KEYS = sorted({key for settings in DEFAULTS.values() for key in settings} - {"use_sliding_window"})
SIZES = {
    "hidden_size": 512,
    "intermediate_size": 96,
    "num_attention_heads": 32,
    "num_hidden_layers": 2,
    "vocab_size": 64,
}
COUNT = (
    "num_local_experts"  # which has a default here for Mixtral alone; other types have another name for it
)


def of_transformers(kind, **settings):
    """Return the settings of a type's class; a Qwen has a window, if it has one."""
    window = {"use_sliding_window": True} if "use_sliding_window" in DEFAULTS[kind] else {}
    made = AutoConfig.for_model(kind, **window, **settings)
    rope = made.rope_parameters
    found = {**made.to_dict(), "rope_theta": rope.get("full_attention", rope)["rope_theta"]}
    if "sliding_attention" in rope:
        found["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    return {key: found.get(key) for key in KEYS if kind == "mixtral" or key != COUNT}


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_those_of_transformers(kind):
    theirs, others = (of_transformers(kind, num_attention_heads=heads) for heads in (4, 16))
    fixed = {
        key: value for key, value in theirs.items() if value == others[key]
    }  # others follow from the heads
    assert fixed == {key: DEFAULTS[kind].get(key) for key in fixed}
    assert DEFAULTS[kind].keys() <= {*fixed, "use_sliding_window"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_has_the_heads_that_its_configuration_does_not_state(kind):
    config = {"model_type": kind, **SIZES}
    made = AutoConfig.for_model(kind, **SIZES, num_experts=2, num_local_experts=2, pad_token_id=None)
    with torch.device("meta"):
        attention = AutoModelForCausalLM.from_config(made).model.layers[1].self_attn
    assert 32 * head_width(config) == attention.q_proj.weight.shape[0]
    assert key_value_heads(config) * head_width(config) == attention.k_proj.weight.shape[0]
    assert context_bytes(config, 1) == 2 * 2 * 2 * attention.k_proj.weight.shape[0]


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("mistral", {}, 4096),
        ("mistral", {"sliding_window": None}, None),
        ("mistral", {"max_position_embeddings": 4096}, None),
        ("mixtral", {}, None),
        ("mixtral", {"sliding_window": 32}, 32),
        ("qwen2", {"sliding_window": 32}, None),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": True}, 32),
        ("qwen3", {"use_sliding_window": True}, 4096),
        ("llama", {"sliding_window": 32}, None),
    ],
)
def test_a_window_is_that_of_the_attention_in_transformers(kind, settings, expected):
    assert window_of({"model_type": kind, **settings}) == expected
    made = AutoConfig.for_model(kind, **{**SIZES, "num_hidden_layers": 30}, **settings, num_local_experts=2)
    made.num_hidden_layers = 29  # the default of max_window_layers is 28
    with torch.device("meta"):
        attention = AutoModelForCausalLM.from_config(made).model.layers[28].self_attn
    theirs = getattr(attention, "sliding_window", getattr(made, "sliding_window", None))
    is_short = "max_position_embeddings" in settings  # a window that no text reaches is none here
    assert (None if is_short or kind == "llama" else theirs) == expected


@pytest.mark.parametrize(
    ("family", "kind"),
    [(family, kind) for family in FAMILIES.values() if family.loadable for kind in family.sources],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_mixture_is_configured_as_transformers_reads_a_base_that_states_little(family, kind):
    base = {"model_type": kind, **SIZES}
    mixed = mixture_config(
        family,
        base,
        experts=2,
        experts_per_token=1,
        shared=0,
        dtype="float32",
        keep_window=True,
        tokens_from=base,
    )
    dense, mixture = AutoConfig.for_model(**base), AutoConfig.for_model(**mixed)
    for key in (
        *("hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "tie_word_embeddings"),
        *("bos_token_id", "eos_token_id", "num_key_value_heads"),
    ):
        assert getattr(mixture, key) == getattr(dense, key), key
    assert head_width(mixed) == head_width(base)
    assert (getattr(mixture, "sliding_window", None) or None) == kept_window(family, base)
