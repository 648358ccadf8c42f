"""Sources whose only tokenizer is a ``tokenizer.model``: SentencePiece's, or tiktoken's."""

import json

import pytest
import sentencepiece

from herdbook.inference.forward import CheckpointFolder, load_tokenizer
from support import buttercup, tiny

TEXTS = ["the herd book names sire and dam", "a mixture of experts is a herd", "Ünknown lëtters are bytes"]
SIZE = 512


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A small tokenizer in both formats."""
    folder = tmp_path_factory.mktemp("tokenizer")
    buttercup.write_tokenizer(folder, [f"{line} {number}" for number in range(99) for line in TEXTS])
    return folder


def write_sources(root, tokenizer, name):
    """Write two models with one format of the tokenizer."""
    for seed, source in enumerate("ab"):
        folder = tiny.write_model(root / source, seed=seed, vocab=SIZE)
        (folder / "tokenizer.json").unlink()
        (folder / name).write_bytes((tokenizer / name).read_bytes())
        about = {**buttercup.SPECIAL, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
        (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")


def test_a_mixture_gets_the_routers_of_the_same_tokenizer_as_json(tmp_path, tokenizer):
    routers = []
    for name in ("tokenizer.model", "tokenizer.json"):
        root = tmp_path / name
        write_sources(root, tokenizer, name)
        experts = [{"model": source, "prompts": [text]} for source, text in zip("ab", TEXTS, strict=False)]
        models = {source: {"folder": source} for source in "ab"}
        models["mix"] = {"moe": {"base": "a", "gate": "hidden", "experts": experts}}
        plan = tiny.build(tiny.write_recipe(root / "recipe.yaml", models), root / "results")
        folder = plan.layout.folder(plan.released)
        assert (folder / name).exists()
        made = CheckpointFolder(folder)
        routers.append([made[f"model.layers.{layer}.block_sparse_moe.gate.weight"] for layer in range(2)])
    assert all(one.equal(other) for one, other in zip(*routers, strict=True))


def test_its_tokens_are_those_of_sentencepiece(tmp_path, tokenizer):
    write_sources(tmp_path, tokenizer, "tokenizer.model")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "tokenizer.model"))
    loaded = load_tokenizer(tmp_path / "a")
    for text in TEXTS:
        assert loaded(text)["input_ids"] == [pieces.bos_id(), *pieces.encode(text)]


def test_a_tokenizer_of_tiktoken_is_read(tmp_path):
    more = tiny.write_tiktoken(tmp_path)
    config = {"model_type": "llama", "vocab_size": 256 + len(more)}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    about = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    expected = [256 + more.index(b"the"), 256 + more.index(b" qu"), *b"ick"]
    assert load_tokenizer(tmp_path)("the quick")["input_ids"] == expected
