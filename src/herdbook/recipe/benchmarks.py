"""The section of a recipe on benchmarks of the Hub: which measured results are put on their leaderboards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from herdbook.recipe.section import Section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.recipe.evaluate import Evaluate


class Benchmark(Section):
    """A result of the released model that the Hub shows on a benchmark's leaderboard, and beside the model."""

    task: str = Field(pattern=r"^[\w.-]+$", description="the evaluation task that is this benchmark")
    metric: str = Field(description="its metric; of a task with filters, `metric,filter`")
    dataset: str = Field(
        pattern=r"^[\w.-]+/[\w.-]+(@[0-9a-f]{40})?$",
        description="the benchmark's data set on the Hub, `owner/name` or `owner/name@commit`",
    )
    id: str = Field(min_length=1, description="the benchmark's task, by its id in the data set's `eval.yaml`")
    scale: Literal[1, 100] = Field(
        description="what the best result is on its leaderboard: 100 for percent, 1 for shares"
    )


def benchmark_problems(
    benchmarks: Sequence[Benchmark], evaluate: Evaluate | None, released: str
) -> list[str]:
    """Return what is wrong with the benchmarks.

    Args:
        benchmarks: The benchmarks.
        evaluate: What is measured.
        released: Name of the released model.
    """
    if not benchmarks:
        return []
    if evaluate is None or released not in evaluate.models:
        return [f"benchmarks: {released!r}, whose results they are, is not in evaluate.models"]
    problems = []
    if evaluate.limit is not None:
        problems.append(
            f"benchmarks: evaluate.limit measures only {evaluate.limit} documents of each, which is no result of a benchmark"
        )
    tasks = [benchmark.task for benchmark in benchmarks]
    problems += [
        f"benchmarks.{index}.task: {task} is named twice; its results are in one file"
        for index, task in enumerate(tasks)
        if task in tasks[:index]
    ]
    return problems
