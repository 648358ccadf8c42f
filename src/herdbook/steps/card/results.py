"""Measurements: reading and checking the results of a plan's evaluations."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from herdbook.plan import Evaluation, Plan

# The main metric of a task is the first of these that it has, otherwise its first by name; of each filter.
MAIN_METRICS = ("bits_per_byte", "acc", "acc_norm", "exact_match", "f1")
METRIC_WORDS = {
    "bits_per_byte": (
        "how many bits the model needs, on average, to predict one byte of the text; models with different tokenizers "
        "can be compared by it"
    ),
    "byte_perplexity": "two to the power of the bits per byte",
    "word_perplexity": "how many words, on average, the model would have to choose between, were all equally likely",
    "acc": "share of questions whose right answer the model finds likelier than every other",
    "acc_norm": "as accuracy, but each answer's log-likelihood is divided by its length in bytes first",
    "exact_match": "share of answers that are the expected text",
    "f1": "harmonic mean of precision and recall",
}
METRIC_NAMES = {"bits_per_byte": "bits per byte", "acc": "accuracy", "acc_norm": "length-normalized accuracy"}


@dataclass(frozen=True)
class Score:
    """A result in one metric, with the exact numbers of the result file.

    ``metric`` is its label: of a task with filters, the metric and the filter (see ``herdbook.comparison.samples.label``).
    """

    metric: str
    value: Decimal
    stderr: Decimal | None
    higher_is_better: bool

    @property
    def name(self) -> str:
        """The metric in words, with its filter."""
        kind, _, filter_name = self.metric.partition(",")
        words = METRIC_NAMES.get(kind, kind.replace("_", " "))
        return f"{words} ({filter_name})" if filter_name else words

    @property
    def kind(self) -> str:
        """The metric without its filter."""
        return self.metric.partition(",")[0]

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return "higher is better" if self.higher_is_better else "lower is better"

    @property
    def digits(self) -> int:
        """Number of decimals to print."""
        return 2 if self.kind.endswith("perplexity") else 4

    def beats(self, other: Score) -> bool:
        """Return whether this is strictly better than ``other``."""
        return self.value > other.value if self.higher_is_better else self.value < other.value


def main_metrics(metrics: Iterable[str]) -> list[str]:
    """Return the labels of a task's main metric, one for each filter, sorted."""
    labels = sorted(metrics)
    kinds = {metric.partition(",")[0] for metric in labels}
    main = next((kind for kind in MAIN_METRICS if kind in kinds), min(kinds, default=""))
    return [metric for metric in labels if metric.partition(",")[0] == main]


@dataclass(frozen=True)
class TaskResult:
    """A model's results in one task, or in a group of tasks as a whole."""

    task: str
    title: str
    documents: int
    dtype: str  # the type in which the model was measured
    scores: dict[str, Score]
    members: tuple[str, ...] = ()  # the tasks of a group

    @property
    def main(self) -> tuple[Score, ...]:
        """The results in the task's main metric: one, or one for each filter, of which none is preferred."""
        return tuple(self.scores[metric] for metric in main_metrics(self.scores))


@dataclass(frozen=True)
class Measurement:
    """One measured model or file.

    Args:
        name: Name of the model in the recipe, or of the quantized file.
        node: Name of the model in the recipe.
        method: The quantization method; None if the model itself was measured.
        runtime: What ran the quantized file; empty if it was dequantized.
        tasks: Results by task.
        groups: Results of groups of tasks as a whole, by group.
        weights: SHA-256 of each measured weights file, by its name; empty if the result does not contain them.
        versions: Versions of the packages that ran the measurement.
    """

    name: str
    node: str
    method: str | None
    tasks: dict[str, TaskResult]
    groups: dict[str, TaskResult]
    weights: dict[str, str]
    versions: dict[str, str]
    runtime: str = ""

    @property
    def results(self) -> dict[str, TaskResult]:
        """Results by task and group."""
        return {**self.tasks, **self.groups}

    @property
    def shown(self) -> tuple[TaskResult, ...]:
        """The results in the card's table: those of the largest groups, and of the tasks that are in none."""
        found: list[TaskResult] = []
        for result in sorted(self.results.values(), key=lambda result: -len(result.members)):
            covered = {member for other in found for member in other.members}
            if not covered.issuperset(result.members or (result.task,)):
                found.append(result)
        order = list(self.tasks)
        return tuple(sorted(found, key=lambda result: order.index((*result.members, result.task)[0])))

    def score(self, column: Column) -> Score:
        """Return the result in a column."""
        return self.results[column.task].scores[column.score.metric]


@dataclass(frozen=True)
class Column:
    """A column of the table: one task or group, in its main metric, of one filter."""

    task: str
    title: str
    documents: int
    dtype: str
    score: Score  # any model's, for the metric's name and direction
    members: int = 0  # how many tasks a group has


def read_measurements(plan: Plan) -> tuple[Measurement, ...]:
    """Read all measurements of a plan, in the order of the card's table.

    Raises:
        StepError: If one is missing, damaged or of another plan, or if two did not measure the same tasks.
    """
    parts: dict[str, list[Measurement]] = {}
    for item in plan.evaluations:
        parts.setdefault(item.name, []).append(_read(plan, item))
    measurements = tuple(map(_joined, parts.values()))
    for other in measurements[1:]:
        for task, result in measurements[0].tasks.items():
            theirs = other.tasks.get(task)
            if (
                theirs is None
                or theirs.documents != result.documents
                or main_metrics(theirs.scores) != main_metrics(result.scores)
            ):
                raise StepError(
                    f"card: {measurements[0].name} and {other.name} were not measured in the same way in task {task!r}. "
                    "Delete both results and rerun `evaluate`."
                )
    return measurements


def _joined(parts: list[Measurement]) -> Measurement:
    """Return one measurement on all groups of tasks."""
    tasks = {name: result for part in parts for name, result in part.tasks.items()}
    groups = {name: result for part in parts for name, result in part.groups.items()}
    return replace(parts[0], tasks=tasks, groups=groups)


def columns(measurements: tuple[Measurement, ...]) -> tuple[Column, ...]:
    """Return the columns of the table."""
    if not measurements:
        return ()
    return tuple(
        Column(result.task, result.title, result.documents, result.dtype, score, len(result.members))
        for result in measurements[0].shown
        for score in result.main
    )


def best(measurements: tuple[Measurement, ...], column: Column) -> Decimal | None:
    """Return the best value of a column; None if fewer than two models were measured."""
    scores = [measurement.score(column) for measurement in measurements]
    if len(scores) < 2:
        return None
    return (max if scores[0].higher_is_better else min)(score.value for score in scores)


@dataclass(frozen=True)
class Gap:
    """How far a quantized file that llama.cpp runs is from the same file dequantized, in each column."""

    method: str
    differences: tuple[tuple[Column, Decimal], ...]


def gaps(measurements: tuple[Measurement, ...], shown: tuple[Column, ...]) -> tuple[Gap, ...]:
    """Return how far the files that were run by llama.cpp are from the same files dequantized."""
    dequantized = {str(m.method): m for m in measurements if m.method and not m.runtime}
    return tuple(
        Gap(
            str(run.method),
            tuple(
                (
                    column,
                    run.score(column).value - dequantized[str(run.method)].score(column).value,
                )
                for column in shown
            ),
        )
        for run in measurements
        if run.runtime
    )


def versions_of(code: dict[str, Any]) -> dict[str, str]:
    """Return the versions of packages in a record's code (our own modules are recorded by digest)."""
    return {name: str(version) for name, version in code.items() if name.partition(".")[0] != "herdbook"}


def read_json(path: Path, what: str) -> Any:
    """Read JSON, with fractions as exact decimals; ``what`` names the file in errors.

    Raises:
        StepError: If the file is missing or damaged, or contains NaN or an infinity.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number")

    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal, parse_constant=refuse)
    except FileNotFoundError as error:
        raise StepError(f"card: {path}: the {what} is missing. Build it first.") from error
    except (OSError, ValueError) as error:
        raise StepError(f"card: {path}: the {what} is damaged: {error}. Delete it and rebuild it.") from error


def _read(plan: Plan, item: Evaluation) -> Measurement:
    path = plan.layout.evaluation(item)
    data = read_json(path, f"measurement of {item.name}")
    try:
        if data["key"] != item.key:
            raise StepError(f"card: {path}: belongs to another plan. Delete it and rerun `evaluate`.")
        dtype = str(data["settings"]["dtype"])
        tasks = {name: _task(name, result, dtype) for name, result in data["tasks"].items()}
        return Measurement(
            item.name,
            item.node.name,
            item.quantized.method if item.quantized else None,
            tasks,
            {name: _task(name, result, dtype) for name, result in (data.get("groups") or {}).items()},
            dict(data.get("weights") or {}),
            versions_of(data.get("versions") or data.get("code") or {}),
            item.runtime,
        )
    except (KeyError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        raise StepError(
            f"card: {path}: the measurement of {item.name} is damaged ({error!r}). Delete it and rerun `evaluate`."
        ) from error


def _task(name: str, data: dict[str, Any], dtype: str) -> TaskResult:
    scores = {
        metric: Score(
            metric,
            Decimal(result["value"]),
            None if result["stderr"] is None else Decimal(result["stderr"]),
            bool(result["higher_is_better"]),
        )
        for metric, result in sorted(data["metrics"].items())
    }
    if not scores:
        raise ValueError(f"task {name} has no metric")
    return TaskResult(
        name,
        str(data.get("title") or name),
        int(data["documents"]),
        dtype,
        scores,
        tuple(data.get("tasks") or ()),
    )
