"""Tokenizers as transformers loads them, against SentencePiece and the library tokenizers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece

from herdbook import apart
from herdbook import plan as plans
from herdbook.cli.main import main
from herdbook.errors import RecipeError
from herdbook.inference.agreement import disagreement
from herdbook.inference.forward import CheckpointFolder
from herdbook.inference.tokenizer import load_tokenizer
from support import buttercup, tiny

TEXTS = ["the herd book names sire and dam", "a mixture of experts is a herd", "Ünknown lëtters are bytes"]
SIZE = 512
TRANSFORMERS_4 = Path(sys.prefix) / "tools/transformers-4"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A small tokenizer in both formats."""
    folder = tmp_path_factory.mktemp("tokenizer")
    buttercup.write_tokenizer(folder, [f"{line} {number}" for number in range(99) for line in TEXTS])
    return folder


def write_source(folder, tokenizer, name, kind="llama"):
    """Write a model with one format of the tokenizer."""
    tiny.write_model(folder, seed=len(folder.name), model_type=kind, vocab=SIZE)
    (folder / "tokenizer.json").unlink()
    (folder / name).write_bytes((tokenizer / name).read_bytes())
    about = {**buttercup.SPECIAL, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")


def write_mixture(root, tokenizer, name, *, kind="llama", **more):
    """Write a recipe of a mixture whose base and experts have one format; its own tokenizer is another model's."""
    for source in ("a", "bc"):
        write_source(root / source, tokenizer, name, kind)
    write_source(root / "json", tokenizer, "tokenizer.json", kind)
    experts = [{"model": source, "prompts": [text]} for source, text in zip(("a", "bc"), TEXTS, strict=False)]
    models = {source: {"folder": source} for source in ("a", "bc", "json")}
    moe = {"base": "a", "gate": "hidden", "tokenizer": "json", "experts": experts, **more}
    return tiny.write_recipe(root / "recipe.yaml", {**models, "mix": {"moe": moe}})


def test_a_mixture_has_the_routers_of_the_same_tokenizer_as_json(tmp_path, tokenizer):
    routers = []
    for name in ("tokenizer.model", "tokenizer.json"):
        recipe = write_mixture(tmp_path / name, tokenizer, name)
        plan = tiny.build(recipe, tmp_path / name / "results")
        made = CheckpointFolder(plan.layout.folder(plan.released))
        routers.append([made[f"model.layers.{layer}.block_sparse_moe.gate.weight"] for layer in range(2)])
    assert all(one.equal(other) for one, other in zip(*routers, strict=True))


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_tokens_are_those_of_sentencepiece_or_refused(tmp_path, tokenizer, kind):
    write_source(tmp_path / "a", tokenizer, "tokenizer.model", kind)
    recipe = tiny.write_recipe(tmp_path / "recipe.yaml", {"a": {"folder": "a"}})
    tiny.lock(recipe)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "tokenizer.model"))

    def equal():
        loaded = load_tokenizer(tmp_path / "a")
        return all(loaded(text)["input_ids"] == [pieces.bos_id(), *pieces.encode(text)] for text in TEXTS)

    assert equal() == (kind == "llama")
    if kind == "llama":
        assert plans.load(recipe)
        return
    with pytest.raises(
        RecipeError, match="models.a: has a tokenizer.model without tokenizer.json"
    ) as refused:
        plans.load(recipe)
    if not TRANSFORMERS_4.is_dir():
        return
    (command,) = re.findall(r'python -c "(.*)"', str(refused.value))
    paths = os.pathsep.join([str(TRANSFORMERS_4), *sys.path])
    subprocess.run(
        [sys.executable, "-c", command],
        cwd=tmp_path / "a",
        env={**os.environ, "PYTHONPATH": paths, "USE_TORCH": "0"},  # which would be imported in vain
        check=True,
    )
    tiny.lock(recipe)
    assert plans.load(recipe)
    assert equal()


def test_only_tokenizers_that_are_read_are_refused(tmp_path, tokenizer):
    recipe = write_mixture(tmp_path / "read", tokenizer, "tokenizer.model", kind="mistral")
    tiny.lock(recipe)
    with pytest.raises(RecipeError) as refused:
        plans.load(recipe)  # the base's, for the prompts; no expert's
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["models.a"]
    recipe = write_mixture(tmp_path / "unread", tokenizer, "tokenizer.model", kind="mistral", gate="random")
    tiny.lock(recipe)
    assert plans.load(recipe)


def test_a_tokenizer_of_tiktoken_is_read(tmp_path):
    more = tiny.write_tiktoken(tmp_path)
    config = {"model_type": "llama", "vocab_size": 256 + len(more)}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    about = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    expected = [256 + more.index(b"the"), 256 + more.index(b" qu"), *b"ick"]
    assert load_tokenizer(tmp_path)("the quick")["input_ids"] == expected


NAMED = [None, "LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast", "Qwen2Tokenizer"]


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
@pytest.mark.parametrize("named", NAMED)
@pytest.mark.parametrize("kind", ["llama", "mistral", "mixtral", "qwen2", "qwen3"])
def test_what_is_read_as_other_tokens_than_sentencepiece_is_found(tmp_path, tokenizer, kind, named, name):
    """The right tokens are SentencePiece's for both files, since both describe one tokenizer."""
    write_source(tmp_path, tokenizer, name, kind)
    about = {"tokenizer_class": named} if named else {}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "tokenizer.model"))
    loaded = load_tokenizer(tmp_path)
    equal = all(loaded(text, add_special_tokens=False)["input_ids"] == pieces.encode(text) for text in TEXTS)
    found = disagreement(tmp_path)
    assert found["kind"] == type(loaded).__name__
    assert ("text" not in found) == equal
    if not equal:
        text = found["text"]
        assert found["own"] == loaded.convert_ids_to_tokens(pieces.encode(text))
        assert found["read"] == loaded.tokenize(text)


def test_a_token_that_no_common_text_has_is_compared(tmp_path, tokenizer):
    """A word of the vocabulary that transformers leaves out, since its configuration adds it to the special tokens."""
    write_source(tmp_path, tokenizer, "tokenizer.json")
    assert "text" not in disagreement(tmp_path)
    about = json.loads((tmp_path / "tokenizer_config.json").read_text())
    about["added_tokens_decoder"] = {"300": {"content": "her", "special": True, "lstrip": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    found = disagreement(tmp_path)
    assert "her" in found["text"].lower()


def test_settings_that_cut_or_fill_up_texts_do_not_count(tmp_path):
    tiny.write_model(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["truncation"] = {"max_length": 2, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    content["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<unk>",
    }
    path.write_text(json.dumps(content))
    assert disagreement(tmp_path) == {"kind": "TokenizersBackend", "last": "w48", "highest": 63}


def test_a_tokenizer_of_tiktoken_has_nothing_to_compare_with(tmp_path):
    more = tiny.write_tiktoken(tmp_path)
    config = {"model_type": "llama", "vocab_size": 256 + len(more)}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "text" not in disagreement(tmp_path)


def test_a_lock_asks_in_a_process_of_its_own(tmp_path, tokenizer, monkeypatch, capfd):
    for name in ("a", "b"):
        write_source(tmp_path / name, tokenizer, "tokenizer.json", "qwen2")
    (tmp_path / "b/tokenizer_config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    mean = {"merge": {"method": "linear", "models": [{"model": "b"}, {"model": "a"}]}}
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml", {**{name: {"folder": name} for name in "ab"}, "mean": mean}
    )
    assert main(["lock", "--recipe", str(recipe)]) == 2
    error = capfd.readouterr().err
    assert (
        "models.b: transformers loads its tokenizer as Qwen2Tokenizer, in 'mean', of model_type 'qwen2', and"
        in error
    )
    assert "Check that `model_type` in config.json" in error


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"missing": "transformers"},
            "warning: models: whether transformers reads texts as the tokenizers define is not known",
        ),
        (
            apart.FailedError("needs more than 300 seconds"),
            "does not load its tokenizer or its config.json, of model_type 'llama': its process needs",
        ),
    ],
)
def test_where_transformers_gives_no_answer(tmp_path, monkeypatch, capfd, answer, message):
    def ask(program, question):
        if isinstance(answer, Exception):
            raise answer
        return {"found": [answer]}

    monkeypatch.setattr(apart, "ask", ask)
    tiny.write_model(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    recipe = tiny.write_recipe(tmp_path / "r.yaml", {"a": {"folder": "a"}})
    assert main(["lock", "--recipe", str(recipe)]) == (2 if isinstance(answer, Exception) else 0)
    assert message in capfd.readouterr().err
