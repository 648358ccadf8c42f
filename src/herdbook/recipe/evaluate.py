"""The sections of a recipe on measuring: what is measured and compared, and what a release must reach."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, JsonValue, model_validator

from herdbook.humanize import did_you_mean
from herdbook.recipe.section import Dtype, Name, Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUFFIX = r"\.ya?ml$"


class Asked(Section):
    """How a task is put to a model. What is not given is as the task's definition has it."""

    num_fewshot: int | None = Field(None, ge=0, description="how many solved examples precede each question")
    limit: int | None = Field(None, ge=1, description="measure only this many documents of each task")
    chat_template: bool | None = Field(
        None, description="put each question through the chat template of the model's tokenizer"
    )
    system: str | None = Field(None, min_length=1, description="a system prompt before each question")
    fewshot_as_multiturn: bool | None = Field(
        None, description="give solved examples as turns of the conversation; needs `chat_template`"
    )
    gen_kwargs: dict[str, JsonValue] = Field(
        {}, description="settings of text generation, such as max_gen_toks, that replace the task's own"
    )
    dtype: Dtype | None = Field(
        None, description="the type in which models are measured, in the place of `evaluate.dtype`"
    )

    def over(self, other: Asked) -> Asked:
        """Return these settings, and where one is not given, that of ``other``."""
        given = {name: getattr(self, name) for name in Asked.model_fields if name in self.model_fields_set}
        below = {name: getattr(other, name) for name in Asked.model_fields if name in other.model_fields_set}
        return Asked.model_validate({**below, **given})

    @property
    def given(self) -> dict[str, Any]:
        """The settings that are given, as JSON."""
        given = self.model_dump(mode="json", exclude_defaults=True)
        return {name: value for name, value in given.items() if name in Asked.model_fields}


class AskedTask(Asked):
    """A task, with settings of its own."""

    task: str = Field(
        min_length=1, description="a task, group or tag of lm-eval by its name, or a task file (.yaml)"
    )

    @property
    def path(self) -> str:
        """Its name, or its file."""
        return self.task


class AskedSuite(Asked):
    """All tasks of a suite, with settings that replace those of its tasks."""

    suite: str = Field(pattern=SUFFIX, description="a suite's file (.yaml), relative to the recipe")

    @property
    def path(self) -> str:
        """Its file."""
        return self.suite


class Bounded(Section):
    """A result that takes part in a score: its place between the worst that counts and the best."""

    task: str = Field(description="a task, or a group of them")
    metric: str
    weigh: Literal["documents", "tasks"] = Field(
        "documents", description="of a group: the mean over all documents, or the mean of the tasks' results"
    )
    lowest: float = Field(
        0.0, allow_inf_nan=False, description="what guessing reaches; what is below counts as zero"
    )
    highest: float = Field(1.0, allow_inf_nan=False, description="the best possible result")

    @model_validator(mode="after")
    def _spans(self) -> Bounded:
        if self.lowest >= self.highest:
            raise ValueError("lowest is not below highest")
        return self


class Suite(Section):
    """Tasks that are measured together, each with its settings, and the scores that follow from their results."""

    suite: Name
    title: str
    note: str = Field(
        "", description="what distinguishes it from what its name promises; printed with its scores"
    )
    tasks: list[AskedTask] = Field(min_length=1)
    scores: dict[str, list[Bounded]] = Field(
        {}, description="by name, the results whose mean it is, each between `lowest` (0) and `highest` (100)"
    )


class Evaluate(Section):
    """What is measured, and on which models of the recipe."""

    tasks: list[str | AskedTask | AskedSuite] = Field(
        min_length=1,
        description="tasks of lm-eval by name, task files relative to the recipe, and suites",
    )
    models: list[Name] = Field(
        min_length=1, description="models to measure, in the order of the card's table"
    )
    limit: int | None = Field(None, ge=1, description="measure only this many documents of each task")
    batch_size: int = Field(
        1,
        ge=1,
        description="how many requests form a batch; part of the result's key, since it changes the last digits of a result",
    )
    dtype: Dtype = Field(
        "float32",
        description="the type in which models are measured; the smaller ones need half the memory, and change the results a little",
    )
    trust: list[str] = Field(
        [],
        description="Python files beside the recipe that tasks may run (`!function`), after you have read them",
    )
    compare: dict[Name, list[Name]] = Field(
        {},
        description="by name of a measured model, the measured models that it is compared with, document by document",
    )
    release_samples: bool = Field(
        False,
        description="release the results of each document, without its text, so that anyone can repeat the comparisons",
    )

    @property
    def entries(self) -> list[AskedTask | AskedSuite]:
        """The tasks and suites, in order."""
        return [AskedTask(task=entry) if isinstance(entry, str) else entry for entry in self.tasks]

    @property
    def suites(self) -> list[str]:
        """The files of the suites, in order."""
        return [entry.suite for entry in self.entries if isinstance(entry, AskedSuite)]


def is_file(task: str) -> bool:
    """Return whether a task is named by its file, not by its name."""
    return re.search(SUFFIX, task) is not None


class Measurable(NamedTuple):
    """A task of an evaluation.

    Args:
        task: The task, as it is named relative to the recipe.
        asked: The settings that apply to it.
        suite: The suite that it belongs to; empty if it is named by itself.
    """

    task: str
    asked: Asked
    suite: str


def measured(evaluate: Evaluate, suites: Mapping[str, Suite]) -> list[Measurable]:
    """Return all tasks, with the settings that apply to each.

    Args:
        evaluate: The section.
        suites: By its file, each suite that it names.
    """
    below = Asked(limit=evaluate.limit) if evaluate.limit else Asked()
    found: list[Measurable] = []
    for entry in evaluate.entries:
        if isinstance(entry, AskedTask):
            found.append(Measurable(entry.task, entry.over(below), ""))
        else:
            suite = suites[entry.suite]
            found += [
                Measurable(beside_suite(entry.suite, task.task), entry.over(task).over(below), suite.suite)
                for task in suite.tasks
            ]
    return found


def beside_suite(suite: str, task: str) -> str:
    """Return a task's name or file in a suite, relative to the recipe."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(suite), task)) if is_file(task) else task


class Mark(Section):
    """A result that the released model must reach; a release that misses it is not made."""

    task: str = Field(description="the task, by the name in its file")
    metric: str = Field(
        description="the metric of that task; of a task with filters, `metric,filter`, such as `exact_match,strict-match`"
    )
    at_least: float | None = Field(
        None, allow_inf_nan=False, description="for metrics of which higher results are better"
    )
    at_most: float | None = Field(
        None, allow_inf_nan=False, description="for metrics of which lower results are better"
    )
    no_worse_than: Name | None = Field(
        None,
        description="a measured model; missed if the release is worse by the paired test, at the 5 % level",
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Mark:
        if sum(limit is not None for limit in (self.at_least, self.at_most, self.no_worse_than)) != 1:
            raise ValueError("give one of at_least, at_most, no_worse_than")
        return self


def evaluate_problems(evaluate: Evaluate) -> list[str]:
    """Return what is wrong with the models that are measured, and their comparisons."""
    twice = len(set(evaluate.models)) != len(evaluate.models)
    problems = ["evaluate.models: a model is named twice"] if twice else []
    for name, others in evaluate.compare.items():
        where = f"evaluate.compare.{name}"
        places = [(where, name), *((f"{where}.{index}", other) for index, other in enumerate(others))]
        problems += [
            f"{place}: {model!r} is not in evaluate.models{did_you_mean(model, evaluate.models)}"
            for place, model in places
            if model not in evaluate.models
        ]
        if not others:
            problems.append(f"{where}: no model to compare with")
        if name in others:
            problems.append(f"{where}: a model is compared with itself")
        if len(set(others)) != len(others):
            problems.append(f"{where}: a model is named twice")
    return problems


def mark_problems(marks: Sequence[Mark], evaluate: Evaluate | None, released: str) -> list[str]:
    """Return what is wrong with the marks.

    Args:
        marks: The marks.
        evaluate: What is measured.
        released: Name of the released model.
    """
    if not marks:
        return []
    measured = evaluate.models if evaluate else []
    if released not in measured:
        return [f"marks: {released!r}, which must reach them, is not in evaluate.models"]
    problems = []
    for index, mark in enumerate(marks):
        where, other = f"marks.{index}", mark.no_worse_than
        if mark in marks[:index]:
            problems.append(f"{where}: is given twice")
        if other == released:
            problems.append(f"{where}.no_worse_than: the released model is compared with itself")
        elif other is not None and other not in measured:
            problems.append(
                f"{where}.no_worse_than: {other!r} is not in evaluate.models{did_you_mean(other, measured)}"
            )
    return problems
