"""Each family that becomes GGUF, beside what llama.cpp's converter makes of it: tensors, sizes, hyperparameters."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from gguf.quants import dequantize
from safetensors.torch import load_file

from herdbook.architectures import conversion
from herdbook.architectures.gguf_forms import FORMS
from herdbook.architectures.gguf_tensors import ROPE_FREQUENCIES, derived, rope_frequencies
from herdbook.errors import CheckpointError, StepError
from herdbook.steps.quantize.convert import _add_derived, _size_label, convert_folder
from herdbook.steps.quantize.dequantize import load_dequantized
from herdbook.steps.quantize.derive import derive, require_equal
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.steps.quantize.source import tensors_of
from herdbook.tools.converter import CONVERTER
from herdbook.verify.gguf.compare import compare
from herdbook.verify.gguf.model import Model
from herdbook.verify.gguf.table import size_label, tokenizer_entries
from herdbook.verify.gguf_rows import WeightRows
from herdbook.weights.gguf_file import read_gguf
from herdbook.weights.gguf_header import parse_header
from herdbook.weights.gguf_restored import RestoredTensors
from support import buttercup
from support.gguf_families import PEER, families, with_derived, write_header
from support.quantized import quantize_folder

FAMILIES = list(families.CONFIGS)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "command-r-normed")) for name in FAMILIES],
)
def made(request, tmp_path_factory):
    """Make the full-width file of a family."""
    root = tmp_path_factory.mktemp(request.param)
    folder, head, path = root / "model", root / "head.gguf", root / "made.gguf"
    families.write_folder(request.param, folder)
    header = write_header(head, request.param)
    with_derived(header, folder)
    record = quantize_folder(folder, head, path, "BF16")
    return SimpleNamespace(name=request.param, folder=folder, head=head, path=path, record=record)


def test_tensors_are_those_of_the_converter(made):
    theirs = PEER[made.name]["tensors"]
    file = read_gguf(made.path)
    ours = {
        name: [
            tensor.type.name,
            list(tensor.shape),
            hashlib.sha256(file.read_rows(tensor, 0, tensor.rows).tobytes()).hexdigest(),
        ]
        for name, tensor in file.tensors.items()
    }
    # a quantized file lists no slow extents of 1, as llama-quantize does not
    assert ours == {
        name: [kind, shape[-1:] if shape[0] == 1 else shape, digest]
        for name, (kind, shape, digest) in theirs.items()
    }


def test_the_size_in_words_is_the_converters(made):
    assert _size_label(read_folder(made.folder)) == PEER[made.name]["size_label"]
    tensors = read_gguf(made.path).tensors.values()
    assert size_label(tensors) == PEER[made.name]["size_label"]


def test_hyperparameters_follow_from_the_configuration(made):
    compared = compare(Model(families.config(made.name), None), read_gguf(made.head).metadata)
    # the tokenizer's, and what the recipe says, are not in this header
    wrong = [one for one in compared.different if not one.key.startswith(("tokenizer.", "general."))]
    assert wrong == []
    own = [key for key in compared.equal if key.startswith(PEER[made.name]["architecture"])]
    assert len(own) == len([key for key in PEER[made.name]["fields"] if not key.startswith("general.")])


def test_what_was_made_derives_and_what_was_changed_does_not(made, tmp_path):
    derived = derive(made.path, made.folder)
    require_equal(derived, made.name)
    assert derived.record == made.record
    damaged = tmp_path / "damaged.gguf"
    first, *_, last = read_gguf(made.path).tensors.values()
    for tensor in (first, last):
        data = bytearray(made.path.read_bytes())
        data[tensor.start + 1] ^= 64
        damaged.write_bytes(data)
        assert list(derive(damaged, made.folder).problems) == [tensor.name]


def test_every_parameter_comes_back(made):
    from transformers import AutoModelForCausalLM

    if made.name.startswith("deepseek"):  # which transformers does not have
        restored = RestoredTensors(made.path, families.config(made.name), made.name)
        stored = load_file(made.folder / "model.safetensors")
        assert restored.spans.keys() == stored.keys()
        assert all(np.array_equal(restored[name], stored[name].float()) for name in stored)
        return
    loaded = load_dequantized(made.path, made.folder)
    theirs = AutoModelForCausalLM.from_pretrained(made.folder, dtype="float32").state_dict()
    ours = loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_rows_by_ranges_are_those_of_the_file(made):
    model = read_folder(made.folder)
    content = (made.folder / "model.safetensors").read_bytes()
    spans = {name: span for name, (_, span) in model.tensors.items()}

    def read(name, start, stop):
        return content[spans[name].start :][start:stop]

    rows = WeightRows(tensors_of(model), spans, read)
    file = read_gguf(made.path)
    for tensor in file.tensors.values():
        if rows.parts[tensor.name].sources:
            first = tensor.rows // 3
            found = rows.of(tensor, first, tensor.rows - first)
            expected = dequantize(file.read_rows(tensor, first, tensor.rows - first), tensor.type)
            assert np.array_equal(found, expected.reshape(found.shape)), tensor.name


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "gemma2",
        "qwen3",
        "phi3",
        "phi4-mini",
        "gemma3-scaled",
        "deepseek",
        "deepseek-shared",
    ],
)
def test_headers_are_those_of_the_real_converter(tmp_path, monkeypatch, name):
    try:
        CONVERTER.find()
    except StepError as error:
        pytest.skip(str(error))
    monkeypatch.setitem(families.COMMON, "vocab_size", 520)
    monkeypatch.setattr(families, "VOCABULARY", 520)
    folder, head = tmp_path / "model", tmp_path / "head.gguf"
    families.write_folder(name, folder)
    buttercup.write_tokenizer(folder, [f"{number} sires and dams" for number in range(2000)])
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "add_prefix_space": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    general = {"general.name": "Small"}
    convert_folder(folder, head, metadata=general)
    quantize_folder(folder, head, tmp_path / "made.gguf", "Q8_0")
    made = parse_header((tmp_path / "made.gguf").read_bytes(), head)
    files = [path.name for path in folder.iterdir()]
    config = families.config(name)
    tokens = tokenizer_entries(config, files, lambda file: (folder / file).read_bytes())
    compared = compare(Model(config, tokens, general, 7, made.tensors), made.metadata)
    assert (compared.different, compared.unknown) == ([], [])


def test_every_form_has_a_peer():
    tried = {families.config(name)["architectures"][0] for name in FAMILIES}
    assert set(FORMS) - tried == {"MistralForCausalLM", "MixtralForCausalLM"}  # of test_quantize_convert


# --- Llama 3


def test_frequencies_are_those_of_transformers():
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = families.config("llama3") | {"head_dim": 64}
    plain = [5000.0 ** (-index / 64) for index in range(0, 64, 2)]
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig(**config), "cpu")
    factors = rope_frequencies(config)
    assert (min(factors), max(factors)) == (1, 8)
    assert len(set(factors)) > 3
    assert np.allclose(np.array(plain) / factors, scaled.numpy(), rtol=1e-5)


def test_other_frequencies_do_not_derive(tmp_path):
    folder, head, path = tmp_path / "model", tmp_path / "head.gguf", tmp_path / "made.gguf"
    families.write_folder("llama3", folder)
    header = write_header(head, "llama3")
    with pytest.raises(CheckpointError, match=rf"lacks the tensor {ROPE_FREQUENCIES}; rerun `convert`"):
        quantize_folder(folder, head, path, "Q8_0")
    changed = families.config("llama3")
    changed["rope_scaling"] = changed["rope_scaling"] | {"factor": 4.0}
    _add_derived(header, changed, [ROPE_FREQUENCIES])
    quantize_folder(folder, head, path, "Q8_0")
    assert derive(path, folder).problems == {ROPE_FREQUENCIES: "(F32): does not follow from config.json"}


# --- LongRoPE


def test_factors_are_those_of_transformers():
    from transformers import Phi3Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = families.config("phi4-mini")
    theirs = Phi3Config(**config)
    plain = [5000.0 ** (-index / 6) for index in range(0, 6, 2)]
    for length, name in ((256, "rope_factors_short.weight"), (257, "rope_factors_long.weight")):
        scaled, factor = ROPE_INIT_FUNCTIONS["longrope"](theirs, "cpu", seq_len=length)
        assert np.allclose(np.array(plain) / derived(config, name), scaled.numpy(), rtol=1e-5)
        assert conversion.attention_factor(config) == pytest.approx(factor)
    assert conversion.long_from(config) == 256
    assert conversion.long_from(families.config("phi3")) is None


@pytest.mark.parametrize(("name", "key"), [("phi4-mini", "long_factor"), ("phi3-long", "short_factor")])
def test_other_factors_do_not_derive(tmp_path, name, key):
    folder, head, path = tmp_path / "model", tmp_path / "head.gguf", tmp_path / "made.gguf"
    families.write_folder(name, folder)
    changed = families.config(name)
    changed["rope_scaling"] = changed["rope_scaling"] | {key: [9.0] * len(changed["rope_scaling"][key])}
    tensor = f"rope_factors_{key.removesuffix('_factor')}.weight"
    _add_derived(write_header(head, name), changed, ["rope_factors_long.weight", "rope_factors_short.weight"])
    quantize_folder(folder, head, path, "Q8_0")
    assert derive(path, folder).problems == {tensor: "(F32): does not follow from config.json"}


# --- routers that choose all experts


def test_weights_of_all_experts_need_not_be_normalized():
    for name, value in (("qwen2_moe", True), ("qwen3_moe", False)):
        changed = families.config(name) | {"norm_topk_prob": value}
        assert "as if norm_topk_prob were" in conversion.objection(changed)
        assert conversion.objection(changed | {"num_experts_per_tok": families.EXPERTS}) is None


# --- what llama.cpp would compute otherwise

FACTORS = {"long_factor": [2.0] * 3, "short_factor": [1.0] * 3}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("qwen2_moe", {"norm_topk_prob": True}, "as if norm_topk_prob were False, and config.json has True"),
        ("qwen3_moe", {"norm_topk_prob": False}, "as if norm_topk_prob were True, and config.json has False"),
        ("qwen3_moe", {"norm_topk_prob": None}, "as if norm_topk_prob were True"),
        ("qwen3_moe", {"mlp_only_layers": [1]}, r"as if mlp_only_layers were \[\]"),
        ("qwen3", {"rope_scaling": families.LLAMA3}, "rope_type llama3 are not supported"),
        ("smollm3", {"no_rope_layers": [1, 1, 1, 1]}, "every 4th layer, and config.json in others"),
        ("smollm3", {"no_rope_layer_interval": 3}, "every 4th layer"),
        ("smollm3", {"use_sliding_window": True}, "no sliding window"),
        (
            "gemma2",
            {"hidden_activation": "silu"},
            r"computes gelu_pytorch_tanh in place of .* \(hidden_activation\)",
        ),
        ("gemma2", {"rope_theta": 5000.0}, "as if rope_theta were 10000"),
        (
            "gemma2",
            {"rope_theta": None, "rope_parameters": {"rope_theta": 5e3}},
            "as if rope_theta were 10000",
        ),
        ("gemma2", {"query_pre_attn_scalar": 144}, "as if query_pre_attn_scalar were 8"),
        ("gemma2", {"layer_types": ["full_attention"] * 4}, "a sliding window to all but every 2nd layer"),
        (
            "gemma2",
            {"final_logit_softcapping": 0},
            "needs attn_logit_softcapping and final_logit_softcapping",
        ),
        ("gemma2", {"tie_word_embeddings": False}, "as if tie_word_embeddings were True"),
        ("gemma3", {"sliding_window_pattern": 4}, "a sliding window to all but every 6th layer"),
        ("gemma3", {"sliding_window": 0}, "llama.cpp gives it a sliding window"),
        (
            "gemma3",
            {"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}},
            "rope_type yarn are not supported, only default, linear",
        ),
        (
            "gemma3",
            {"rope_parameters": {"full_attention": {}, "sliding_attention": {"rope_type": "linear"}}},
            "rope_type linear are not supported in layers with a sliding window",
        ),
        ("stablelm", {"rope_theta": 5000.0}, "as if rope_theta were 10000"),
        ("stablelm", {"tie_word_embeddings": True}, "as if tie_word_embeddings were False"),
        ("stablelm", {"layer_norm_eps": None}, "converter needs layer_norm_eps in config.json"),
        ("stablelm", {"num_key_value_heads": None}, "converter needs num_key_value_heads in config.json"),
        (
            "stablelm",
            {"partial_rotary_factor": None},
            "converter needs partial_rotary_factor in config.json",
        ),
        (
            "stablelm",
            {"rope_parameters": {"partial_rotary_factor": 0.25}},
            r"more than one partial_rotary_factor: 0\.25 and 0\.5",
        ),
        ("stablelm", {"head_dim": 16}, "as if head_dim were 8, and config.json has 16"),
        ("phi3", {"rope_theta": None}, "converter needs rope_theta in config.json"),
        ("phi3", {"original_max_position_embeddings": None}, "needs original_max_position_embeddings"),
        (
            "phi3",
            {"rope_scaling": {"type": "longrope", "long_factor": [2.0] * 3, "short_factor": [1.0] * 4}},
            "short_factor has 4 numbers, and llama.cpp reads 3",
        ),
        (
            "phi3",
            {"rope_scaling": {"type": "longrope", "long_factor": [2.0] * 3}},
            "rope_type longrope need short_factor",
        ),
        (
            "phi3",
            {"rope_scaling": {"type": "su", **FACTORS, "factor": 4.0}},
            "as if factor of the rotary embeddings were 1, and config.json has 4",
        ),
        (
            "phi3",
            {"rope_scaling": {"type": "su", **FACTORS, "factor": 0}},
            "as if factor of the rotary embeddings were 1, and config.json has 0",
        ),
        (
            "phi3",
            {"rope_scaling": {"type": "su", **FACTORS, "attention_factor": 1.2}},
            "as if attention_factor of the rotary embeddings were 1, and config.json has 1.2",
        ),
        *(
            (
                "phi4-mini",
                {"original_max_position_embeddings": length},
                f"original_max_position_embeddings is {length!r}, which is no length",
            )
            for length in (0, 1, -4, "4096", 4096.5)
        ),
        (
            "phi3",
            {"rope_scaling": {"type": "su", **FACTORS, "factor": "four"}},
            "as if factor of the rotary embeddings were 1, and config.json has four",
        ),
        (
            "phi3",
            {"rope_scaling": {"type": "yarn", **FACTORS}},
            "rope_type yarn are not supported, only default, longrope",
        ),
        ("qwen3", {"partial_rotary_factor": 0.5}, "of a part of each head"),
        ("deepseek", {"norm_topk_prob": False}, "as if norm_topk_prob were True, and config.json has False"),
        ("deepseek-shared", {"norm_topk_prob": None}, "as if norm_topk_prob were True"),
        ("deepseek-shared", {"first_k_dense_replace": 1}, "as if first_k_dense_replace were 0"),
        ("deepseek-shared", {"head_dim": 16}, "as if head_dim were 8, and config.json has 16"),
        ("llama3", {"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel is not supported, only LlamaFor"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(name, change, message):
    import re

    config = {key: value for key, value in (families.config(name) | change).items() if value is not None}
    assert conversion.objection(families.config(name)) is None
    assert conversion.ignored_window(families.config(name)) is None
    assert re.search(message, conversion.objection(config))
