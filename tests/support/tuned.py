"""A recipe with a search over the weights of a merge, and measurements of its trials in closed form."""

import json
import math

import yaml

from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.tuning.tune import Tuning
from support import measured, tiny

BASE = {
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
}
SEARCH = {
    "over": [{"path": f"merge.models.{place}.weight", "low": 0, "high": 2} for place in (0, 1)],
    "metric": "bits_per_byte",
    "validation": "validation.yaml",
    "test": "test.yaml",
    "generations": 6,
    "population": 6,
}
ONE = {**SEARCH, "generations": 1, "population": 4}  # the smallest
DOCUMENTS = {"validation": 24, "test": 40}


def write(folder, search=SEARCH, **sections):
    """Write two models, the tasks of both splits and a recipe that searches the weights of their sum; return its path."""
    for seed, name in enumerate("ab"):
        tiny.write_model(folder / name, seed=seed)
    write_tasks(folder)
    models = {
        "a": {"folder": "a"},
        "b": {"folder": "b"},
        "sum": {
            "merge": {
                "method": "linear",
                "normalize": False,
                "models": [{"model": "a", "weight": 0.5}, {"model": "b", "weight": 0.5}],
            },
            "search": search,
        },
    }
    return tiny.write_recipe(folder / "recipe.yaml", models, **sections)


def write_tasks(folder):
    """Write the tasks of both splits, with their documents."""
    for split, count in DOCUMENTS.items():
        lines = [
            json.dumps({"text": f"w{number % 40} w{len(split)} w{number // 3}"}) for number in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        about = {**BASE, "task": split, "dataset_kwargs": {"data_files": {"test": f"{split}.jsonl"}}}
        (folder / f"{split}.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")


def bowl(x, y):
    """Return the loss at two weights: least, 1, at 1.2 and 0.3."""
    return 1 + (x - 1.2) ** 2 + 2 * (y - 0.3) ** 2


class ClosedForm:
    """Measures trials by a function of their weights.

    Attributes:
        first: The digest of the first document of both tasks, as a number; None if they share none.
        made: The name of each trial that was measured, with the task, in order.

    Args:
        loss: The loss of each document, as a function of weights, split and the document's number.
        ends_after: How many measurements are made before it is interrupted, as by a kill; None for all.
    """

    first = None

    def __init__(self, loss, ends_after=None):
        self.loss, self.made, self.left = loss, [], ends_after

    def __call__(self, plan, wanted):
        for item in plan.evaluations:
            if plan.layout.evaluation(item) not in wanted:
                continue
            if self.left == 0:
                raise KeyboardInterrupt
            self.left = None if self.left is None else self.left - 1
            weights = [model.weight for model in item.node.recipe.merge.models]
            ((locked, _),) = item.group.tasks
            count = DOCUMENTS[locked.name]
            losses = [self.loss(*weights, locked.name, number) for number in range(count)]
            first = 1000 * len(locked.name) if self.first is None else self.first
            measured.write(plan, item, losses, task=locked.name, weights={}, first=first)
            self.made.append((item.name, locked.name))


def noise(split, number):
    """Return what a document is harder than others: the same for all trials, and between -0.5 and 0.5."""
    return math.sin(12.9898 * number + len(split)) / 2


def all_but_one(recipe_path, results):
    """Make a search in closed form, then lose the measurement of a trial; return the files that it was.

    What is left to do is one build of one trial, as after an interruption. It loses: closed forms find less loss than words
    that no model was trained on have.
    """
    Tuning(
        "sum",
        recipes.load(recipe_path),
        locks.load(locks.path_for(recipe_path)),
        recipe_path,
        results,
        ClosedForm(lambda x, y, *_: bowl(x, y)),
        lambda _: None,
    ).run()
    lost = sorted((results / "evaluations").glob("sum-trial-2-*"))
    for path in lost:
        path.unlink()
    return lost
