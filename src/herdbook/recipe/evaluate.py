"""The sections of a recipe on measuring: what is measured and compared, and what a release must reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from herdbook.humanize import did_you_mean
from herdbook.recipe.section import Name, Section

if TYPE_CHECKING:
    from collections.abc import Sequence


class Evaluate(Section):
    """What is measured, and on which models of the recipe."""

    tasks: list[str] = Field(min_length=1, description="lm-eval task files, relative to the recipe")
    models: list[Name] = Field(
        min_length=1, description="models to measure, in the order of the card's table"
    )
    limit: int | None = Field(None, ge=1, description="measure only this many documents of each task")
    batch_size: int = Field(
        1,
        ge=1,
        description="how many requests form a batch; part of the result's key, since it changes the last digits of a result",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="the type in which models are measured; the smaller ones need half the memory, and change the results a little",
    )
    compare: dict[Name, list[Name]] = Field(
        {},
        description="by name of a measured model, the measured models that it is compared with, document by document",
    )
    release_samples: bool = Field(
        False,
        description="release the results of each document, without its text, so that anyone can repeat the comparisons",
    )


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
        description="a measured model; missed if the paired test says that the release is worse, at the 5 % level",
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Mark:
        if sum(limit is not None for limit in (self.at_least, self.at_most, self.no_worse_than)) != 1:
            raise ValueError("give one of at_least, at_most, no_worse_than")
        return self


def evaluate_problems(evaluate: Evaluate) -> list[str]:
    """Return what is wrong with the comparisons."""
    problems = []
    for name, others in evaluate.compare.items():
        where = f"evaluate.compare.{name}"
        problems += [
            f"{where}: {model!r} is not in evaluate.models{did_you_mean(model, evaluate.models)}"
            for model in (name, *others)
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
