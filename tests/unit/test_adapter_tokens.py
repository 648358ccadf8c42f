"""Tokenizers that lie beside adapters: the same one is fine, one for padding is told, others are refused."""

import json
import shutil

import pytest

from herdbook import plan as plans
from herdbook.errors import RecipeError
from support import tiny
from support.inputs.tokens import add, rename

FILES = ("tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def recipe(tmp_path):
    tiny.write_model(tmp_path / "base")
    tiny.write_adapter(tmp_path / "adapter", tmp_path / "base")
    models = {"base": {"folder": "base"}, "tuned": {"adapter": "adapter", "on": "base"}}
    return tiny.write_recipe(tmp_path / "r.yaml", models)


def trained_with(recipe, **settings):
    """Put the model's tokenizer beside the adapter, with other settings; return the folder."""
    folder = recipe.parent / "adapter"
    for name in FILES:
        shutil.copyfile(recipe.parent / "base" / name, folder / name)
    about = json.loads((folder / FILES[1]).read_text()) | settings
    (folder / FILES[1]).write_text(json.dumps(about))
    return folder


def test_an_adapter_without_a_tokenizer_says_nothing_of_one(recipe):
    pinned = tiny.lock(recipe).adapters["tuned"]
    assert (pinned.tokens, pinned.padding, pinned.chat_template) == (None, "", False)
    assert plans.load(recipe).warnings == ()


def test_the_same_tokenizer_is_fine_and_changes_no_key(recipe):
    tiny.lock(recipe)
    keys = list(plans.load(recipe).parts)
    trained_with(recipe, auto_map={"AutoTokenizer": ["x.Y", None]})  # it is not released
    lock = tiny.lock(recipe)
    plan = plans.load(recipe)
    assert lock.adapters["tuned"].tokens == lock.sources["base"].tokens
    assert (list(plan.parts), plan.warnings) == (keys, ())


def test_a_token_that_fills_up_texts_is_told(recipe):
    add(trained_with(recipe, pad_token={"content": "[PAD]"}), "[PAD]", 64)
    tiny.lock(recipe)
    (warning,) = plans.load(recipe).warnings
    assert warning.startswith("models.tuned.adapter: its tokenizer also has '[PAD]', which fills up texts")


def test_a_token_beside_that_one_is_refused(recipe):
    folder = trained_with(recipe, pad_token={"content": "[PAD]"})
    add(folder, "[PAD]", 64)
    add(folder, "<|im_start|>", 65)
    tiny.lock(recipe)
    with pytest.raises(RecipeError, match="and 1 more is not in that of 'base'"):
        plans.load(recipe)


def test_a_chat_template_that_the_model_lacks_is_told(recipe):
    trained_with(recipe, chat_template="{{ messages }}")
    tiny.lock(recipe)
    (warning,) = plans.load(recipe).warnings
    assert "its tokenizer has a chat template, and that of 'base' has none" in warning


def test_a_token_that_only_the_model_has_is_fine(recipe):
    folder = trained_with(recipe)
    content = json.loads((folder / FILES[0]).read_text())
    del content["model"]["vocab"]["w48"]
    content["model"]["merges"] = content["model"]["merges"][:-1]
    (folder / FILES[0]).write_text(json.dumps(content))
    tiny.lock(recipe)
    assert plans.load(recipe).warnings == ()


def test_a_token_in_place_of_one_of_the_adapter_is_refused(recipe):
    trained_with(recipe)
    add(recipe.parent / "base", "[PAD]", 63)
    rename(recipe.parent / "base", {"w48": "[PAD]"})
    with pytest.raises(RecipeError, match="63 stands for 'w48' there, and for '\\[PAD\\]' in that of 'base'"):
        tiny.lock(recipe), plans.load(recipe)


def test_an_adapter_that_is_put_on_another_model_needs_another_lock(recipe):
    """The lock of an adapter does not depend on its model."""
    tiny.write_model(recipe.parent / "other", seed=1)
    add(recipe.parent / "other", "<|im_start|>", 63)
    rename(recipe.parent / "other", {"w48": "<|im_start|>"})
    models = {
        "base": {"folder": "base"},
        "other": {"folder": "other"},
        "tuned": {"adapter": "adapter", "on": "base"},
    }
    trained_with(recipe)
    tiny.write_recipe(recipe, models)
    tiny.lock(recipe)
    assert plans.load(recipe)
    tiny.write_recipe(recipe, models | {"tuned": {"adapter": "adapter", "on": "other"}})
    with pytest.raises(RecipeError, match="it was trained with another tokenizer"):
        plans.load(recipe)
