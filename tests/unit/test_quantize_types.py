"""The types of all tensors by every method, beside those that llama.cpp itself chooses."""

import importlib.util
import json
import platform
import sys
from pathlib import Path

import gguf
import libgguf
import pytest

from herdbook.architectures.gguf_tensors import gguf_shapes
from herdbook.plan.quantize import traits_of
from herdbook.quantization.methods import METHODS
from herdbook.quantization.mixture import Choices, Traits, choose_types, lacking_matrix
from herdbook.quantization.types import TYPES
from support.quantized import quantize_folder

DATA = Path(__file__).parents[1] / "data" / "quantize"
PEER = json.loads((DATA / "types.json").read_text(encoding="utf-8"))
X86 = platform.machine() == "x86_64"

_spec = importlib.util.spec_from_file_location("small_models", DATA / "small_models.py")
small_models = importlib.util.module_from_spec(_spec)
sys.modules["small_models"] = small_models  # its dataclass looks itself up
_spec.loader.exec_module(small_models)
MIXTURES, CHOSEN = small_models.MIXTURES, small_models.CHOSEN


def listed(counted):
    """Return the types that a peer's text counts."""
    runs = (item.rpartition("*") for item in counted.split())
    return [kind for count, _, kind in runs for _ in range(int(count or 1))]


def chosen(name, method, **choices):
    small = MIXTURES[name]
    config = small_models.config(small)
    shapes = gguf_shapes(config, small_models.names(small), name)
    return choose_types(shapes, traits_of(config), METHODS[method], Choices(**choices))


@pytest.mark.parametrize("name", MIXTURES)
def test_types_are_those_of_llama_cpp(name):
    tried = 0
    for key, peer in PEER.items():
        model, _, rest = key.partition(" ")
        method, _, matrix = rest.partition(" ")
        if model == name and method in small_models.ALL_METHODS and method in METHODS:
            types = [tensor.type for tensor in chosen(name, method, matrix=bool(matrix))]
            assert types == listed(peer["types"]), key
            tried += 1
    assert tried == 2 * len(small_models.ALL_METHODS) - len(small_models.NEED_MATRIX)


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("label", CHOSEN)
def test_chosen_types_are_those_of_llama_cpp(name, label):
    method, choices = CHOSEN[label]
    types = tuple(choices.get("types", {}).items())
    given = chosen(
        name, method, types=types, output=choices.get("output"), embeddings=choices.get("embeddings")
    )
    assert [tensor.type for tensor in given] == listed(PEER[f"{name} {label}"]["types"])
    if label in METHODS:
        assert chosen(name, label) == given


def test_every_method_is_llama_cpps():
    assert {method.rules for method in METHODS.values()} == set(small_models.ALL_METHODS)
    for method in METHODS.values():
        assert small_models.ALL_METHODS[method.rules] == method.file_type


@pytest.mark.parametrize("name", MIXTURES)
def test_a_matrix_is_asked_for_where_llama_cpp_asks(name):
    for method in METHODS.values():
        lacking = lacking_matrix(chosen(name, method.name), method)
        # rows of 320 and 96 hold none of the types that need one
        assert bool(lacking) == (method.rules in small_models.NEED_MATRIX and name != "narrow"), method.name


@pytest.mark.parametrize("name", small_models.ENCODED)
@pytest.mark.skipif(not X86, reason="quantizers agree bit for bit on x86-64 only")
def test_whole_files_are_those_of_llama_cpp(tmp_path, name):
    folder, full = tmp_path / "model", tmp_path / "full.gguf"
    small_models.write_folder(MIXTURES[name], folder)
    small_models.write_gguf(MIXTURES[name], full)
    for method in ("IQ4_XS", "IQ3_M", "Q4_K_L", "Q2_K", "Q4_0", "MXFP4_MOE", "TQ1_0", "F16"):
        record = quantize_folder(folder, full, tmp_path / "made.gguf", method, threads=2)
        assert record["file"]["sha256"] == PEER[f"{name} {method}"]["sha256"], method


def test_a_70b_has_a_wider_value_projection():
    shapes = {f"blk.{layer}.attn_v.weight": (256, 256) for layer in range(80)}
    q4 = METHODS["Q4_K_S"]

    def types(architecture, heads):
        return {tensor.type for tensor in choose_types(shapes, Traits(architecture, 80, 0, heads, 8), q4)}

    assert types("llama", 64) == types("qwen2", 8) == {"Q5_K"}
    assert types("llama", 8) == types("qwen3", 64) == {"Q5_K", "Q4_K"}


def test_types_are_those_of_ggml():
    for name, kind in TYPES.items():
        theirs = gguf.GGMLQuantizationType[name]
        assert (kind.number, (kind.block, kind.block_bytes)) == (theirs, gguf.GGML_QUANT_SIZES[theirs])
        assert kind.narrower is None or TYPES[kind.narrower].block < kind.block
        assert not libgguf.quantize_requires_imatrix(theirs) or kind.needs_matrix
