"""Marks: a release that misses one is not made, and claims carry the outcome."""

import json

import pytest

from herdbook import plan as plans
from herdbook.errors import RecipeError, StepError
from herdbook.layout import CLAIMS, SUMS
from herdbook.plan.asked import check_tasks
from herdbook.steps.card.step import card_texts, render_card
from support import measured, tiny
from support.verification import failures

MODELS = {"base": {"folder": "base"}, "tuned": {"folder": "tuned"}}
REACHED = [
    {"task": "held_out", "metric": "bits_per_byte", "at_most": 0.95},
    {"task": "held_out", "metric": "bits_per_byte", "no_worse_than": "base"},
]


def build(folder, marks, better=0.01, **section):
    for seed, name in enumerate(MODELS):
        tiny.write_model(folder / name, seed)
    tiny.write_task(folder / "task.yaml")
    evaluate = {"tasks": ["task.yaml"], "models": list(MODELS)} | section
    recipe = tiny.write_recipe(folder / "r.yaml", MODELS, evaluate=evaluate, marks=marks)
    plan = tiny.build(recipe, folder / "results")
    for item in plan.evaluations:
        own = [0.9 + number / 200 - better * (item.name == "tuned") for number in range(12)]
        measured.write(plan, item, own)
    return plan


def released(plan):
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan)


def result_of(folder, name):
    claims = [json.loads(line) for line in (folder / CLAIMS).read_text().splitlines()]
    return next(
        claim["predicate"]
        for claim in claims
        if name in claim["predicate"].get("herdbook_evidence", {}).get("name", "")
    )


def test_marks_that_are_reached_are_on_the_card_and_in_the_claim(tmp_path):
    plan = build(tmp_path, REACHED)
    folder = released(plan)
    predicate = result_of(folder, "tuned-")
    assert predicate["result"] == "PASSED"
    assert [(mark["met"], mark["value"]) for mark in predicate["herdbook_marks"]] == [(True, 0.9175)] * 2
    assert "herdbook_marks" not in result_of(folder, "base-")
    card = (folder / "README.md").read_text()
    assert "| `held_out` | `bits_per_byte` | at most 0.95 | 0.9175 | the measured value | reached |" in card
    assert "| no worse than base | 0.9175 | difference -0.01, p 0.0005, uncorrected | reached |" in card
    assert failures(folder, "claims") <= {("claims", "unsigned", folder.name)}


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (
            {"at_most": 0.9},
            "bits_per_byte of held_out must be at most 0.9, and is 0.9375 (the measured value)",
        ),
        ({"no_worse_than": "base"}, "must be no worse than base, and is 0.9375 (difference +0.01, p 0.0005"),
    ],
)
def test_a_release_that_misses_a_mark_is_not_made(tmp_path, mark, message):
    plan = build(tmp_path, [{"task": "held_out", "metric": "bits_per_byte"} | mark], better=-0.01)
    with pytest.raises(StepError) as refused:
        released(plan)
    assert message in str(refused.value)
    assert not (plan.layout.release_folder / SUMS).exists()
    assert "| missed |" in card_texts(plan)["README.md"]


def test_more_comparisons_do_not_make_a_mark_easier(tmp_path):
    """Of twelve documents ten are worse: p is 158 / 4096. Corrected for two comparisons that would pass."""
    plan = build(tmp_path, [REACHED[1]], compare={"base": ["tuned"]})
    for item in plan.evaluations:
        own = [0.9] * 12 if item.name == "base" else [0.91] * 10 + [0.89] * 2
        measured.write(plan, item, own)
    with pytest.raises(StepError, match="must be no worse than base"):
        released(plan)
    comparisons = json.loads(card_texts(plan)["provenance/comparisons.json"])["comparisons"]
    assert {item["verdict"] for item in comparisons} == {"no measurable difference"}
    assert [item["p"] for item in comparisons] == pytest.approx([2 * (66 + 12 + 1) / 2**12] * 2, rel=1e-5)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (
            {"metric": "bits_per_byte", "at_least": 0.5},
            "marks.0: of bits_per_byte, lower results are better: use `at_most`",
        ),
    ],
)
def test_a_mark_that_does_not_fit_the_measurement_is_refused(tmp_path, mark, message):
    plan = build(tmp_path, [{"task": "held_out"} | mark])
    with pytest.raises(StepError, match=message.replace(".", r"\.")):
        card_texts(plan)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "held_in"}, r"marks\.0\.task: no task is named 'held_in'; did you mean 'held_out'"),
        ({"metric": "acc"}, r"marks\.0\.metric: held_out has no 'acc'; it has bits_per_byte"),
    ],
)
def test_a_result_that_does_not_exist_is_refused_when_planning(tmp_path, changes, message):
    plan = build(tmp_path, REACHED)
    wrong = plan.recipe.model_copy(update={"marks": [plan.recipe.marks[0].model_copy(update=changes)]})
    with pytest.raises(RecipeError, match=message):
        check_tasks(wrong, plan.lock)
    assert plans.load(plan.recipe_path).recipe.marks == plan.recipe.marks
