"""A source in GGUF becomes what transformers makes of it, though transformers reads the header in another way."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from herdbook.errors import HerdbookError, SourceError
from herdbook.weights.gguf_file import header, read_gguf
from herdbook.weights.gguf_header import encode
from herdbook.weights.gguf_source import list_tensors, make_files, read_config, read_weights
from support.gguf_source import write_gguf

FORMS = {
    "plain": {},
    "mistral": {"called": "mistral"},
    "named": {"called": "A mistral by another name"},
    "tied": {"tied": True},
    "grouped": {"key_value_heads": 1},
    "unsized": {"sized": False},
}
LOCAL = {"backend", "is_local", "local_files_only", "name_or_path", "tokenizer_class"}


@pytest.mark.parametrize("form", FORMS)
def test_transformers_makes_the_same_of_it(tmp_path, form):
    path = write_gguf(tmp_path / "model.gguf", **FORMS[form])
    theirs = AutoConfig.from_pretrained(str(tmp_path), gguf_file=path.name).to_dict()
    ours = read_config(path, "bfloat16")
    assert ours.pop("architectures") == ["MistralForCausalLM" if form == "mistral" else "LlamaForCausalLM"]
    assert ours.pop("dtype") == ours.pop("torch_dtype") == "bfloat16"
    assert ours.pop("rope_theta") == theirs["rope_parameters"]["rope_theta"]
    other = {"_name_or_path", "_model_name_or_path", "transformers_version", "architectures", "dtype"}
    assert ours == {key: value for key, value in theirs.items() if value is not None and key not in other}

    # transformers reads the configuration of a Mistral, but not its tensors, which are those of a Llama
    like = write_gguf(tmp_path / "like.gguf") if form == "mistral" else path
    model = AutoModelForCausalLM.from_pretrained(
        str(tmp_path),
        gguf_file=like.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    tensors = read_weights(path)
    expected = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if form != "tied" or name != "lm_head.weight"
    }
    assert set(tensors.spans) == set(expected)
    for name, tensor in expected.items():
        assert tensors.shape(name) == tuple(tensor.shape)
        assert torch.equal(tensors[name], tensor), name


def test_its_tokenizer_is_the_one_that_transformers_takes(tmp_path):
    path = write_gguf(tmp_path / "model.gguf")
    made = make_files(path, "bfloat16")
    AutoTokenizer.from_pretrained(str(tmp_path), gguf_file=path.name).save_pretrained(tmp_path / "theirs")
    assert (tmp_path / "theirs/tokenizer.json").read_bytes() == made["tokenizer.json"]
    ours, theirs = (
        json.loads(text)
        for text in (made["tokenizer_config.json"], (tmp_path / "theirs/tokenizer_config.json").read_text())
    )
    # without the list, transformers 4 adds `token_type_ids`, at which `generate()` raises
    assert ours.pop("model_input_names") == ["input_ids", "attention_mask"]
    assert ours["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert {**ours, **dict.fromkeys(LOCAL)} == {**theirs, **dict.fromkeys(LOCAL)}


def rewritten(path, metadata, tensors):
    """Write a header alone: metadata and tensors of which the file has no data."""
    path.write_bytes(header(metadata, tensors))
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "general.architecture",
            "qwen2",
            r"the architecture 'qwen2' from GGUF is not supported \(supported: llama",
        ),
        ("general.architecture", None, "the architecture None from GGUF"),
        ("llama.attention.head_count", [2, 2], "model.gguf: .*llama.attention.head_count is a list"),
        ("llama.block_count", "two", "model.gguf: .*num_hidden_layers"),
    ],
)
def test_a_header_that_is_not_understood_is_refused(tmp_path, key, value, message):
    file = read_gguf(write_gguf(tmp_path / "model.gguf"))
    metadata = (
        {**file.metadata, key: encode(value)}
        if value
        else {name: raw for name, raw in file.metadata.items() if name != key}
    )
    path = rewritten(tmp_path / "model.gguf", metadata, ())
    with pytest.raises(SourceError, match=message):
        read_config(path, "bfloat16")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rope_freqs.weight", "contains the tensor rope_freqs.weight, which the model does not have"),
        (
            "blk.0.attn_q.bias",
            r"the tensor model.layers.0.self_attn.q_proj.bias has the shape None, and in the file \(8,\)",
        ),
    ],
)
def test_a_tensor_that_transformers_would_leave_out_is_refused(tmp_path, name, message):
    path = write_gguf(tmp_path / "model.gguf", more=(name,))
    with pytest.raises(HerdbookError, match=message):
        list_tensors(path, read_config(path, "bfloat16"))


def test_all_tensors_are_listed_in_the_order_of_transformers(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", key_value_heads=1, tied=True)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(tmp_path), gguf_file=path.name))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    expected.pop("lm_head.weight")
    assert list(list_tensors(path, read_config(path, "bfloat16")).items()) == list(expected.items())
