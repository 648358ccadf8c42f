"""GGUF files: made, compared with llama.cpp's own, derived again, and loaded back."""

import ctypes
import errno
import hashlib
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import gguf
import libgguf
import numpy as np
import pytest

from herdbook.errors import CheckpointError, StepError, VerificationError
from herdbook.files import atomic_writer
from herdbook.quantization.methods import METHODS
from herdbook.quantization.types import TYPES
from herdbook.steps.card.counts import context_bytes
from herdbook.steps.quantize.derive import derive, require_equal
from herdbook.steps.quantize.encode import encode
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.steps.quantize.quantize import quantize_file
from herdbook.weights.gguf_file import TensorInfo, header, read_gguf
from support.quantized import quantize_folder, types_of

DATA = Path(__file__).parents[1] / "data" / "quantize"
PEER = json.loads((DATA / "peer.json").read_text(encoding="utf-8"))
X86 = platform.machine() == PEER["about"]["machine"]

_spec = importlib.util.spec_from_file_location("small_models", DATA / "small_models.py")
small_models = importlib.util.module_from_spec(_spec)
sys.modules["small_models"] = small_models  # its dataclass looks itself up
_spec.loader.exec_module(small_models)
MODELS = small_models.MODELS


@pytest.fixture(scope="session")
def herd(tmp_path_factory):
    """Give a small model by name: its Hugging Face folder and its full-width GGUF, each made once."""
    root = tmp_path_factory.mktemp("herd")

    def make(name):
        folder, full = root / name, root / f"{name}.gguf"
        if not full.exists():
            small_models.write_folder(MODELS[name], folder)
            small_models.write_gguf(MODELS[name], full)
        return folder, full

    return make


def quantize(models, output, method, **options):
    """Quantize a small model, given as its folder and its full-width GGUF, of which only the header is read."""
    folder, full = models
    return quantize_folder(folder, full, output, method, **options)


def flip(path, at):
    """Damage one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def rewrite(path, output, *, leave_out=(), rename=(), twice=()):
    """Write a GGUF again, without some tensors, under other names, or with tensors twice, under two names."""
    source = read_gguf(path)
    kept = [tensor for name, tensor in source.tensors.items() if name not in leave_out]
    renamed = dict(rename)
    infos = [
        type(tensor)(renamed.get(tensor.name, tensor.name), tensor.shape, tensor.type) for tensor in kept
    ]
    for name, other in twice:
        kept.append(source.tensors[name])
        infos.append(type(kept[-1])(other, kept[-1].shape, kept[-1].type))
    with output.open("wb") as file:
        file.write(header(source.metadata, infos))
        for tensor in kept:
            data = source.read_rows(tensor, 0, tensor.rows).tobytes()
            file.write(data + bytes(-len(data) % 32))


# --- the same files as llama.cpp


# One dense model, and one method of one mixture, are fast tests; the others differ in shapes and numbers of experts.
FAST = {"narrow": MODELS["narrow"].methods, "four": ("Q4_K_M",)}
SLOW = {
    name: tuple(one for one in model.methods if one not in FAST.get(name, ()))
    for name, model in MODELS.items()
}


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        *(pytest.param(name, methods, id=name) for name, methods in FAST.items()),
        *(
            pytest.param(name, methods, id=f"{name}, the others", marks=pytest.mark.slow)
            for name, methods in SLOW.items()
            if methods
        ),
    ],
)
def test_files_are_those_of_llama_cpp(herd, tmp_path, name, methods):
    for method in methods:
        record = quantize(herd(name), tmp_path / "made.gguf", method, threads=2)
        peer = PEER[f"{name} {method}"]
        types = {entry["name"]: entry["type"] for entry in record["tensors"]}
        assert types == {tensor: kind for tensor, (kind, _) in peer["tensors"].items()}, method
        assert list(types) == list(peer["tensors"]), method  # order in the file
        if X86:
            digests = {entry["name"]: entry["sha256"] for entry in record["tensors"]}
            assert digests == {tensor: digest for tensor, (_, digest) in peer["tensors"].items()}, method
            assert record["file"]["sha256"] == peer["sha256"], method


def test_the_peer_covers_every_method():
    made = {key.split()[1] for key in PEER if key != "about"}
    assert made == set(small_models.METHODS)


def test_methods_carry_llama_cpps_numbers():
    for method in METHODS.values():
        prefix = "ALL_" if method.name == "F32" else "MOSTLY_"
        assert gguf.LlamaFileType[f"{prefix}{method.rules}"] == method.file_type
        assert method.use.endswith(".")
        assert method.base in TYPES
        assert method.ends is None or method.ends in TYPES


def test_another_reader_understands_the_file(herd, tmp_path):
    record = quantize(herd("narrow"), tmp_path / "made.gguf", "Q4_K_M")
    reader = gguf.GGUFReader(tmp_path / "made.gguf")
    assert reader.get_field("general.file_type").contents() == gguf.LlamaFileType.MOSTLY_Q4_K_M
    assert reader.get_field("general.quantization_version").contents() == gguf.GGML_QUANT_VERSION
    assert reader.get_field("tokenizer.ggml.tokens").contents()[:2] == ["<0>", "<1>"]
    digests = {tensor.name: hashlib.sha256(tensor.data.tobytes()).hexdigest() for tensor in reader.tensors}
    assert digests == {entry["name"]: entry["sha256"] for entry in record["tensors"]}
    whole = hashlib.sha256((tmp_path / "made.gguf").read_bytes()).hexdigest()
    size = (tmp_path / "made.gguf").stat().st_size
    assert record["file"] == {"size_bytes": size, "sha256": whole}


def test_threads_and_pieces_do_not_change_a_byte(herd, tmp_path, monkeypatch):
    one = quantize(herd("narrow"), tmp_path / "one.gguf", "Q4_K_M", threads=1)
    monkeypatch.setattr("herdbook.steps.quantize.encode.BLOCK_BYTES", 4 * 192 * 50)
    three = quantize(herd("narrow"), tmp_path / "three.gguf", "Q4_K_M", threads=3)
    assert one == three
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "three.gguf").read_bytes()


# --- single types against independent quantizers


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(5)
    scale = np.exp(generator.standard_normal((67, 1)) * 3)
    rows = (generator.standard_normal((67, 512)) * scale).astype(np.float32)
    rows[3] = 0
    rows[4, 7] = 1000
    return rows


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0", "Q5_1", "Q4_0", "BF16", "F16", "F32"])
def test_encoding_equals_gguf_pys(rows, kind):
    kind = gguf.GGMLQuantizationType[kind]
    assert np.array_equal(encode(rows, kind, None, "rows"), gguf.quants.quantize(rows, kind).view(np.uint8))


@pytest.mark.parametrize("kind", ["Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0"])
@pytest.mark.skipif(not X86, reason="quantizers agree bit for bit on x86-64 only")
def test_encoding_equals_another_build_of_ggml(rows, kind):
    import libggml

    kind = gguf.GGMLQuantizationType[kind]
    (library,) = sorted(Path(libggml.__file__).parent.rglob("libggml-base.so"))
    quantizer = ctypes.CDLL(str(library)).ggml_quantize_chunk
    quantizer.restype = ctypes.c_size_t
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    quantizer.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    ours = encode(rows, kind, None, "rows")
    theirs = np.empty_like(ours)
    size = quantizer(kind, rows.ctypes.data, theirs.ctypes.data, 0, len(rows), rows.shape[1], None)
    assert size == ours.nbytes
    assert np.array_equal(ours, theirs)


def test_an_importance_matrix_is_never_invented(rows):
    with pytest.raises(StepError, match="IQ2_XXS needs an importance matrix"):
        encode(rows, gguf.GGMLQuantizationType.IQ2_XXS, None, "rows")


def test_weights_that_are_no_numbers_are_refused(rows):
    broken = rows.copy()
    broken[1, 1] = np.inf
    with pytest.raises(CheckpointError, match=r"blk\.0: has weights that are infinite"):
        encode(broken, gguf.GGMLQuantizationType.Q8_0, None, "blk.0")


def test_tables_of_a_type_are_filled_before_threads_encode(monkeypatch):
    """libgguf 0.2.2 fills them at the first row, without a lock: two threads that begin together crash it."""
    caller, alone = threading.get_ident(), threading.Event()
    real = libgguf.quantize_rows

    def watched(rows, kind, weights=None):
        if threading.get_ident() == caller:
            made = real(rows, kind, weights)
            alone.set()
            return made
        assert alone.is_set()
        return real(rows, kind, weights)

    monkeypatch.setattr(libgguf, "quantize_rows", watched)
    monkeypatch.setattr("herdbook.steps.quantize.encode._PREPARED", set())
    rows, weights = np.ones((96, 256), np.float32), np.ones(256, np.float32)
    with ThreadPoolExecutor(2) as pool:
        made = encode(rows, gguf.GGMLQuantizationType.IQ3_XXS, pool, "rows", weights)
    assert alone.is_set()
    assert np.array_equal(made, encode(rows, gguf.GGMLQuantizationType.IQ3_XXS, None, "rows", weights))


# --- refusals


def test_types_of_another_model_are_refused(herd, tmp_path):
    folder, full = herd("odd")
    types = types_of(folder, "Q8_0")
    del types["blk.1.ffn_up.weight"]
    with pytest.raises(CheckpointError, match=r"not the planned ones, such as blk\.1\.ffn_up\.weight"):
        quantize_file(full, folder, tmp_path / "made.gguf", types, 7)
    assert not (tmp_path / "made.gguf").exists()


def test_a_negative_zero_stays_one(herd, tmp_path):
    folder, full = herd("odd")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    shard, span = read_folder(other).tensors["model.norm.weight"]
    data = bytearray(shard.read_bytes())
    data[span.start : span.start + 4] = np.float32(-0.0).tobytes()
    shard.write_bytes(data)
    quantize((other, full), tmp_path / "made.gguf", "Q8_0")
    file = read_gguf(tmp_path / "made.gguf")
    norm = file.tensors["output_norm.weight"]
    assert file.read_rows(norm, 0, 1)[0, :4].tobytes() == np.float32(-0.0).tobytes()


def test_weights_that_are_no_numbers_leave_no_file(herd, tmp_path):
    folder, full = herd("odd")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    shard, span = read_folder(broken).tensors["model.layers.1.mlp.up_proj.weight"]
    data = bytearray(shard.read_bytes())
    data[span.start : span.start + 4] = np.float32(np.nan).tobytes()
    shard.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight: has weights that are infinite"
    ):
        quantize((broken, full), tmp_path / "made.gguf", "Q8_0")
    assert not (tmp_path / "made.gguf").exists()


def test_a_disk_that_is_full_at_the_end_leaves_no_file(herd, tmp_path, monkeypatch):
    folder, full = herd("odd")
    room = 0.9 * quantize((folder, full), tmp_path / "whole.gguf", "Q8_0")["file"]["size_bytes"]

    class Small:
        """A file on a disk with less room."""

        def __init__(self, file):
            self._file = file

        def write(self, data):
            if self._file.tell() + len(data) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._file.write(data)

    @contextmanager
    def writer(path):
        with atomic_writer(path) as file:
            yield Small(file)

    monkeypatch.setattr("herdbook.steps.quantize.quantize.atomic_writer", writer)
    for threads in (1, 2):
        with pytest.raises(OSError, match="No space left"):
            quantize((folder, full), tmp_path / "made.gguf", "Q8_0", threads=threads)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.gguf"]


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.001, 0.05, 0.5, 0.999])
def test_a_truncated_file_is_refused_at_any_length(herd, tmp_path, share):
    data = herd("odd")[1].read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"cut\.gguf: is (cut off|not a GGUF)"):
        read_gguf(cut)


def test_bytes_that_belong_to_no_tensor_are_refused(herd, tmp_path):
    longer = tmp_path / "longer.gguf"
    longer.write_bytes(herd("odd")[1].read_bytes() + b"more")
    with pytest.raises(CheckpointError, match="has 4 bytes after its last tensor"):
        read_gguf(longer)


def test_slow_extents_of_one_are_left_out(tmp_path):
    path = tmp_path / "one.gguf"
    path.write_bytes(
        header({}, [TensorInfo("a.weight", (1, 4, 32), gguf.GGMLQuantizationType.F32)]) + bytes(512)
    )
    assert read_gguf(path).tensors["a.weight"].shape == (4, 32)


def test_what_is_no_gguf_is_refused(tmp_path):
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK" * 100)
    with pytest.raises(CheckpointError, match="is not a GGUF"):
        read_gguf(other)
    with pytest.raises(CheckpointError, match="is missing"):
        read_gguf(tmp_path / "none.gguf")


# --- derivation


@pytest.mark.parametrize("name", ["narrow", "odd", pytest.param("eight", marks=pytest.mark.slow)])
def test_files_derive_from_their_safetensors(herd, tmp_path, name):
    folder, full = herd(name)
    made = quantize(herd(name), tmp_path / "made.gguf", "Q4_K_M", threads=2)
    for file in (full, tmp_path / "made.gguf"):
        derived = derive(file, folder, threads=2)
        require_equal(derived, "file")
        record = derived.record
        assert json.loads(json.dumps(record)) == record
        assert record["file"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        reader = gguf.GGUFReader(file)
        assert record["parameters"] == sum(tensor.n_elements for tensor in reader.tensors)
        bits = 8 * sum(tensor.n_bytes for tensor in reader.tensors)
        assert record["bits_per_weight"] == round(bits / record["parameters"], 3)
        assert sum(record["types"].values()) == record["parameters"]
        digests = {
            tensor.name: hashlib.sha256(tensor.data.tobytes()).hexdigest() for tensor in reader.tensors
        }
        assert {entry["name"]: entry["sha256"] for entry in record["tensors"]} == digests
    assert record == made  # the second derivation says what the first pass did


def test_derivation_says_what_a_tensor_is_made_of(herd):
    folder, full = herd("four")
    entries = {entry["name"]: entry for entry in derive(full, folder).record["tensors"]}
    experts = [f"model.layers.2.block_sparse_moe.experts.{number}.w3.weight" for number in range(4)]
    assert entries["blk.2.ffn_up_exps.weight"]["sources"] == experts
    assert entries["blk.2.ffn_gate_inp.weight"]["type"] == "F32"
    assert len(entries) == 2 + 8 * 10


def test_one_flipped_bit_is_found_and_named(herd, tmp_path):
    folder, full = herd("eight")
    made, damaged = tmp_path / "made.gguf", tmp_path / "damaged.gguf"
    quantize((folder, full), made, "Q8_0", threads=2)
    tensors = read_gguf(made).tensors
    for name in ("blk.1.ffn_down_exps.weight", "token_embd.weight", "blk.0.attn_norm.weight"):
        shutil.copy(made, damaged)
        flip(damaged, tensors[name].start + tensors[name].size_bytes - 1)
        derived = derive(damaged, folder, threads=2)
        assert list(derived.problems) == [name]
        with pytest.raises(
            VerificationError, match=rf"tensor {name} .*: 1 of {tensors[name].size_bytes} bytes differ"
        ):
            require_equal(derived, "made.gguf")


def test_swapped_experts_are_found(herd, tmp_path):
    folder, full = herd("four")
    swapped = tmp_path / "swapped"
    shutil.copytree(folder, swapped)
    for shard in ("zebra.safetensors", "aardvark.safetensors"):
        data = (swapped / shard).read_bytes()
        data = data.replace(
            b"layers.1.block_sparse_moe.experts.0.w2", b"layers.1.block_sparse_moe.experts.9.w2"
        )
        data = data.replace(
            b"layers.1.block_sparse_moe.experts.2.w2", b"layers.1.block_sparse_moe.experts.0.w2"
        )
        data = data.replace(
            b"layers.1.block_sparse_moe.experts.9.w2", b"layers.1.block_sparse_moe.experts.2.w2"
        )
        (swapped / shard).write_bytes(data)
    index = {}
    for shard in ("zebra.safetensors", "aardvark.safetensors"):
        data = (swapped / shard).read_bytes()
        names = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        index |= {name: shard for name in names if name != "__metadata__"}
    (swapped / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), encoding="utf-8")
    assert list(derive(full, swapped).problems) == ["blk.1.ffn_down_exps.weight"]


def test_missing_and_foreign_tensors_are_refused(herd, tmp_path):
    folder, full = herd("odd")
    lacking, foreign = tmp_path / "lacking.gguf", tmp_path / "foreign.gguf"
    rewrite(full, lacking, leave_out=["blk.1.ffn_up.weight"])
    with pytest.raises(CheckpointError, match=r"lacking\.gguf: tensors are missing: blk\.1\.ffn_up\.weight"):
        derive(lacking, folder)
    rewrite(full, foreign, rename=[("blk.1.ffn_up.weight", "blk.1.ffn_sub.weight")])
    with pytest.raises(CheckpointError, match="missing"):
        derive(foreign, folder)
    # a file whose model has one matrix more than its safetensors
    tied = tmp_path / "tied"
    shutil.copytree(folder, tied)
    config = json.loads((tied / "config.json").read_text(encoding="utf-8")) | {"tie_word_embeddings": True}
    (tied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rewrite(full, lacking, leave_out=["output.weight"])
    with pytest.raises(CheckpointError, match=r"tensors are missing: output\.weight"):
        derive(lacking, tied)


def test_tensors_that_nothing_accounts_for_are_refused(herd, tmp_path):
    folder, full = herd("odd")
    shorter = tmp_path / "shorter"
    shutil.copytree(folder, shorter)
    config = json.loads((shorter / "config.json").read_text(encoding="utf-8")) | {"num_hidden_layers": 1}
    (shorter / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"has tensors that a GGUF cannot contain: model\.layers\.1\.input_layernorm"
    ):
        derive(full, shorter)
    more = tmp_path / "more.gguf"
    rewrite(full, more, twice=[("blk.1.ffn_up.weight", "blk.2.ffn_up.weight")])
    with pytest.raises(
        CheckpointError, match=r"more\.gguf: has tensors that the model does not have: blk\.2\.ffn_up"
    ):
        derive(more, folder)


def test_a_shape_that_does_not_fit_is_named(herd, tmp_path):
    folder, full = herd("odd")
    crossed = tmp_path / "crossed.gguf"
    up, down = "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"
    rewrite(full, crossed, rename=[(up, down), (down, up)])
    problems = derive(crossed, folder).problems
    assert sorted(problems) == [down, up]
    assert any("shape is [80, 48], [48, 80] expected" in problem for problem in problems.values())


def test_a_model_without_a_tensor_is_refused(herd, tmp_path):
    folder, full = herd("odd")
    lacking = tmp_path / "lacking"
    shutil.copytree(folder, lacking)
    index = json.loads((lacking / "model.safetensors.index.json").read_text(encoding="utf-8"))
    index["weight_map"]["model.layers.7.mlp.up_proj.weight"] = "zebra.safetensors"
    (lacking / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"lack tensors that the index lists: model\.layers\.7"):
        derive(full, lacking)
    (lacking / "zebra.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"zebra\.safetensors: is missing"):
        derive(full, lacking)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["MixtralForCausalLM"], "num_local_experts": 1}, "a mixture of 1 experts"),
        ({"architectures": ["BertModel"]}, "architecture BertModel is not supported"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_type llama3"),
        ({"rope_parameters": {"type": "dynamic", "factor": 2.0}}, "rope_type dynamic"),
        ({"hidden_act": "gelu"}, "computes silu in place of the activation gelu"),
    ],
)
def test_models_that_cannot_be_derived_are_refused(herd, tmp_path, change, message):
    folder, full = herd("odd")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text(encoding="utf-8")) | change
    (other / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(StepError, match=message):
        derive(full, other)


# --- what a card says


def test_memory_is_the_file_and_its_context():
    config = {
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
    }
    # Mistral 7B's context takes 128 KiB a token in float16
    assert context_bytes(config, 4096) == 4096 * 128 * 1024
    assert context_bytes({"num_hidden_layers": 32, "hidden_size": 64}) == 0  # of a Mamba: no attention


def test_importing_the_package_loads_no_heavy_library():
    script = "import sys, herdbook.steps.quantize, herdbook.quantization.mixture; print({'torch', 'gguf', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
