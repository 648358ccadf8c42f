"""Formats for Macs: their numbers against mlx's and against arithmetic of our own, their names and settings against mlx-lm's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from herdbook.architectures import mlx as layout
from herdbook.architectures.form import implied
from herdbook.quantization.mlx import FORMATS
from herdbook.quantization.schemes import SCHEMES, scheme_of
from herdbook.steps.compress.mlx import decode, encode
from herdbook.weights.compressed import full_width, held
from herdbook.weights.loading import loading_problems

PEER = Path(__file__).parents[1] / "data/compress"
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
DENSE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 60,
    "tie_word_embeddings": False,
}
MIXTRAL = {
    **DENSE,
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 3,
}
QWEN3 = {
    **DENSE,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "head_dim": 32,
    "num_experts": 3,
    "moe_intermediate_size": 192,
}
BITS = pytest.mark.parametrize("scheme", FORMATS, ids=lambda scheme: scheme.name)


@pytest.fixture(scope="module")
def peer():
    """Matrices, and what mlx made of them."""
    return {**load_file(PEER / "peer.safetensors"), **load_file(PEER / "mlx.safetensors")}


def bits_of(tensor):
    """The bytes of a tensor, whatever its dtype is called."""
    return tensor.contiguous().view(torch.uint8)


@BITS
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_is_that_of_mlx(peer, scheme, dtype):
    made = encode(peer[f"{dtype}.matrix"], scheme)
    for part, tensor in made.items():
        theirs = peer[f"{dtype}.{scheme.bits}.{part}"]
        assert tensor.shape == theirs.shape
        assert tensor.dtype == (torch.int32 if part == "weight" else DTYPES[dtype])
        assert torch.equal(bits_of(tensor), bits_of(theirs)), part


@BITS
def test_its_settings_are_those_that_mlx_lm_writes(scheme):
    theirs = json.loads((PEER / "mlx.json").read_text(encoding="utf-8"))["settings"][str(scheme.bits)]
    assert dict.fromkeys(scheme.keys, scheme.settings([])) == theirs
    assert scheme_of(theirs) is scheme
    for key in scheme.keys:
        assert scheme_of({**theirs, key: {**theirs[key], "group_size": 32}}) is None


def line(group, steps):
    """The scale and the bias of a group, one number after another in float32."""
    least, most = min(group), max(group)
    step = max(np.float32(np.float32(most - least) / np.float32(steps)), np.float32(1e-7))
    farther = least if abs(least) > abs(most) else most
    step = step if abs(least) > abs(most) else -step
    whole = np.rint(np.float32(farther / step))
    return (np.float32(farther / whole), farther) if whole else (step, np.float32(0))


@BITS
def test_numbers_are_the_nearest_whole_steps_from_the_farther_end(scheme):
    drawn = torch.randn(3, 128, generator=torch.Generator().manual_seed(5))
    drawn[1] = drawn[1].abs()
    drawn[2, 3:] = 0.0
    made = encode(drawn, scheme)
    steps = (1 << scheme.bits) - 1
    for row, words, scales, biases in zip(
        drawn.numpy(), made["weight"], made["scales"], made["biases"], strict=True
    ):
        # a row is one stream of bits, the first number in the lowest
        stream = sum((int(word) & 0xFFFFFFFF) << 32 * place for place, word in enumerate(words))
        numbers = [stream >> scheme.bits * place & steps for place in range(128)]
        for group in range(2):
            own = row[64 * group : 64 * group + 64]
            scale, bias = line(own, steps)
            assert (float(scales[group]), float(biases[group])) == (float(scale), float(bias))
            expected = [min(max(np.rint((value - bias) / scale), 0), steps) for value in own]
            assert numbers[64 * group : 64 * group + 64] == expected


@BITS
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_what_is_decoded_is_as_near_as_the_format_allows(scheme, dtype):
    weights = torch.randn(40, 256, generator=torch.Generator().manual_seed(6)).to(dtype)
    decoded = decode(encode(weights, scheme), scheme)
    error = (decoded - weights.float()).abs().reshape(40, 4, 64)
    groups = weights.float().reshape(40, 4, 64)
    spread = groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)
    # the step is at most a third of a step wider than the spread over the steps; then comes what rounding the scale moves
    steps = (1 << scheme.bits) - 1
    rounding = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-23}[dtype]
    assert bool((error <= spread / steps * (4 / 3) + 2 * spread * rounding).all())
    assert float(error.max()) > 0
    # the end that a group is counted from is exact
    farthest = groups.abs() == groups.abs().amax(-1, keepdim=True)
    assert float(error.where(farthest, torch.inf).amin(-1).max()) == 0


def test_blocks_of_rows_are_put_together(monkeypatch):
    weights = torch.randn(50, 128, generator=torch.Generator().manual_seed(7))
    scheme = SCHEMES["MLX_6BIT"]
    whole = encode(weights, scheme)
    monkeypatch.setattr("herdbook.steps.compress.mlx.AT_ONCE", 7 * 128)
    some = encode(weights, scheme)
    assert all(torch.equal(whole[part], some[part]) for part in whole)
    assert torch.equal(decode(whole, scheme), decode(some, scheme))


def form_of(config, scheme):
    """The shapes of a model's tensors in a format, spelled out: three for each matrix, those of experts with their number before."""
    found = {}
    for full, shape in implied(config).items():
        if len(shape) == 1 or full.endswith(".gate.weight"):
            found[full] = shape
            continue
        rows, columns = shape
        module = full.removesuffix(".weight").replace(".experts.0.", ".switch_mlp.")
        for own, dense in {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}.items():
            module = module.replace(f".switch_mlp.{own}", f".switch_mlp.{dense}")
        if ".experts." in module:
            continue
        outer = (3, rows) if ".switch_mlp." in module else (rows,)
        found[f"{module}.weight"] = (*outer, columns * scheme.bits // 32)
        found[f"{module}.scales"] = found[f"{module}.biases"] = (*outer, columns // 64)
    return found


@BITS
@pytest.mark.parametrize("config", [DENSE, MIXTRAL, QWEN3], ids=lambda config: config["model_type"])
def test_a_model_in_a_format_loads_whole_or_each_difference_is_named(scheme, config):
    described = config | dict.fromkeys(scheme.keys, scheme.settings([]))
    form = form_of(config, scheme)
    assert loading_problems(described, form) == []
    assert full_width(form, scheme, config)[0] == implied(config)
    for name in (name for name in form if "down_proj" in name or "embed" in name or "norm" in name):
        lacking = {key: shape for key, shape in form.items() if key != name}
        assert loading_problems(described, lacking) != [], name
        other = {**form, name: tuple(extent + 8 for extent in form[name])}
        assert loading_problems(described, other) != [], name
    (problem,) = loading_problems(described, {**form, "model.layers.0.self_attn.q_proj.input_scale": (1,)})
    assert "input_scale" in problem
    plain = {**form, "lm_head.weight": (60, 128)}
    del plain["lm_head.scales"], plain["lm_head.biases"]
    assert "lm_head.scales" in loading_problems(described, plain)[0]


def test_a_head_that_is_tied_is_not_there():
    scheme, tied = SCHEMES["MLX_4BIT"], {**DENSE, "tie_word_embeddings": True}
    described = tied | dict.fromkeys(scheme.keys, scheme.settings([]))
    form = form_of(tied, scheme)
    assert loading_problems(described, form) == []
    spare = {**form, "lm_head.weight": (60, 16), "lm_head.scales": (60, 2), "lm_head.biases": (60, 2)}
    assert "lm_head" in loading_problems(described, spare)[0]
    assert layout.is_left_out("lm_head.weight", tied)
    assert not layout.is_left_out("lm_head.weight", DENSE)
    assert layout.is_left_out("model.layers.0.self_attn.rotary_emb.inv_freq", DENSE)


def test_stacked_matrices_are_those_of_the_experts_in_order():
    inside = "model.layers.1.block_sparse_moe"
    form = {f"{inside}.switch_mlp.up_proj.{part}": (11, 8, 8) for part in ("weight", "scales", "biases")}
    names = held(form, SCHEMES["MLX_4BIT"])[f"{inside}.switch_mlp.up_proj"]
    assert names == [f"{inside}.experts.{place}.w3.weight" for place in range(11)]
    huge = dict.fromkeys(form, (10**12, 8, 8))
    assert held(huge, SCHEMES["MLX_4BIT"]) == {}


def test_settings_are_under_the_names_that_mlx_lm_reads():
    """As transformers 5 writes a configuration: the base of rotary embeddings is nested, and defaults may be left out."""
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = {
        **DENSE,
        "rope_parameters": {"rope_theta": 5e5, **scaling},
        "layer_types": ["sliding_attention"],
    }
    del config["tie_word_embeddings"], config["num_key_value_heads"]
    found = layout.settings_of(config)
    assert found["rope_theta"] == 5e5
    assert found["rope_scaling"] == scaling
    assert (found["tie_word_embeddings"], found["layer_types"]) == (False, None)
    assert (found["head_dim"], found["num_key_value_heads"]) == (32, 4)
    assert found["rms_norm_eps"] == 1e-6
    mixture = layout.settings_of(QWEN3)
    assert (mixture["decoder_sparse_step"], mixture["mlp_only_layers"]) == (1, [])
    assert (mixture["norm_topk_prob"], mixture["num_experts_per_tok"]) == (False, 8)
    assert (
        layout.settings_of({**DENSE, "model_type": "mistral", "attention_bias": True})["attention_bias"]
        is False
    )


YARN = {"rope_type": "yarn", "factor": 4.0}
QWEN2 = {**DENSE, "model_type": "qwen2_moe", "norm_topk_prob": False}
BIASES = [f"model.layers.0.self_attn.{one}_proj.bias" for one in "qkv"]


@pytest.mark.parametrize(
    ("config", "tensors", "expected"),
    [
        ({**DENSE, "model_type": "deepseek"}, [], "has the model_type 'deepseek'"),
        ({**DENSE, "hidden_act": "gelu"}, [], "the activation gelu"),
        ({**DENSE, "rope_scaling": YARN}, [], "scaled by 'yarn'"),
        ({**MIXTRAL, "rope_scaling": {"type": "linear", "factor": 2.0}}, [], "scaled by 'linear'"),
        ({**MIXTRAL, "head_dim": 64}, [], "heads that are 64 wide, and mlx-lm takes them as 32 wide"),
        ({**QWEN2, "tie_word_embeddings": True}, BIASES, "embeddings that are its head"),
        ({**QWEN2, "norm_topk_prob": True}, BIASES, "norm_topk_prob"),
        ({**QWEN2, "mlp_only_layers": [0]}, BIASES, "layers without experts"),
        ({**QWEN2, "decoder_sparse_step": 2}, BIASES, "layers without experts"),
        (QWEN2, [], "biases of the attention for none, and mlx-lm has them for k, q, v"),
        (QWEN3, BIASES, "biases of the attention for k, q, v, and mlx-lm has them for none"),
    ],
)
def test_what_mlx_lm_computes_otherwise_is_refused(config, tensors, expected):
    (found,) = layout.objections("base", config, tensors)
    assert expected in found


@pytest.mark.parametrize(
    ("config", "tensors"),
    [
        (DENSE, []),
        ({**DENSE, "rope_scaling": {"type": "linear", "factor": 2.0}, "hidden_act": "swish"}, []),
        ({**DENSE, "attention_bias": True}, [*BIASES, "model.layers.0.self_attn.o_proj.bias"]),
        (MIXTRAL, []),
        (QWEN3, []),
        (QWEN2, BIASES),
    ],
)
def test_what_mlx_lm_computes_alike_is_not_refused(config, tensors):
    assert list(layout.objections("base", config, tensors)) == []


def test_a_sliding_window_is_warned_of():
    mistral = {**DENSE, "model_type": "mistral", "sliding_window": 4096}
    (warning,) = layout.warnings(mistral)
    assert "no sliding window for mistral: texts of more than 4,096 tokens" in warning
    assert layout.warnings({**mistral, "sliding_window": None}) == []
