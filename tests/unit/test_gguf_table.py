"""What a GGUF's header follows from, beside transformers and llama.cpp's real converter."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from herdbook.errors import CheckpointError, StepError
from herdbook.release.subject import FolderSubject
from herdbook.sources.vocabulary import read_pieces
from herdbook.tools.converter import CONVERTER
from herdbook.verify.gguf.compare import HeaderReader, compare
from herdbook.verify.gguf.model import Model
from herdbook.verify.gguf.table import PRE, size_label, tokenizer_entries
from herdbook.weights import gguf_header
from herdbook.weights.gguf_header import encode, parse_header
from support import buttercup, tiny

DATA = Path(__file__).parents[1] / "data" / "quantize"
RESULTS = Path(__file__).parents[2] / "results/models"
_spec = importlib.util.spec_from_file_location("small_models", DATA / "small_models.py")
small_models = importlib.util.module_from_spec(_spec)
sys.modules["small_models"] = small_models
_spec.loader.exec_module(small_models)


@pytest.mark.parametrize(
    ("shapes", "label"),
    [
        ({"a": (1000, 1000)}, "1000K"),
        ({"a": (1001, 1000)}, "1.0M"),
        ({"a": (7_241_732, 1000)}, "7.2B"),
        ({"a": (46_702, 1_000_000)}, "47B"),
        ({"a": (100, 1000), "b.ffn_up_exps.weight": (8, 10, 1000)}, "8x110K"),
        ({"a": (3,)}, "0.00K"),
    ],
)
def test_sizes_in_words(shapes, label):
    assert size_label([SimpleNamespace(name=name, shape=shape) for name, shape in shapes.items()]) == label


def test_values_are_encoded_as_the_library_does(tmp_path):
    import gguf

    values = {"a": True, "b": 7, "c": 0.1, "d": "ä", "e": ["x", "yy"], "f": [1, -2], "g": [0.5, 1e-3]}
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
    writer.add_bool("a", True)
    writer.add_uint32("b", 7)
    writer.add_float32("c", 0.1)
    writer.add_string("d", "ä")
    for key in "efg":
        writer.add_array(key, values[key])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    made = parse_header((tmp_path / "x.gguf").read_bytes(), Path("x"))
    assert {key: encode(value) for key, value in values.items()} == {
        key: made.metadata[key] for key in values
    }


def test_headers_of_more_values_than_the_limit_are_refused(tmp_path, monkeypatch):
    import gguf

    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
    writer.add_array("tokens", ["x"] * 50)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    monkeypatch.setattr(gguf_header.limits, "GGUF_VALUES", 51)
    with pytest.raises(CheckpointError, match="over the limit of 51"):
        parse_header((tmp_path / "x.gguf").read_bytes(), Path("x"))
    monkeypatch.setattr(gguf_header.limits, "GGUF_VALUES", 52)
    assert len(parse_header((tmp_path / "x.gguf").read_bytes(), Path("x")).metadata) == 2


def test_pieces_are_those_of_the_library(tmp_path):
    import sentencepiece

    tiny.train_sentencepiece(tmp_path / "x.model", [f"{n} sires and dams" for n in range(2000)], 320)
    content = (tmp_path / "x.model").read_bytes()
    theirs = sentencepiece.SentencePieceProcessor(model_proto=content)
    for number, piece in enumerate(read_pieces(content)):
        assert piece.text == theirs.id_to_piece(number)
        assert piece.score == theirs.get_score(number)
        kinds = (
            "" if piece.kind == 1 else {2: "unknown", 3: "control", 5: "unused", 6: "byte"}[piece.kind],
            [
                kind
                for kind in ("unknown", "control", "unused", "byte")
                if getattr(theirs, f"is_{kind}")(number)
            ],
        )
        assert [kinds[0]] == (kinds[1] or [""])


# --- the real converter


def with_bytes(folder, config):
    """A fallback to bytes, as in Llama 2, without SentencePiece's own file."""
    pieces(folder, config)
    (folder / "tokenizer.model").unlink()
    config["vocab_size"] = 512
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": "{{x}}"}
    write(folder, {**settings, "tokenizer_class": "PreTrainedTokenizerFast"})


def pieces(folder, config):
    """SentencePiece's own file, with added tokens and padding."""
    config["vocab_size"] = 520
    buttercup.write_tokenizer(folder, [f"{number} sires and dams" for number in range(2000)])
    added = {
        "513": {"content": "<|im_start|>", "special": True},
        "514": {"content": "\u2581\u2581x", "special": False},
    }
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": True}
    write(folder, {**settings, "tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": added})


def byte_level(folder, config):
    """Tokens of bytes, in GPT-2's spelling, of a real model, with padding."""
    source = next(RESULTS.glob("base-*/tokenizer.json"), None)
    if source is None:
        pytest.skip("needs the demo's base: snakemake --cores all")
    config["vocab_size"] = 49200
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if source.with_name(name).exists():
            shutil.copyfile(source.with_name(name), folder / name)


def write(folder, settings):
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def ends(folder):
    """Let the template add both ends of a text, and name another end than the settings."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    token = {one: {"SpecialToken": {"id": one, "type_id": 0}} for one in ("<s>", "<unk>")}
    sequence = {one: {"Sequence": {"id": one, "type_id": 0}} for one in "AB"}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [token["<s>"], sequence["A"], token["<unk>"]],
        "pair": [token["<s>"], sequence["A"], token["<unk>"], sequence["B"], token["<unk>"]],
        "special_tokens": {
            one: {"id": one, "ids": [number], "tokens": [one]} for one, number in (("<s>", 1), ("<unk>", 0))
        },
    }
    path.write_text(json.dumps(content), encoding="utf-8")


DROPPED = ("rope_parameters", "rms_norm_eps", "max_position_embeddings", "num_key_value_heads", "head_dim")
MIXTRAL = {"model_type": "mixtral"}
LINEAR = {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2}, "rope_theta": 500}
NAMED = [{"name": "default", "template": "a"}, {"name": "tool use", "template": "b"}]
YARN = {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 64, "beta_fast": 16}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("small", "tokenizer", "change", "settings", "more"),
    [
        ("narrow", with_bytes, {"pad_token_id": 5}, {}, ends),
        ("narrow", with_bytes, dict.fromkeys(DROPPED), {"add_eos_token": True}, None),
        ("four", with_bytes, MIXTRAL | dict.fromkeys(DROPPED), {"add_prefix_space": True}, None),
        ("dense", pieces, {"rope_parameters": YARN}, {}, None),
        ("dense", byte_level, LINEAR, {}, None),
        ("dense", byte_level, {}, {"chat_template": NAMED, "sep_token": "<|im_end|>"}, None),
    ],
)
def test_the_real_converter_writes_what_follows(tmp_path, small, tokenizer, change, settings, more):
    try:
        CONVERTER.find()
    except StepError as error:
        pytest.skip(str(error))
    folder = tmp_path / "model"
    small_models.write_folder(small_models.MODELS[small], folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer(folder, config)
    config = {key: value for key, value in (config | change).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    write(folder, json.loads(path.read_text(encoding="utf-8")) | settings)
    if more:
        more(folder)
    metadata = tmp_path / "metadata.json"
    metadata.write_text(json.dumps({"general.name": "Small"}), encoding="utf-8")
    out = folder / "x.gguf"
    CONVERTER.run(
        [str(folder), "--metadata", str(metadata), "--outfile", str(out), "--outtype", "bf16"], tmp_path
    )
    subject = FolderSubject(folder)
    made = parse_header(HeaderReader(subject, out.name), out)
    tokens = tokenizer_entries(config, subject.files, subject.read)
    model = Model(config, tokens, {"general.name": "Small"}, 32, made.tensors)
    compared = compare(model, made.metadata)
    assert not compared.different
    expected = [PRE] if tokenizer is byte_level else []
    assert compared.unknown == (
        ["tokenizer.chat_templates", *expected] if settings.get("sep_token") else expected
    )
    assert len(compared.equal) == len(made.metadata) - len(compared.unknown)
