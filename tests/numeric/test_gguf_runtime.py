"""Each family that becomes GGUF, read by llama.cpp's runtime: its logits are those of transformers, or of plain formulas."""

import ctypes
import json

import pytest

from herdbook.errors import StepError
from herdbook.quantization.methods import METHODS
from herdbook.steps.evaluate.llama_runtime import VERSION
from herdbook.steps.quantize.convert import convert_folder
from herdbook.tools.converter import CONVERTER
from support import buttercup, llama_cpp
from support.gguf_families import LLAMA3, LONG, RUNS, TOKENS, computed, distance, families, logits, write_file
from support.quantized import quantize_folder

NEAR = 1e-5
NEAR_GELU = 2e-3  # which llama.cpp looks up in a table of float16
OTHER = 1e-2  # by which a file that computes something else differs, at least


@pytest.fixture
def runs(monkeypatch):
    llama_cpp.provide(monkeypatch)


@pytest.fixture
def quantizes():
    if not llama_cpp.is_installed():
        pytest.skip(f"needs pip install llama-cpp-python=={VERSION}")


@pytest.mark.slow
@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(("name", "length", "changes"), RUNS)
def test_logits_are_those_of_the_model(tmp_path, name, length, changes):
    folder, path = write_file(tmp_path, name, **changes)
    near = NEAR_GELU if name.startswith("gemma") else NEAR
    assert distance(computed(path, TOKENS[:length]), logits(folder, TOKENS[:length])) < near


@pytest.mark.slow
@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gemma3-scaled", {"rope_scaling": None}),
        ("deepseek-shared", {"rope_scaling": LLAMA3}),
        ("granite", {"attention_multiplier": 8**-0.5}),
        ("stablelm-normed", {"layer_norm_eps": 1e-1}),
    ],
)
def test_other_models_have_other_logits(tmp_path, name, change):
    """The controls: what a file is compared by would show a setting that it lacks."""
    _, path = write_file(tmp_path / "made", name)
    other, _ = write_file(tmp_path / "other", name, **change)
    assert distance(computed(path, TOKENS[:40]), logits(other, TOKENS[:40])) > OTHER


@pytest.mark.slow
@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("name", LONG)
def test_the_context_chooses_the_factors_of_longrope(tmp_path, name):
    """What the plan warns of: of a short text in a long context, llama.cpp computes with the long factors."""
    folder, path = write_file(tmp_path / "made", name)
    tokens = TOKENS[:200]
    found = computed(path, tokens, 512)
    assert distance(found, logits(folder, tokens)) > OTHER
    scaling = families.config(name)["rope_scaling"]
    other, _ = write_file(
        tmp_path / "other", name, rope_scaling=scaling | {"short_factor": scaling["long_factor"]}
    )
    assert distance(found, logits(other, tokens)) < NEAR


def quantize(full, output, method):
    """Let llama.cpp's quantizer make a file."""
    from llama_cpp import llama_cpp as library

    settings = library.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = METHODS[method].file_type, 1
    assert not library.llama_model_quantize(str(full).encode(), str(output).encode(), ctypes.byref(settings))


@pytest.mark.slow
@pytest.mark.usefixtures("quantizes")
@pytest.mark.parametrize("name", ["deepseek", "deepseek-shared", "stablelm-normed", "command-r", "olmo2"])
def test_types_are_those_of_the_quantizer(tmp_path, name):
    folder, full = write_file(tmp_path, name, "BF16")
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    quantize(full, theirs, "Q4_K_M")
    quantize_folder(folder, tmp_path / "head.gguf", ours, "Q4_K_M")
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("quantizes")
@pytest.mark.parametrize("name", ["phi3-long", "phi4-mini", "gemma3-scaled", "granite", "smollm3"])
def test_whole_files_are_those_of_the_converter_and_the_quantizer(tmp_path, monkeypatch, name):
    try:
        CONVERTER.find()
    except StepError as error:
        pytest.skip(str(error))
    monkeypatch.setitem(families.COMMON, "vocab_size", 520)
    monkeypatch.setattr(families, "VOCABULARY", 520)
    folder, head, full, theirs, ours = (
        tmp_path / file for file in ("model", "head.gguf", "full.gguf", "theirs.gguf", "ours.gguf")
    )
    families.write_folder(name, folder)
    buttercup.write_tokenizer(folder, [f"{number} sires and dams" for number in range(2000)])
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "add_prefix_space": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    metadata = tmp_path / "metadata.json"
    metadata.write_text(json.dumps({"general.name": "Small"}), encoding="utf-8")
    CONVERTER.run(
        [str(folder), "--outtype", "bf16", "--metadata", str(metadata), "--outfile", str(full)], tmp_path
    )
    quantize(full, theirs, "Q8_0")
    convert_folder(folder, head, metadata={"general.name": "Small"})
    quantize_folder(folder, head, ours, "Q8_0")
    assert ours.read_bytes() == theirs.read_bytes()
