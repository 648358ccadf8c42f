"""Evaluation tasks of which a part would be missing from the lock or from the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from support import tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXACT = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
TASK = {
    "task": "words",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "data.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [EXACT],
}
DOCUMENTS = '{"question": "w1", "answer": "w2"}\n'


def tasks(*files: dict[str, Any]) -> Callable[[Path], Path]:
    """Return a maker of a model and of tasks, ``0.yaml`` and so on, that measure it."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1)
        (folder / "data.jsonl").write_text(DOCUMENTS, encoding="utf-8")
        for index, changes in enumerate(files):
            (folder / f"{index}.yaml").write_text(yaml.safe_dump(TASK | changes), encoding="utf-8")
        measured = {"tasks": [f"{index}.yaml" for index in range(len(files))], "models": ["base"]}
        return tiny.write_recipe(folder / "recipe.yaml", {"base": {"folder": "base"}}, evaluate=measured)

    return make


CASES = [
    Case(
        "two task files of one name",
        tasks({}, {"doc_to_text": "{{question}} {{question}}"}),
        "evaluate.tasks: 0.yaml and 1.yaml are both named 'words'",
    ),
    Case(
        "a task with one metric twice",
        tasks({"metric_list": [EXACT, {**EXACT, "aggregation": "median"}]}),
        "evaluate.tasks: 0.yaml: metric_list: exact_match is listed twice",
    ),
    Case(
        "a task that includes another file",
        tasks({"include": "common.yaml"}),
        "evaluate.tasks: 0.yaml: include: other files and groups of tasks are not supported",
    ),
    Case(
        "a group of tasks",
        tasks({"task": ["words", "letters"]}),
        "evaluate.tasks: 0.yaml: task: ['words', 'letters'] is not a name",
    ),
    *(
        Case(
            f"a task whose `{key}` is not a {form}",
            tasks({key: value}),
            f"{key}: Input should be a valid {form} (found {str(value)!r})",
        )
        for key, value, form in (
            ("metric_list", 1, "list"),
            ("filter_list", True, "list"),
            ("metadata", "1.0", "dictionary"),
        )
    ),
]
