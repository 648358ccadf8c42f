"""Locks: what is written is read again; what does not answer the recipe is told."""

import json

import pytest
import yaml

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.errors import LockError, SourceError
from herdbook.files import sha256_file
from support import tiny

MODELS = {"base": {"folder": "base"}, "tuned": {"adapter": "adapter", "on": "base"}}
TASK = {
    "task": "held_out",
    "dataset_path": "json",
    "output_type": "loglikelihood_rolling",
    "dataset_kwargs": {"data_files": {"test": "text.jsonl"}},
    "metadata": {"title": "Text"},
}


@pytest.fixture
def recipe(tmp_path):
    tiny.write_model(tmp_path / "base", shards=3)
    tiny.write_adapter(tmp_path / "adapter", tmp_path / "base")
    (tmp_path / "text.jsonl").write_text('{"text": "w1"}\n')
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(TASK))
    return tiny.write_recipe(
        tmp_path / "r.yaml",
        MODELS,
        evaluate={"tasks": ["task.yaml"], "models": ["base", "tuned"], "limit": 1},
    )


def test_a_lock_names_every_file_and_tensor_with_its_digest(recipe):
    lock = tiny.lock(recipe)
    base = lock.sources["base"]
    folder = recipe.parent / "base"
    assert {file.name: file.sha256 for file in base.files} == {
        path.name: sha256_file(path)
        for path in folder.iterdir()
        if path.name != "model.safetensors.index.json"
    }
    assert {tensor.name: tensor.shape for tensor in base.tensors} == tiny.shapes(base.config)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert {tensor.name: tensor.file for tensor in base.tensors} == index
    assert {file.name for file in lock.adapters["tuned"].files} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    (task,) = lock.tasks.values()
    assert (task.name, task.data[0].sha256) == ("held_out", sha256_file(recipe.parent / "text.jsonl"))


TEMPLATE = "{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("settings", "jinja"),
    [
        ({}, None),
        ({}, TEMPLATE),
        ({}, ""),
        ({"chat_template": TEMPLATE}, None),
        ({"chat_template": ""}, None),
        ({"chat_template": None}, None),
        ({"chat_template": TEMPLATE}, ""),
        ({"chat_template": [{"name": "default", "template": TEMPLATE}]}, None),
        ({"chat_template": [{"name": "rag", "template": TEMPLATE}]}, None),
        ({"chat_template": [{"name": "rag", "template": TEMPLATE}]}, TEMPLATE),
    ],
)
def test_a_tokenizer_has_a_chat_template_if_transformers_finds_one(recipe, settings, jinja):
    from transformers import AutoTokenizer

    folder = recipe.parent / "base"
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja)
    try:
        has_one = bool(AutoTokenizer.from_pretrained(folder).get_chat_template())
    except ValueError:
        has_one = False
    assert tiny.lock(recipe).sources["base"].chat_template == has_one


def test_a_damaged_tokenizer_is_named(recipe):
    (recipe.parent / "base/tokenizer_config.json").write_text("[")
    with pytest.raises(SourceError, match=r"folder: base: its tokenizer_config\.json: it is not JSON"):
        tiny.lock(recipe)


def test_what_is_written_is_read_again_and_written_alike(recipe):
    lock = tiny.lock(recipe)
    path = locks.path_for(recipe)
    assert path.name == "r.lock.json"
    assert locks.load(path) == lock
    assert locks.render(locks.load(path)) == path.read_text()
    assert max(map(len, path.read_text().splitlines())) <= 220


def test_a_lock_holds_no_path_of_the_machine(recipe):
    tiny.lock(recipe)
    assert str(recipe.parent) not in locks.path_for(recipe).read_text()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("folder: base", "folder: elsewhere", "models.base"),
        ("adapter: adapter", "adapter: other", "models.tuned"),
        ("- task.yaml", "- other.yaml", "evaluate.tasks other.yaml"),
    ],
)
def test_a_lock_of_another_recipe_is_told(recipe, old, new, expected):
    tiny.lock(recipe)
    recipe.write_text(recipe.read_text().replace(old, new, 1))
    with pytest.raises(
        LockError, match=f"the lock does not match the recipe at {expected}. Run `herdbook lock {recipe}`"
    ):
        plans.load(recipe)


def test_what_a_recipe_does_with_a_source_is_not_the_lock_s_matter(recipe):
    tiny.lock(recipe)
    recipe.write_text(recipe.read_text().replace("limit: 1", "limit: 2"))
    assert plans.load(recipe).recipe.evaluate.limit == 2


def test_missing_and_damaged_locks(recipe):
    with pytest.raises(
        LockError,
        match=r"r\.lock\.json: the lock does not exist\. Create it with `herdbook lock \S*/r\.yaml`",
    ):
        plans.load(recipe)
    path = locks.path_for(recipe)
    for text, where in (
        ("{", "its start"),
        ('{"version": 1, "sources": {"a": 1}}', "sources.a"),
    ):
        path.write_text(text)
        with pytest.raises(LockError, match=f"is damaged at {where}"):
            locks.load(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"version": 2, "herds": []}', "is of version 2 of its format, and this Herdbook"),
        ('{"sources": {}, "version": 0}', "is of version 0 of its format, and this Herdbook"),
        ("{}", "does not state the version of its format"),
        ('{"version": "1"}', "does not state the version of its format"),
        ('{"version": 1.0}', "does not state the version of its format"),
        ('{"version": true}', "does not state the version of its format"),
        ('{"version": null}', "does not state the version of its format"),
        ('{"sources": {"version": 1}}', "does not state the version of its format"),
    ],
)
def test_locks_of_other_versions(recipe, text, told):
    path = locks.path_for(recipe)
    path.write_text(text)
    with pytest.raises(LockError, match=rf"r\.lock\.json: {told}.*, or run `herdbook lock \S*/r\.yaml`\.$"):
        plans.load(recipe)


def test_changed_evaluation_data_are_told(recipe):
    lock = tiny.lock(recipe)
    pinned = lock.tasks["task.yaml"].data[0]
    path = recipe.parent / "text.jsonl"
    locks.check_pinned(path, pinned, "evaluate.tasks")
    path.write_text("other")
    with pytest.raises(LockError, match="has changed since it was locked"):
        locks.check_pinned(path, pinned, "evaluate.tasks")
    path.unlink()
    with pytest.raises(LockError, match="was deleted since it was locked"):
        locks.check_pinned(path, pinned, "evaluate.tasks")


def test_missing_task_and_data(recipe):
    (recipe.parent / "text.jsonl").unlink()
    with pytest.raises(
        SourceError, match=r"evaluate\.tasks\.0: task\.yaml: the file .*text\.jsonl does not exist"
    ):
        tiny.lock(recipe)


def test_nothing_is_written_when_locking_fails(recipe):
    (recipe.parent / "base" / "config.json").unlink()
    with pytest.raises(SourceError, match="contains no config.json"):
        tiny.lock(recipe)
    assert not locks.path_for(recipe).exists()
    assert recipes.load(recipe)
