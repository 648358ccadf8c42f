"""Importance matrices: computed, against transformers; read and written, against other readers; used, against llama.cpp."""

import hashlib
import importlib.util
import json
import platform
import struct
import sys
from pathlib import Path

import libgguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from herdbook.errors import CheckpointError, StepError
from herdbook.plan.imatrix import READ
from herdbook.steps.imatrix.fit import filled, fitted
from herdbook.steps.imatrix.measure import measure
from herdbook.steps.imatrix.step import described
from herdbook.steps.quantize.derive import derive, require_equal
from herdbook.verify.rebuild.imatrix import differing
from herdbook.weights.imatrix import ImportanceMatrix, Inputs, read_imatrix
from support import tiny
from support.gguf_families import families, plain_deepseek
from support.quantized import quantize_folder

DATA = Path(__file__).parents[1] / "data" / "quantize"
PEER = json.loads((DATA / "imatrix.json").read_text(encoding="utf-8"))
X86 = platform.machine() == "x86_64"
SEQUENCES = [[1, *range(3, 40)], [1, 9, 9, 4], [5, 61, 30, 7, 8, 8]]

_spec = importlib.util.spec_from_file_location("small_models", DATA / "small_models.py")
small_models = importlib.util.module_from_spec(_spec)
sys.modules["small_models"] = small_models  # its dataclass looks itself up
_spec.loader.exec_module(small_models)


def write(matrix, path):
    path.write_bytes(b"".join(matrix.pieces()))
    return path


def some(sums, counts, name="blk.0.ffn_down_exps.weight"):
    inputs = Inputs(np.asarray(sums, np.float32), np.asarray(counts, np.float32))
    return ImportanceMatrix({name: inputs}, ("words",), 3, 16)


def mixture(folder, kind, model_type, **changes):
    """Write a mixture of random weights, as transformers saves it."""
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        model_type, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=64, num_experts_per_tok=2, **changes
    )  # fmt: skip
    model = getattr(transformers, kind)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


def plainly_watched(folder):
    """Return the sums and counts of a mixture that transformers does not have."""
    sums, counts = {}, {}

    def see(name, rows):
        if ".layers." in name and not name.endswith(".mlp.gate.weight"):
            sums[name] = sums.get(name, 0) + (rows**2).sum(0).numpy()
            counts[name] = counts.get(name, 0) + len(rows)

    config, tensors = (
        json.loads((folder / "config.json").read_text()),
        load_file(folder / "model.safetensors"),
    )
    for ids in SEQUENCES:
        plain_deepseek(config, tensors, ids, see)
    return sums, counts


def watched(folder):
    """Return the sums and counts of transformers' own model: of linear modules by hooks, of experts written out."""
    if "deepseek" in (folder / "config.json").read_text():
        return plainly_watched(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    sums, counts = {}, {}

    def add(name, rows):
        if len(rows):
            sums[name] = sums.get(name, 0) + (rows.double() ** 2).sum(0).numpy()
            counts[name] = counts.get(name, 0) + len(rows)

    def hooked(name):
        return lambda _, args: add(name, args[0].reshape(-1, args[0].shape[-1]))

    def experts(name, module):
        block, names = name.rpartition(".experts")[0], ("gate_proj", "up_proj", "down_proj")
        if "Mixtral" in type(model).__name__:
            block, names = block.replace(".mlp", ".block_sparse_moe"), ("w1", "w3", "w2")

        def hook(_, args):
            hidden, chosen = args[0], args[1]
            for expert in range(module.gate_up_proj.shape[0]):
                rows = hidden[(chosen == expert).any(dim=-1)]
                gate, up = (rows @ module.gate_up_proj[expert].T).chunk(2, dim=-1)
                within = torch.nn.functional.silu(gate) * up
                for part, seen in zip(names, (rows, rows, within), strict=True):
                    add(f"{block}.experts.{expert}.{part}.weight", seen)

        return hook

    for name, module in model.model.named_modules():
        if (
            isinstance(module, torch.nn.Linear)
            and "layers" in name
            and not name.endswith("shared_expert_gate")
        ):
            module.register_forward_pre_hook(hooked(f"model.{name}.weight"))
        elif name.endswith(".experts"):
            module.register_forward_pre_hook(experts(f"model.{name}", module))
    with torch.no_grad():
        for ids in SEQUENCES:
            model(torch.tensor([ids]))
    return sums, counts


def model_of(kind, folder):
    if kind == "MixtralForCausalLM":
        return mixture(folder, kind, "mixtral", num_local_experts=4)
    if kind in {"Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"}:
        own = {
            "num_experts": 4,
            "norm_topk_prob": kind.startswith("Qwen3"),
            "shared_expert_intermediate_size": 24,
        }
        return mixture(folder, kind, "qwen2_moe" if kind.startswith("Qwen2") else "qwen3_moe", **own)
    if kind == "DeepseekForCausalLM":
        families.write_folder("deepseek-shared", folder)
        return folder
    extra = {"head_dim": 8} if kind.startswith("Qwen3") else {}
    return tiny.write_model(folder, model_type=kind.removesuffix("ForCausalLM").lower(), **extra)


@pytest.mark.parametrize("kind", READ)
def test_the_inputs_are_those_of_transformers(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("herdbook.steps.imatrix.measure.ROWS", 7)  # an expert's inputs come in pieces
    folder = model_of(kind, tmp_path / "m")
    ours = measure(folder, SEQUENCES, threads=2)
    sums, counts = watched(folder)
    assert ours.counts == counts
    assert ours.squares.keys() == sums.keys()
    for name, expected in sums.items():
        np.testing.assert_allclose(ours.squares[name], expected, rtol=2e-4, atol=1e-9, err_msg=name)
    again = measure(folder, SEQUENCES, threads=1)
    assert all(np.array_equal(again.squares[name], ours.squares[name]) for name in sums)


def test_other_readers_find_the_same_weights(tmp_path):
    matrix = some([[2, 4], [0, 0], [9, 3]], [2, 0, 3])
    path = write(matrix, tmp_path / "m.gguf")
    theirs = libgguf.load_imatrix(path)["blk.0.ffn_down_exps.weight"]
    assert theirs.tolist() == [1, 2, 1, 1, 3, 1]
    ours = read_imatrix(path)
    found = [ours.inputs["blk.0.ffn_down_exps.weight"].weights(expert).tolist() for expert in range(3)]
    assert found == [[1, 2], [1, 1], [3, 1]]
    assert (ours.chunks, ours.chunk_tokens, ours.counted) == (3, 16, True)


def dat(path, name="blk.0.ffn_down_exps.weight", values=(2, 4, 9, 3), calls=2):
    encoded = name.encode()
    head = struct.pack("<ii", 1, len(encoded)) + encoded + struct.pack("<ii", calls, len(values))
    path.write_bytes(head + struct.pack(f"<{len(values)}f", *values) + struct.pack("<ii", calls, 0))
    return path


def test_the_older_form_is_read(tmp_path):
    shapes = {"blk.0.ffn_down_exps.weight": (2, 8, 2)}
    matrix = fitted(read_imatrix(dat(tmp_path / "m.dat")), shapes, "m.dat")
    one = matrix.inputs["blk.0.ffn_down_exps.weight"]
    assert [one.weights(expert).tolist() for expert in range(2)] == [[1, 2], [4.5, 1.5]]
    assert not matrix.counted


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"blk.0.attn_q.weight": (8, 2)}, "it lacks blk.0.attn_q.weight"),
        ({"blk.0.ffn_down_exps.weight": (3, 8, 4)}, "has 3 x 2 columns there .* and 3 x 4 here"),
        ({"blk.0.ffn_down_exps.weight": (2, 8, 2)}, "has 3 x 2 columns there .* and 2 x 2 here"),
    ],
)
def test_the_matrix_of_another_model_is_refused(shapes, message):
    with pytest.raises(
        CheckpointError, match=f"m.gguf: is the importance matrix of another model: .*{message}"
    ):
        fitted(some([[1, 2]] * 3, [1, 1, 1]), shapes, "m.gguf")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1])
def test_what_is_not_a_number_is_refused(tmp_path, value):
    path = write(some([[1, value]], [1]), tmp_path / "m.gguf")
    with pytest.raises(
        CheckpointError, match=r"blk.0.ffn_down_exps.weight: has values that are infinite, neg"
    ):
        read_imatrix(path)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"\0\0\0\0", b"\xff" * 40, b"words and words"])
def test_what_is_no_matrix_is_refused(tmp_path, content):
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_imatrix(path)


def test_experts_below_the_floor_fail_or_take_the_mean():
    matrix = some([[100, 200], [4, 8], [0, 0]], [50, 2, 0])
    with pytest.raises(
        StepError, match=r"fewer than 8 tokens reached .*expert 2: 2; .*expert 3: 0\. Give more"
    ):
        filled(matrix, 8, fill=False)
    made, replaced = filled(matrix, 8, fill=True)
    assert replaced == {"blk.0.ffn_down_exps.weight": [2, 3]}
    one = made.inputs["blk.0.ffn_down_exps.weight"]
    assert [one.weights(expert).tolist() for expert in range(3)] == [[2, 4], [2, 4], [2, 4]]
    assert one.counts.tolist() == [50, 8, 8]
    with pytest.raises(StepError, match="fewer than 8 tokens"):  # no token at all
        filled(some([[0, 0]], [0]), 8, fill=True)


def test_the_tokens_of_each_expert_are_printed():
    assert described({"a": [3, 4000], "b": [1, 2000]}) == [
        "imatrix: expert 1: 4 tokens over all layers, 1 in layer 1, where they are fewest",
        "imatrix: expert 2: 6,000 tokens over all layers, 2,000 in layer 1, where they are fewest",
    ]


@pytest.mark.skipif(not X86, reason="ggml rounds otherwise on other processors")
@pytest.mark.parametrize(
    "key",
    [
        # ggml searches for seconds for the grid points of some types
        pytest.param(
            key,
            marks=pytest.mark.slow if key in {"two IQ1_S", "two IQ2_M", "two IQ2_XXS", "two IQ3_XXS"} else (),
        )
        for key in [*(key for key in PEER if key.startswith("two")), "narrow IQ4_XS", "narrow Q2_K_S"]
    ],
)
def test_files_equal_those_of_llama_cpp(tmp_path, key):
    name, method = key.split()
    small = small_models.MIXTURES[name]
    folder, full, output = tmp_path / "m", tmp_path / "full.gguf", tmp_path / "q.gguf"
    small_models.write_folder(small, folder)
    small_models.write_gguf(small, full)
    inputs = {tensor: Inputs(*pair) for tensor, pair in small_models.matrix_inputs(full).items()}
    matrix = ImportanceMatrix(inputs, ("words",), 7, 16)
    entries = {"file": "matrix.gguf", "dataset": "words", "entries_count": len(inputs), "chunks_count": 7}
    entries = {f"quantize.imatrix.{key}": value for key, value in entries.items()}
    quantize_folder(folder, full, output, method, matrix=matrix, entries=entries)
    assert hashlib.sha256(output.read_bytes()).hexdigest() == PEER[key]
    require_equal(derive(output, folder, matrix=matrix), output.name)
    if method == "IQ2_XXS":
        other = some([[1, 2]], [1], name="another")
        with pytest.raises(StepError, match="needs an importance matrix, and there is none for this tensor"):
            derive(output, folder, matrix=other)


def test_a_matrix_is_compared_within_a_tolerance():
    ours = some([[100.0, 200], [40, 80]], [500, 200])
    assert not list(differing(ours, some([[100.01, 200.01], [40, 80]], [500, 200])))
    assert not list(differing(ours, some([[100.2, 200.4], [39.8, 79.6]], [501, 199])))
    for other, detail in (
        (some([[100, 230], [40, 80]], [500, 200]), "of its norm"),
        (some([[100, 200], [40, 80]], [500, 150]), "counts 150 inputs of expert 2; 200 came out here"),
        (some([[100, 200]], [500]), "another shape"),
    ):
        ((_, found),) = differing(ours, other)
        assert detail in found
