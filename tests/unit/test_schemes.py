"""Formats for GPU servers: their numbers against llm-compressor's and against arithmetic of our own, their names and settings.

And the releases and recipes of all formats.
"""

import itertools
import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from herdbook.architectures.form import implied
from herdbook.architectures.linear import is_encoded, kept
from herdbook.errors import RecipeError
from herdbook.plan.edition import editions_of, repo_of, title_of
from herdbook.quantization.compressed_tensors import FORMATS, KEY
from herdbook.quantization.schemes import SCHEMES, scheme_of
from herdbook.recipe import compressed_name, of_scheme, parse, with_compressed, without_compressed
from herdbook.steps.compress.encode import decode, encode
from herdbook.weights.compressed import full_width
from herdbook.weights.loading import loading_problems

PEER = Path(__file__).parents[1] / "data/compress"
DTYPES = ("bf16", "f16", "f32")
SERVERS = pytest.mark.parametrize("scheme", FORMATS, ids=lambda scheme: scheme.name)
CONFIG = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 2,
    "vocab_size": 64,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def peer():
    """Matrices, and what llm-compressor made of them."""
    return load_file(PEER / "peer.safetensors")


def same(one, other):
    """Whether two tensors have the same dtype, shape and bits."""
    bits = [tensor.contiguous().view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


@SERVERS
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_is_that_of_llm_compressor(peer, scheme, dtype):
    matrix = peer[f"{dtype}.matrix"]
    made = encode(matrix, scheme)
    start = f"{dtype}.{scheme.name}."
    theirs = {name.removeprefix(start): tensor for name, tensor in peer.items() if name.startswith(start)}
    assert made.keys() == theirs.keys()
    assert [name for name in made if not same(made[name], theirs[name])] == []


@SERVERS
def test_its_settings_are_those_that_llm_compressor_writes(scheme):
    theirs = json.loads((PEER / "peer.json").read_text(encoding="utf-8"))["settings"][scheme.name]
    assert scheme.settings(theirs["ignore"]) == theirs
    assert scheme_of({KEY: theirs}) is scheme
    assert scheme_of({KEY: {**theirs, "format": "dense"}}) is None


def bfloat(value):
    """A number rounded to bfloat16, to nearest, ties to even."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    bits += 0x7FFF + (bits >> 16 & 1)
    return struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0]


def fp8(code):
    """The number that a code of E4M3 stands for: a sign, four bits of exponent, three of mantissa, no infinities."""
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = code >> 3 & 15, code & 7
    return sign * (2.0**-6 * mantissa / 8 if exponent == 0 else 2.0 ** (exponent - 7) * (1 + mantissa / 8))


def nearest(value, codes, number):
    """The code whose number is nearest; of two, the even one."""
    return min(codes, key=lambda code: (abs(number(code) - value), code & 1))


@pytest.fixture(scope="module")
def drawn():
    """A small matrix of bfloat16, as lists."""
    weights = torch.randn(2, 128, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    return weights, weights.to(torch.float32).tolist()


def test_fp8_is_the_nearest_number_of_the_quotient_by_the_scale_of_its_row(drawn):
    weights, rows = drawn
    made = encode(weights, SCHEMES["FP8_DYNAMIC"])
    codes = made["weight"].view(torch.uint8).tolist()
    for row, row_codes, (scale,) in zip(rows, codes, made["weight_scale"].tolist(), strict=True):
        assert scale == bfloat(max(map(abs, row)) / 448)
        for value, code in zip(row, row_codes, strict=True):
            quotient = max(-448.0, min(448.0, bfloat(value / scale)))
            signed = range(0x80, 0xFF) if quotient < 0 else range(0x7F)
            assert code == nearest(quotient, signed, fp8)


def test_four_bits_are_the_nearest_integer_of_the_quotient_by_the_scale_of_its_group(drawn):
    weights, rows = drawn
    made = encode(weights, SCHEMES["W4A16"])
    for row, words, (scale,) in zip(
        rows, made["weight_packed"].tolist(), made["weight_scale"].tolist(), strict=True
    ):
        assert scale == bfloat(max(map(abs, row)) / 7.5)
        fields = [(word & 0xFFFFFFFF) >> 4 * place & 15 for word in words for place in range(8)]
        quotients = [max(-8.0, min(7.0, bfloat(value / scale))) for value in row]
        assert fields == [round(quotient) + 8 for quotient in quotients]  # Python rounds half to even
    assert made["weight_shape"].tolist() == [2, 128]


@SERVERS
def test_what_is_decoded_is_as_near_as_the_format_allows(drawn, scheme):
    weights, _ = drawn
    decoded = decode(encode(weights, scheme), scheme).to(torch.float32)
    error = (decoded - weights.to(torch.float32)).abs()
    largest = weights.to(torch.float32).abs().amax(dim=1, keepdim=True)
    # half of the widest step, and the rounding of three operations in bfloat16
    steps = {"FP8_DYNAMIC": 32 / 448, "W4A16": 1 / 7.5}
    assert bool((error <= largest * (steps[scheme.name] / 2 + 3 * 2.0**-8)).all())
    assert float(error.max()) > 0


def encoded_form(scheme):
    """The shapes of a mixture's tensors in a format."""
    found = {}
    for name, shape in implied(CONFIG).items():
        if not is_encoded(name, shape):
            found[name] = shape
            continue
        for part, (_, own) in scheme.stored("BF16", shape).items():
            found[f"{name.removesuffix('.weight')}.{part}"] = own
    return found


def test_routers_head_embeddings_and_norms_keep_their_width():
    form = implied(CONFIG)
    left = {
        name.removeprefix("model.layers.0.") for name, shape in form.items() if not is_encoded(name, shape)
    }
    assert left == {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        "block_sparse_moe.gate.weight",
    }
    assert kept(form) == ["model.layers.0.block_sparse_moe.gate", "lm_head"]
    shared = "model.layers.{}.mlp.shared_expert_gate.weight"
    assert kept([shared.format(10), shared.format(2)]) == [
        "model.layers.2.mlp.shared_expert_gate",
        "model.layers.10.mlp.shared_expert_gate",
        "lm_head",
    ]


@SERVERS
def test_a_model_in_a_format_loads_whole_or_each_difference_is_named(scheme):
    config = {**CONFIG, KEY: scheme.settings(kept(implied(CONFIG)))}
    form = encoded_form(scheme)
    assert loading_problems(config, form) == []
    assert full_width(form, scheme, config)[0] == implied(CONFIG)
    stored = "model.layers.0.block_sparse_moe.experts.1.w2"
    for name in [name for name in form if name.startswith(stored)]:
        lacking = {key: shape for key, shape in form.items() if key != name}
        assert loading_problems(config, lacking) != [], name
        other = {**form, name: tuple(extent + 8 for extent in form[name])}
        assert loading_problems(config, other) != [], name
    spare = {**form, "model.layers.0.self_attn.q_proj.input_scale": (1,)}
    (problem,) = loading_problems(config, spare)
    assert "input_scale" in problem
    (problem,) = loading_problems({**config, KEY: {"quant_method": "fp8"}}, form)
    assert "quantization_config" in problem


def test_schemes_differ_in_all_that_names_them():
    for one, other in itertools.combinations(SCHEMES.values(), 2):
        ours, theirs = ((scheme.name, scheme.ending, scheme.tags[1]) for scheme in (one, other))
        assert not {*ours} & {*theirs}
        assert one.settings([]) != other.settings([])


RECIPE = """
models: {{base: {{hub: herd/base}}}}
release: {{model: base, name: Tiny, license: mit, repo: herd/tiny}}
quantize: {{{}}}
publish: {{{}}}
"""


@pytest.mark.parametrize(
    ("section", "publish", "expected"),
    [
        ("methods: [Q8_0]", "", {"Tiny": "herd/tiny"}),
        ("methods: [Q8_0]", "gguf_repo: herd/g", {"Tiny": "herd/tiny", "Tiny-GGUF": "herd/g"}),
        ("schemes: [W4A16]", "scheme_repos: {W4A16: herd/w}", {"Tiny": "herd/tiny", "Tiny-W4A16": "herd/w"}),
        (
            "schemes: [MLX_4BIT, MLX_8BIT]",
            "scheme_repos: {MLX_4BIT: herd/4, MLX_8BIT: herd/8}",
            {"Tiny": "herd/tiny", "Tiny-4bit": "herd/4", "Tiny-8bit": "herd/8"},
        ),
        (
            "methods: [Q8_0], schemes: [W4A16, FP8_DYNAMIC]",
            "gguf_repo: herd/g, scheme_repos: {FP8_DYNAMIC: herd/f, W4A16: herd/w}",
            {"Tiny": "herd/tiny", "Tiny-GGUF": "herd/g", "Tiny-W4A16": "herd/w", "Tiny-FP8": "herd/f"},
        ),
    ],
)
def test_what_a_build_is_released_as(section, publish, expected):
    recipe = parse(RECIPE.format(section, publish))
    assert {title_of(recipe, one): repo_of(recipe, one) for one in editions_of(recipe)} == expected


def test_no_model_of_a_recipe_has_the_name_of_an_encoded_one():
    names = {compressed_name("base", scheme) for scheme in SCHEMES}
    assert len(names) == len(SCHEMES)
    for name in names:
        with pytest.raises(RecipeError):
            parse(RECIPE.format("methods: [Q8_0]", "").replace("{base:", f"{{{name}: {{hub: a/b}}, base:"))


def test_the_recipe_of_a_format_has_the_model_and_its_loss_alone():
    recipe = parse(
        RECIPE.format(
            "methods: [Q8_0], schemes: [W4A16], loss: {texts: [held]}", "scheme_repos: {W4A16: herd/w}"
        )
        + "evaluate: {tasks: [arc], models: [base]}\n"
        + "calibration: {held: {data: [a.jsonl], split: validation, windows: 30, tokens: 8}}\n"
    )
    own = of_scheme(recipe, "W4A16")
    assert own.release.model == compressed_name("base", "W4A16") == "base-W4A16"
    assert own.models["base-W4A16"].compress == "base"
    assert (own.evaluate, own.gguf, own.schemes) == (None, None, ())
    assert own.quantize.loss.texts == ["held"]
    assert without_compressed(with_compressed(recipe)) == recipe
    assert "base-W4A16" in with_compressed(recipe).models
