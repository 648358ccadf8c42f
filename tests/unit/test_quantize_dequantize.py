"""GGUF files loaded back into transformers: equal to the source where nothing was lost, refused where anything is."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers

from herdbook.errors import CheckpointError
from herdbook.steps.quantize import dequantize
from herdbook.steps.quantize.dequantize import load_dequantized
from herdbook.weights import gguf_restored
from herdbook.weights.gguf_file import header, read_gguf
from support.quantized import quantize_folder

DATA = Path(__file__).parents[1] / "data" / "quantize"

_spec = importlib.util.spec_from_file_location("small_models", DATA / "small_models.py")
small_models = importlib.util.module_from_spec(_spec)
sys.modules["small_models"] = small_models  # its dataclass looks itself up
_spec.loader.exec_module(small_models)


@pytest.fixture(scope="session")
def herd(tmp_path_factory):
    """Give a small model by name: its Hugging Face folder and its full-width GGUF, each made once."""
    root = tmp_path_factory.mktemp("herd")

    def make(name):
        folder, full = root / name, root / f"{name}.gguf"
        if not full.exists():
            small_models.write_folder(small_models.MODELS[name], folder)
            small_models.write_gguf(small_models.MODELS[name], full)
        return folder, full

    return make


@pytest.fixture(scope="module")
def quantized(herd, tmp_path_factory):
    """Give the quantized file of the model ``four`` by its type; each is made once."""
    root = tmp_path_factory.mktemp("quantized")

    def make(kind):
        path = root / f"{kind}.gguf"
        if not path.exists():
            quantize_folder(*herd("four"), path, kind)
        return path

    return make


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 35)[None]).logits


def without(path, output, name):
    """Write a GGUF again, without one tensor."""
    source = read_gguf(path)
    kept = [tensor for tensor in source.tensors.values() if tensor.name != name]
    with output.open("wb") as file:
        file.write(header(source.metadata, kept))
        for tensor in kept:
            data = source.read_rows(tensor, 0, tensor.rows).tobytes()
            file.write(data + bytes(-len(data) % 32))


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K_M", "Q2_K"])
@pytest.mark.parametrize("together", [1, 2**10, 2**20])
def test_rows_that_are_dequantized_together_are_those_read_one_by_one(
    herd, quantized, monkeypatch, kind, together
):
    folder, _ = herd("four")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(gguf_restored, "TOGETHER", together)
    tensors = gguf_restored.RestoredTensors(quantized(kind), config, "four")
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.v_proj.weight"):
        count = tensors.shape(name)[0]
        assert torch.equal(tensors[name], tensors.rows(name, range(count)))


@pytest.mark.parametrize("name", ["narrow", "odd", "four"])
def test_full_width_equals_the_source(herd, name):
    folder, full = herd(name)
    loaded = load_dequantized(full, folder)
    source = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(loaded) is type(source)
    assert not loaded.training
    theirs = dict(source.named_parameters())
    for key, parameter in loaded.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, theirs.pop(key)), key
    assert not theirs
    assert torch.equal(logits(loaded), logits(source))


def test_an_output_matrix_beside_a_tied_embedding_is_used(herd, tmp_path):
    folder, full = herd("odd")
    tied = tmp_path / "tied"
    shutil.copytree(folder, tied)
    config = json.loads((tied / "config.json").read_text(encoding="utf-8")) | {"tie_word_embeddings": True}
    (tied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert torch.equal(logits(load_dequantized(full, tied)), logits(load_dequantized(full, folder)))


@pytest.mark.parametrize("name", ["narrow", pytest.param("eight", marks=pytest.mark.slow)])
def test_wider_types_lose_less(herd, tmp_path, name):
    folder, full = herd(name)
    source = logits(load_dequantized(full, folder))
    losses = []
    for method in ("Q8_0", "Q3_K_M"):
        quantize_folder(folder, full, tmp_path / "made.gguf", method, threads=2)
        losses.append((logits(load_dequantized(tmp_path / "made.gguf", folder)) - source).abs().mean().item())
    assert 0 < losses[0] < losses[1]


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("four", "blk.1.ffn_up_exps.weight"),
        ("four", "blk.0.ffn_gate_inp.weight"),
        ("odd", "blk.1.attn_q.weight"),
        ("odd", "output.weight"),
    ],
)
def test_a_missing_tensor_is_never_made_up(herd, tmp_path, name, tensor):
    folder, full = herd(name)
    without(full, tmp_path / "lacking.gguf", tensor)
    with pytest.raises(CheckpointError, match=f"tensors are missing: {tensor}"):
        load_dequantized(tmp_path / "lacking.gguf", folder)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("odd", "blk.1.attn_v.weight", r"missing keys: model\.layers\.1\.self_attn\.v_proj\.weight"),
        ("four", "blk.1.ffn_up_exps.weight", "does not fit the model"),
    ],
)
def test_transformers_is_asked_what_it_lacks(herd, tmp_path, monkeypatch, name, tensor, message):
    folder, full = herd(name)
    without(full, tmp_path / "lacking.gguf", tensor)
    known = gguf_restored.layout
    # as if our own table did not know the tensor
    monkeypatch.setattr(
        gguf_restored, "layout", lambda *given: {k: v for k, v in known(*given).items() if k != tensor}
    )
    monkeypatch.setattr(dequantize, "_check_count", lambda *_: None)
    with pytest.raises(CheckpointError, match=message):
        load_dequantized(tmp_path / "lacking.gguf", folder)


def test_parameters_are_counted(herd, tmp_path):
    folder, full = herd("four")
    model = load_dequantized(full, folder)
    without(full, tmp_path / "lacking.gguf", "blk.1.ffn_up_exps.weight")
    with pytest.raises(CheckpointError, match=r"contains \d+ parameters, the model has \d+"):
        dequantize._check_count(model, read_gguf(tmp_path / "lacking.gguf"), 0)


def test_a_file_of_another_model_is_refused(herd, tmp_path):
    folder, full = herd("odd")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    for change in ({"num_hidden_layers": 1}, {"intermediate_size": 64}, {"num_hidden_layers": 3}):
        (other / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
        with pytest.raises(CheckpointError):
            load_dequantized(full, other)
