"""Suites: their tasks with the settings that apply, and their scores on the card."""

import json

import pytest
import yaml

from herdbook import plan as plans
from herdbook.plan.asked import asked_tasks
from herdbook.steps.card.step import card_texts
from support import measured, tiny
from support.inputs.tasks import TASK

CHOICE = TASK | {
    "output_type": "multiple_choice",
    "doc_to_choice": ["w1", "w2"],
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def write(folder, *entries, **evaluate):
    tiny.write_model(folder / "base", seed=1)
    (folder / "tasks").mkdir()
    (folder / "suites").mkdir()
    (folder / "tasks/data.jsonl").write_text('{"question": "w1", "answer": 0}\n', encoding="utf-8")
    for name in ("first", "second"):
        text = yaml.safe_dump(CHOICE | {"task": name, "training_split": "test"})
        (folder / f"tasks/{name}.yaml").write_text(text, encoding="utf-8")
    suite = {
        "suite": "both",
        "title": "Both",
        "note": "Written for a test.",
        "tasks": [
            {"task": "../tasks/first.yaml", "num_fewshot": 1, "limit": 5},
            {"task": "../tasks/second.yaml"},
        ],
        "scores": {"First": [{"task": "first", "metric": "acc", "lowest": 0.5}]},
    }
    (folder / "suites/both.yaml").write_text(yaml.safe_dump(suite), encoding="utf-8")
    section = {"tasks": list(entries), "models": ["base"], **evaluate}
    return tiny.write_recipe(folder / "r.yaml", {"base": {"folder": "base"}}, evaluate=section)


@pytest.mark.parametrize(
    ("entry", "evaluate", "expected"),
    [
        ({}, {}, [{"num_fewshot": 1, "limit": 5}, {}]),
        ({}, {"limit": 7}, [{"num_fewshot": 1, "limit": 5}, {"limit": 7}]),
        (
            {"limit": 2, "system": "w3"},
            {"limit": 7},
            [
                {"num_fewshot": 1, "limit": 2, "system": "w3"},
                {"limit": 2, "system": "w3"},
            ],
        ),
        ({"num_fewshot": 0}, {}, [{"num_fewshot": 0, "limit": 5}, {"num_fewshot": 0}]),
    ],
)
def test_the_recipe_s_settings_replace_those_of_the_suite_and_its_limit_fills_gaps(
    tmp_path, entry, evaluate, expected
):
    recipe = write(tmp_path, {"suite": "suites/both.yaml", **entry}, **evaluate)
    tiny.lock(recipe)
    plan = plans.load(recipe)
    found = asked_tasks(plan.recipe, plan.lock)
    assert [locked.name for locked, _ in found] == ["first", "second"]
    assert [asked.given for _, asked in found] == expected


def test_settings_are_part_of_the_key_and_notes_are_not(tmp_path):
    recipe = write(tmp_path, {"suite": "suites/both.yaml"})
    keys = []
    suite = recipe.parent / "suites/both.yaml"
    for old, new in (("", ""), ("Written for a test.", "Rewritten."), ("limit: 5", "limit: 4")):
        suite.write_text(suite.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        tiny.lock(recipe)
        keys.append(plans.load(recipe).evaluations[0].key)
    assert keys[0] == keys[1] != keys[2]


def test_scores_are_on_the_card(tmp_path):
    recipe = write(tmp_path, {"suite": "suites/both.yaml"})
    plan = tiny.build(recipe, tmp_path / "results")
    measured.write(plan, plan.evaluations[0], [1.0, 1.0, 1.0, 0.0], metric="acc", task="first")
    text = card_texts(plan)["README.md"]
    section = text[text.index("### Both") :]
    assert "Written for a test." in section
    assert "| ► `base` | 50.00 |" in section


def test_a_lock_names_the_files_of_suites_and_tasks(tmp_path):
    recipe = write(tmp_path, {"suite": "suites/both.yaml"})
    tiny.lock(recipe)
    lock = json.loads(recipe.with_suffix(".lock.json").read_text(encoding="utf-8"))
    assert lock["suites"]["suites/both.yaml"]["file"]["name"] == "suites/both.yaml"
    assert sorted(lock["tasks"]) == ["tasks/first.yaml", "tasks/second.yaml"]


def in_groups(folder):
    """Write a recipe with two suites, a task of none, and one in another type; return the plan."""
    write(folder, {"suite": "suites/both.yaml"})
    for name in ("third", "fourth", "fifth"):
        text = yaml.safe_dump(CHOICE | {"task": name})
        (folder / f"tasks/{name}.yaml").write_text(text, encoding="utf-8")
    other = {"suite": "other", "title": "Other", "tasks": [{"task": "../tasks/third.yaml"}]}
    (folder / "suites/other.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    tiny.write_model(folder / "tuned", seed=2)
    tasks = [
        "tasks/fourth.yaml",
        {"suite": "suites/both.yaml"},
        {"suite": "suites/other.yaml", "dtype": "bfloat16"},
        {"task": "tasks/fifth.yaml", "dtype": "bfloat16", "limit": 3},
    ]
    section = {"tasks": tasks, "models": ["tuned", "base"], "compare": {"tuned": ["base"]}}
    mark = {"task": "third", "metric": "acc", "no_worse_than": "base"}
    models = {name: {"folder": name} for name in ("base", "tuned")}
    recipe = tiny.write_recipe(folder / "r.yaml", models, evaluate=section, marks=[mark])
    return tiny.build(recipe, folder / "results")


def test_each_suite_is_a_job_of_its_own_and_a_change_of_one_measures_no_other_again(tmp_path):
    plan = in_groups(tmp_path)
    before = {item.label: item for item in plan.evaluations}
    groups = ("", ".both", ".other.bfloat16", ".bfloat16")
    assert list(before) == [f"{model}{group}" for model in ("tuned", "base") for group in groups]
    assert [item.group.names for item in plan.evaluations[:4]] == [
        ("fourth",),
        ("first", "second"),
        ("third",),
        ("fifth",),
    ]
    assert before["base.other.bfloat16"].settings == {
        "limit": None,
        "batch_size": 1,
        "dtype": "bfloat16",
        "suite": "other",
    }
    assert before["base.bfloat16"].settings["tasks"] == {"fifth": {"limit": 3}}
    suite = tmp_path / "suites/both.yaml"
    suite.write_text(suite.read_text(encoding="utf-8").replace("limit: 5", "limit: 4"), encoding="utf-8")
    tiny.lock(plan.recipe_path)
    after = {item.label: item for item in plans.load(plan.recipe_path).evaluations}
    changed = {label for label in before if before[label].key != after[label].key}
    assert changed == {"tuned.both", "base.both"}


def test_results_comparisons_and_marks_are_those_of_all_groups(tmp_path):
    plan = in_groups(tmp_path)
    for item in plan.evaluations:
        task, *also = item.group.names
        better = item.name == "tuned" and task == "fourth"
        measured.write(plan, item, [1.0] * 8 if better else [0.0] * 8, metric="acc", task=task, also=also)
    texts = card_texts(plan)
    comparisons = json.loads(texts["provenance/comparisons.json"])["comparisons"]
    assert {item["task"]: item["difference"] for item in comparisons} == {
        "fourth": 1.0,
        "first": 0.0,
        "second": 0.0,
        "third": 0.0,
        "fifth": 0.0,
    }
    text = texts["README.md"]
    start = text.index("Measured by this build with lm-eval;")
    table = text[start : text.index("![The measurements", start)]
    assert table.count("| `base` |") == 1
    assert "| `third` | `acc` | no worse than base | 0.0000 |" in text
    assert "the task `third`, 8 documents, in bfloat16" in text
    assert "the task `fourth`, 8 documents, in float32" in text


def test_a_group_s_result_takes_the_place_of_its_tasks_in_the_table(tmp_path):
    plan = in_groups(tmp_path)
    score = {"value": 0.625, "stderr": 0.125, "higher_is_better": True, "aggregation": "documents"}
    whole = {"title": "Pair", "tasks": ["first", "second"], "documents": 16, "metrics": {"acc": score}}
    for item in plan.evaluations:
        task, *also = item.group.names
        measured.write(plan, item, [0.0] * 8, metric="acc", task=task, also=also)
        if item.group.suite == "both":
            path = plan.layout.evaluation(item)
            content = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps({**content, "groups": {"pair": whole}}), encoding="utf-8")
    text = card_texts(plan)["README.md"]
    start = text.index("Measured by this build with lm-eval;")
    heads = text[start : text.index("| --- |", start)]
    assert [name for name in ("first", "second", "third", "fourth", "Pair") if f" {name}<br>" in heads] == [
        "third",
        "fourth",
        "Pair",
    ]
    assert "| ► `tuned` |" in text
    assert "0.6250 ± 0.1250" in text
    assert "Pair is the group `pair` of 2 tasks, 16 documents" in text
    index = yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"]
    assert {one["dataset"]["type"] for one in index} >= {"first", "second", "pair"}
