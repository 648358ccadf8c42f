"""Embeddings and heads by their names, against the modules that transformers itself calls so."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from herdbook.architectures.rows import is_embeddings, is_other_table, is_per_token, rows_of

COUNTS = {"num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 32, "vocab_size": 99}
# Some have counts under other names alone, or need others beside them.
KINDS = {
    **{
        name: {} for name in ("llama", "gpt_neox", "phi", "falcon", "bloom", "opt", "gemma2", "mamba", "rwkv")
    },
    "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 4},
    "gptj": {"n_embd": 32, "n_layer": 1, "n_head": 4, "rotary_dim": 4},
    "gpt_neo": {"num_layers": 1, "num_heads": 4, "attention_types": [[["global"], 1]]},
    "mpt": {"d_model": 32, "n_layers": 1, "n_heads": 4},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 1, "n_head": 4},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_are_those_of_transformers(kind):
    config = AutoConfig.for_model(kind, **{**COUNTS, "pad_token_id": 0, **KINDS[kind]})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings, *heads = ({id(one) for one in module.parameters()} for module in modules)
    form = {name: tuple(one.shape) for name, one in model.named_parameters(remove_duplicate=False)}
    tensors = dict(model.named_parameters(remove_duplicate=False))
    expected = {name for name, one in tensors.items() if id(one) in embeddings.union(*heads)}
    assert {name for name in form if is_per_token(name)} == expected
    assert rows_of(form) == 99
    assert [name for name in form if is_embeddings(name)] == [
        name for name, one in tensors.items() if id(one) in embeddings and not name.startswith("lm_head")
    ]
    assert not [name for name, shape in form.items() if is_other_table(name, shape)]


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("model.embed_tokens_per_layer.weight", (64, 8), True),
        ("model.embed_tokens.weight", (64, 8), False),
        ("model.decoder.embed_positions.weight", (64, 8), False),
        ("word_embeddings_layernorm.weight", (8,), False),
        ("transformer.wpe.weight", (64, 8), False),
    ],
)
def test_other_tables(name, shape, expected):
    assert is_other_table(name, shape) == expected


def test_embeddings_of_no_known_name_and_of_two_have_no_rows():
    assert rows_of({"model.layers.0.mlp.weight": (3, 4)}) is None
    assert rows_of({"encoder.embed_tokens.weight": (3, 4), "decoder.embed_tokens.weight": (5, 4)}) is None
