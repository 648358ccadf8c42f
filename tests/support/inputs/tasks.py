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


def tasks(
    *files: dict[str, Any],
    ask: list[Any] | None = None,
    documents: str = DOCUMENTS,
    code: str = "",
    trust: list[str] | None = None,
    **sections: Any,
) -> Callable[[Path], Path]:
    """Return a maker of a model and of tasks, ``0.yaml`` and so on, that measure it.

    Args:
        files: What distinguishes each task from TASK.
        ask: The entries of ``evaluate.tasks``, if they are not the files.
        documents: The data of the tasks.
        code: The content of ``code.py``, of which the tasks run ``prepare``.
        trust: ``evaluate.trust``.
        sections: Further sections of the recipe.
    """

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1)
        (folder / "data.jsonl").write_text(documents, encoding="utf-8")
        for index, changes in enumerate(files):
            text = yaml.safe_dump(TASK | changes) + "process_docs: !function code.prepare\n" * bool(code)
            (folder / f"{index}.yaml").write_text(text, encoding="utf-8")
        if code:
            (folder / "code.py").write_text(code, encoding="utf-8")
        entries = [f"{index}.yaml" for index in range(len(files))] if ask is None else ask
        measured = {"tasks": entries, "models": ["base"], **({"trust": trust} if trust else {})}
        return tiny.write_recipe(
            folder / "recipe.yaml", {"base": {"folder": "base"}}, evaluate=measured, **sections
        )

    return make


def asked(name: str) -> Callable[[Path], Path]:
    """Return a maker of a model that is measured on a task of lm-eval."""
    return tasks(ask=[name])


def suite(changes: dict[str, Any]) -> Callable[[Path], Path]:
    """Return a maker of a model that is measured on a suite of one task."""

    def make(folder: Path) -> Path:
        said = {"suite": "words", "title": "Words", "tasks": [{"task": "0.yaml"}]}
        (folder / "suite.yaml").write_text(yaml.safe_dump(said | changes), encoding="utf-8")
        return tasks({}, ask=[{"suite": "suite.yaml"}])(folder)

    return make


CASES = [
    Case(
        "two task files of one name",
        tasks({}, {"doc_to_text": "{{question}} {{question}}"}),
        "evaluate.tasks.1: 0.yaml and 1.yaml are both named 'words'",
    ),
    Case(
        "a task with one metric twice",
        tasks({"metric_list": [EXACT, {**EXACT, "aggregation": "median"}]}),
        "evaluate.tasks.0: 0.yaml: metric_list: exact_match is listed twice",
    ),
    Case(
        "a task that includes a file which does not exist",
        tasks({"include": "common.yaml"}),
        "evaluate.tasks.0: 0.yaml: include: common.yaml does not exist",
    ),
    Case(
        "several tasks in one file that is no group",
        tasks({"task": ["words", "letters"]}),
        "evaluate.tasks.0: 0.yaml: expected a task of lm-eval: task: expected text (found a list of 2 entries)",
    ),
    Case(
        "a task that lm-eval does not have",
        asked("arc_chalenge"),
        "evaluate.tasks.0: lm-eval has no task, group or tag named 'arc_chalenge'; did you mean 'arc_challenge'?",
        slow=True,
    ),
    Case(
        "a group of lm-eval in which several tasks have one name",
        asked("openllm"),
        "evaluate.tasks.0: openllm: lm-eval cannot read it: ValueError: it makes several tasks named 'mmlu'",
        slow=True,
    ),
    Case(
        "code of a task that is not trusted",
        tasks({}, code="def prepare(documents):\n    return documents\n"),
        "evaluate.tasks.0: 0.yaml: runs code, code.py (!function code.prepare). Read it, and name it in evaluate.trust",
    ),
    Case(
        "trust in code that no task runs",
        tasks({}, trust=["code.py"]),
        "evaluate.trust: code.py: no task runs it; leave it out",
    ),
    Case(
        "a task that runs programs which the model writes",
        tasks({"unsafe_code": True}),
        "evaluate.tasks.0: 0.yaml: unsafe_code: runs programs that the model writes, which is not supported",
    ),
    Case(
        "a task whose data are made by code",
        tasks({"custom_dataset": "make"}),
        "evaluate.tasks.0: 0.yaml: custom_dataset: its data are made by code, and cannot be pinned",
    ),
    Case(
        "a task with data elsewhere than on the Hub",
        tasks({"dataset_kwargs": {"data_files": {"test": "https://example.com/data.jsonl"}}}),
        "evaluate.tasks.0: 0.yaml: dataset_kwargs.data_files: https://example.com/data.jsonl is not on the Hub",
    ),
    Case(
        "a task with an argument of its data of unknown effect",
        tasks({"dataset_kwargs": {"data_files": {"test": "data.jsonl"}, "streaming": True}}),
        "evaluate.tasks.0: 0.yaml: dataset_kwargs.streaming: is not supported",
    ),
    Case(
        "a task without any document",
        tasks({}, documents=""),
        "evaluate.tasks.0: 0.yaml: data.jsonl is empty, so nothing can be measured",
    ),
    Case(
        "a task that needs a split for which it names no file",
        tasks({"training_split": "train"}),
        "evaluate.tasks.0: 0.yaml: no data_files are named for the split 'train'",
    ),
    Case(
        "a mark on a metric that the task has not",
        tasks({}, marks=[{"task": "words", "metric": "acc", "at_least": 0.5}]),
        "marks.0.metric: words has no 'acc'; it has exact_match",
    ),
    Case(
        "a task that is measured twice",
        tasks({}, ask=["0.yaml", {"task": "0.yaml", "num_fewshot": 1}]),
        "evaluate.tasks.1: 0.yaml is measured twice",
    ),
    Case(
        "solved examples that are drawn from the questions themselves",
        tasks({}, ask=[{"task": "0.yaml", "num_fewshot": 2}]),
        "evaluate.tasks: words: num_fewshot: the task has no split for 2 solved examples",
    ),
    Case(
        "more solved examples than a task has",
        tasks({"fewshot_config": {"samples": [{"question": "w1", "answer": "w2"}]}, "num_fewshot": 2}),
        "evaluate.tasks.0: 0.yaml: num_fewshot: 2 solved examples, and fewshot_config.samples has 1",
    ),
    Case(
        "a number of solved examples that lm-eval ignores",
        tasks({"num_fewshot": 0}, ask=[{"task": "0.yaml", "num_fewshot": 2}]),
        "evaluate.tasks: words: num_fewshot: the task's definition sets 0, which lm-eval keeps; 2 would be ignored",
    ),
    Case(
        "a chat template that a measured model does not have",
        tasks({}, ask=[{"task": "0.yaml", "chat_template": True}]),
        "evaluate.tasks: words: chat_template: the tokenizer of 'base' has no chat template",
    ),
    Case(
        "turns of a conversation without a chat template",
        tasks({}, ask=[{"task": "0.yaml", "fewshot_as_multiturn": True}]),
        "evaluate.tasks: words: fewshot_as_multiturn: turns need `chat_template: true`",
    ),
    Case(
        "settings of text generation for a task in which none is generated",
        tasks({"output_type": "loglikelihood"}, ask=[{"task": "0.yaml", "gen_kwargs": {"max_gen_toks": 8}}]),
        "evaluate.tasks: words: gen_kwargs: the model writes no text in it; leave them out",
    ),
    Case(
        "a suite whose score is of a task that it does not measure",
        suite({"scores": {"Words": [{"task": "letters", "metric": "exact_match"}]}}),
        "suite.yaml: scores.Words: no task is named 'letters'",
    ),
    Case(
        "a suite whose score is of a metric that the task has not",
        suite({"scores": {"Words": [{"task": "words", "metric": "acc"}]}}),
        "suite.yaml: scores.Words: words has no metric 'acc'",
    ),
    Case(
        "a misspelt key in a suite",
        suite({"titel": "Words"}),
        "suite.yaml: line 4: titel: unknown key; did you mean 'title'?",
    ),
    *(
        Case(
            f"a task whose `{key}` is not a {form}",
            tasks({key: value}),
            f"{key}: expected {expected} (found {found})",
        )
        for key, value, form, expected, found in (
            ("metric_list", 1, "list", "a list", "1"),
            ("filter_list", True, "list", "a list", "true"),
            ("metadata", "1.0", "dictionary", "a mapping of names to values", "'1.0'"),
        )
    ),
]
