"""Tasks made from the lock: what is wrong with data or context is named before a model reads anything; prompts have a digest."""

import functools
import json

import pytest
import torch
import yaml

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook.errors import LockError, StepError
from herdbook.steps.evaluate.measure import measure
from herdbook.steps.evaluate.parallel import ParallelHFLM
from herdbook.steps.evaluate.tasks import rounds
from support import tiny

TASK = {
    "task": "words",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "train.jsonl", "test": "test.jsonl"}},
    "training_split": "train",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": ["w1", "w2 w3"],
    "doc_to_target": "{{gold}}",
}


def plan_of(folder, changes=None, *, shots=None, length=4):
    if not (folder / "base").exists():
        tiny.write_model(folder / "base", seed=3)
    for split in ("train", "test"):
        rows = [{"question": f"w{n} " * length, "gold": n % 2} for n in range(3)]
        (folder / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    (folder / "words.yaml").write_text(yaml.safe_dump(TASK | (changes or {})), encoding="utf-8")
    asked = {"task": "words.yaml", **({} if shots is None else {"num_fewshot": shots})}
    section = {"tasks": [asked], "models": ["base"]}
    recipe = tiny.write_recipe(folder / "r.yaml", {"base": {"folder": "base"}}, evaluate=section)
    tiny.lock(recipe)
    return plans.load(recipe, folder / "results")


def measured(plan, pinned=None):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = plan.recipe_path.parent / "base"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with rounds(plan) as asked:
        [one] = asked
        tokenizer = AutoTokenizer.from_pretrained(folder)
        opened = functools.partial(ParallelHFLM, 1, 1, pretrained=model, tokenizer=tokenizer)
        return measure(opened, one.tasks, one.limit, pinned or {}, **one.options)


def test_a_changed_prompt_is_seen_whatever_changed_it(tmp_path):
    digests = [
        measured(plan_of(tmp_path, changes, shots=shots)).tasks["words"]["requests"]
        for changes, shots in (
            ({}, 0),
            ({"metadata": {"version": 2}}, 0),
            ({"doc_to_text": "{{question}} "}, 0),
            ({}, 1),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_what_was_pinned_is_asked_and_nothing_else(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, shots=1)
    digest = measured(plan).tasks["words"]["requests"]
    assert measured(plan, {"words": digest}).tasks["words"]["requests"] == digest
    monkeypatch.setattr(ParallelHFLM, "read_batch", None)  # nothing is read
    with pytest.raises(StepError, match=f"words: what models are asked has changed: .* have {digest[:12]}"):
        measured(plan, {"words": "0" * 64})


def test_solved_examples_that_the_context_does_not_hold_are_refused(tmp_path):
    """With 128 positions, three questions of 40 tokens, two answers and the longest choice fit; four do not."""
    assert measured(plan_of(tmp_path, shots=2, length=40)).tasks["words"]["documents"] == 3
    with pytest.raises(
        StepError,
        match=r"words: num_fewshot: with 3 solved examples, the prompt of document 0 has 16\d tokens, and the model's context "
        "holds 129",
    ):
        measured(plan_of(tmp_path, shots=3, length=40))


@pytest.mark.parametrize(
    ("changes", "shots", "message"),
    [
        ({}, 4, "words: num_fewshot: 4 solved examples, and its data have 3"),
        ({"doc_to_target": "{{nothing.at_all}}"}, None, "words: lm-eval cannot make it: "),
    ],
)
def test_a_task_that_its_data_do_not_fit_is_refused(tmp_path, changes, shots, message):
    plan = plan_of(tmp_path, changes, shots=shots)
    with pytest.raises(StepError, match=message), rounds(plan):
        pass


def test_another_version_of_lm_eval_or_another_seed_is_refused(tmp_path):
    plan = plan_of(tmp_path)
    path = locks.path_for(plan.recipe_path)
    for change in ({"lm_eval": "0.4.1"}, {"seed": 1}):
        harness = plan.lock.harness.model_copy(update=change)
        locks.write(plan.lock.model_copy(update={"harness": harness}), path)
        with (
            pytest.raises(LockError, match="the lock pins lm-eval .*, and here is "),
            rounds(plans.load(plan.recipe_path)),
        ):
            pass
