"""Sources whose only tokenizer is a ``tokenizer.model``: SentencePiece's, or tiktoken's."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece

from herdbook import plan as plans
from herdbook.errors import RecipeError
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
        env={**os.environ, "PYTHONPATH": paths},
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
