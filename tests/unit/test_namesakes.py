"""Two recipes whose releases have one name, in one folder of results."""

import shutil

import pytest

from herdbook import plan as plans
from herdbook.plan.namesakes import namesakes, replaced
from support import tiny

MODELS = {"base": {"folder": "base"}}


@pytest.fixture
def plan(tmp_path):
    tiny.write_model(tmp_path / "base")
    recipe = tiny.write_recipe(tmp_path / "one.yaml", MODELS)
    tiny.lock(recipe)
    return plans.load(recipe, tmp_path / "results")


def test_other_recipes_of_the_name_are_found(plan, tmp_path):
    assert namesakes(plan) == []
    tiny.write_recipe(tmp_path / "two.yml", MODELS)
    tiny.write_recipe(tmp_path / "three.yaml", MODELS, release={"name": "Another"})
    (tmp_path / "broken.yaml").write_text("release: [", encoding="utf-8")
    (tmp_path / "other.yaml").write_text("release: {name: [1]}", encoding="utf-8")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff")
    (tmp_path / "folder.yaml").mkdir()
    assert namesakes(plan) == [tmp_path / "two.yml"]


def test_a_release_of_another_recipe_is_not_replaced(plan, tmp_path):
    folder = plan.layout.release_folder
    folder.mkdir(parents=True)
    other = tiny.write_recipe(tmp_path / "two.yaml", {"copy": {"folder": "base"}})
    assert replaced(plan) is None  # nothing is there
    shutil.copyfile(plan.recipe_path, folder / "recipe.yaml")
    assert replaced(plan) is None  # its own
    (folder / "recipe.yaml").write_text("models: {}", encoding="utf-8")
    assert replaced(plan) is None  # its own, before a change
    shutil.copyfile(other, folder / "recipe.yaml")
    assert replaced(plan) == other
    tiny.write_recipe(other, MODELS, release={"name": "Another"})
    assert replaced(plan) is None  # that was a copy, which has another name now
