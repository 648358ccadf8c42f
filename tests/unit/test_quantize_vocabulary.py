"""The tokenizer is converted when a recipe is locked: refusals name it, and what cannot be known is a warning."""

import json
import sys

import pytest

from herdbook.cli.main import main
from herdbook.errors import RecipeError, StepError
from herdbook.tools.converter import CONVERTER
from herdbook.tools.external import Tool
from support import buttercup, tiny

UNKNOWN = "NotImplementedError: BPE pre-tokenizer was not recognized - update get_vocab_base_pre()"


@pytest.fixture
def recipe(tmp_path):
    """A mixture that is quantized and has its tokenizer from the second model, whose vocabulary is padded."""
    for seed, name in enumerate("ab"):
        folder = tiny.write_model(tmp_path / name, seed=seed, vocab=520)
        buttercup.write_tokenizer(folder, [f"{number} sires and dams" for number in range(2000)])
    (tmp_path / "a/tokenizer.model").unlink()
    moe = {
        "base": "a",
        "tokenizer": "b",
        "gate": "random",
        "experts": [{"model": "a"}, {"model": "b"}],
    }
    models = {"a": {"folder": "a"}, "b": {"folder": "b"}, "mix": {"moe": moe}}
    return tiny.write_recipe(tmp_path / "recipe.yaml", models, quantize={"methods": ["Q8_0"]})


def run_as(monkeypatch, last_line):
    """Let the converter fail with a last line, and return the names and configurations of the folders it saw."""
    seen = []

    def run(self, arguments, folder, log=None):
        staged = folder / "model"
        assert arguments[:2] == [str(staged), "--vocab-only"]
        config = json.loads((staged / "config.json").read_text(encoding="utf-8"))
        seen.append((sorted(path.name for path in staged.iterdir()), config))
        raise StepError(f"it failed with status 1. Its last lines:\n  Traceback\n  {last_line}")

    monkeypatch.setattr(Tool, "run", run)
    monkeypatch.setattr(Tool, "find", lambda _: ([], {}))
    return seen


def test_the_tokenizer_is_that_of_the_released_model_and_so_is_the_configuration(recipe, monkeypatch, capsys):
    seen = run_as(monkeypatch, UNKNOWN)
    assert main(["lock", "--recipe", str(recipe)]) == RecipeError.exit_status
    assert (
        "quantize: 'mix' cannot be converted to GGUF with the tokenizer of 'b': its way to split text"
        in capsys.readouterr().err
    )
    ((names, config),) = seen
    assert names == ["config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"]
    assert config["architectures"] == ["MixtralForCausalLM"]


def test_a_converter_that_cannot_run_here_is_a_warning(recipe, tmp_path, monkeypatch, capsys):
    arguments = ["lock", "--recipe", str(recipe)]
    with monkeypatch.context() as patch:
        run_as(patch, "ModuleNotFoundError: No module named 'torch'")
        assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "warning: quantize: whether llama.cpp's converter reads the tokenizer of 'b' is not known" in said
    assert "No module named 'torch'" in said
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(arguments) == 0
    assert f"{CONVERTER.package} {CONVERTER.version} is not installed. Install it" in capsys.readouterr().err


def test_nothing_is_converted_for_a_recipe_that_quantizes_nothing(recipe, monkeypatch):
    seen = run_as(monkeypatch, UNKNOWN)
    text = recipe.read_text(encoding="utf-8").partition("quantize:")[0]
    recipe.write_text(text, encoding="utf-8")
    assert main(["lock", "--recipe", str(recipe)]) == 0
    assert not seen


def test_the_real_converter_reads_a_padded_vocabulary_of_sentencepiece(recipe, capsys):
    try:
        CONVERTER.find()
    except StepError as error:
        pytest.skip(str(error))
    assert main(["lock", "--recipe", str(recipe)]) == 0
    assert "warning" not in capsys.readouterr().err
