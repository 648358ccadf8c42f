"""Running lm-eval and reading its results."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from herdbook.comparison.samples import MEAN, RATIO, Sample, label, of_results
from herdbook.errors import StepError
from herdbook.inference.threads import one_thread_a_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SEED = 1234
CUSTOM = "of the task"  # an aggregation that is not lm-eval's
BOOTSTRAPS = 100_000  # as the command `lm_eval` makes, for metrics whose standard error has no closed form
DIGITS = 6  # significant digits of a result; beyond them, kernels of other processors differ


class Measured(NamedTuple):
    """What was measured.

    Args:
        tasks: By task name: title, number of documents, and metrics (by ``label``) with value, standard error (None where
            there is no estimate), direction and aggregation.
        samples: The same document by document, task by task.
    """

    tasks: dict[str, Any]
    samples: list[Sample]


def measure(
    opened: Callable[[], Any],
    tasks: Sequence[dict[str, Any]],
    limit: int | None,
) -> Measured:
    """Measure a model on tasks.

    Nothing is fetched, and lm-eval's cache is not used: its keys do not include the model.

    Args:
        opened: Returns lm-eval's model to measure.
        tasks: Configurations of lm-eval tasks over local data.
        limit: How many documents of each task are read; None for all.

    Raises:
        StepError: If logits contain NaN, a result is not a number, or lm-eval does not return one for every task.
    """
    with (
        tempfile.TemporaryDirectory() as scratch,
        _environment(
            HF_HUB_OFFLINE="1",
            HF_DATASETS_OFFLINE="1",
            HF_DATASETS_CACHE=scratch,
            TOKENIZERS_PARALLELISM="false",
            DISABLE_MULTIPROC="1",  # bootstraps are equal, and no process with threads is forked
        ),
        one_thread_a_matrix(),
    ):
        import datasets
        import lm_eval
        from lm_eval.tasks import TaskManager

        datasets.config.HF_DATASETS_CACHE = scratch  # in case the library was imported before
        datasets.disable_progress_bars()
        results = lm_eval.simple_evaluate(
            model=opened(),
            tasks=[dict(task) for task in tasks],
            task_manager=TaskManager(include_defaults=False),
            limit=limit,
            log_samples=True,
            bootstrap_iters=BOOTSTRAPS,
            random_seed=SEED,
            numpy_random_seed=SEED,
            torch_random_seed=SEED,
            fewshot_random_seed=SEED,
        )
    names = [task["task"] for task in tasks]
    missing = [name for name in names if not results or name not in results["results"]]
    if missing:
        raise StepError(f"lm-eval returned no result for {', '.join(missing)}")
    measured = {task["task"]: summarize(task, results) for task in tasks}
    samples = [
        sample
        for name, task in measured.items()
        for sample in of_results(name, results["samples"][name], task["metrics"])
    ]
    return Measured(measured, samples)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables and restore the previous ones at the end, since the caller may use the Hub afterwards."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def summarize(task: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Return a task's title, number of documents and metrics from lm-eval's results.

    Values, standard errors and the number of documents are lm-eval's own. It has no standard error of bits per byte; that is
    estimated here.

    Args:
        task: The task's configuration.
        results: What ``simple_evaluate`` returns for all tasks, with samples.

    Raises:
        StepError: If a metric is not a finite number.
    """
    name = task["task"]
    values = results["results"][name]
    samples = results["samples"][name]
    higher_is_better = results["higher_is_better"].get(name, {})
    metrics: dict[str, Any] = {}
    for key, value in values.items():
        metric, _, filter_name = key.partition(",")
        if not filter_name or metric.endswith("_stderr"):
            continue
        if not isinstance(value, Real) or not math.isfinite(value):
            raise StepError(f"lm-eval gave {value!r} as {metric} of {name}, which is not a number")
        aggregation = _aggregation(task, metric)
        error = values.get(f"{metric}_stderr,{filter_name}")
        if aggregation == RATIO:
            error = _ratio_error([one[metric] for one in samples if one["filter"] == filter_name])
        metrics[label(metric, filter_name)] = {
            "value": _rounded(float(value)),
            "stderr": _rounded(float(error)) if isinstance(error, Real) and math.isfinite(error) else None,
            "higher_is_better": bool(higher_is_better.get(metric, True)),
            "aggregation": aggregation,
        }
    title = (task.get("metadata") or {}).get("title", name)
    return {"title": title, "documents": results["n-samples"][name]["effective"], "metrics": metrics}


def _aggregation(task: dict[str, Any], metric: str) -> str:
    """Return the name of what makes a metric from the documents' values: as the task says, or as lm-eval has it."""
    from lm_eval.api.registry import get_aggregation, get_metric_aggregation

    listed = {
        getattr(item["metric"], "__name__", item["metric"]): item.get("aggregation")
        for item in task.get("metric_list") or []
    }
    if listed and metric not in listed:
        return MEAN  # lm-eval says so in a warning
    if callable(stated := listed.get(metric)):  # the task's own, whatever its name
        return CUSTOM
    found = get_aggregation(stated) if stated else get_metric_aggregation(metric)
    return str(getattr(found, "__name__", stated))


def _ratio_error(pairs: list[tuple[float, float]]) -> float | None:
    """Return the standard error of bits per byte over documents.

    Bits per byte is a ratio of sums, so its error is that of the ratio estimator: with r = sum(x) / sum(y) and
    residuals x - r y, it is sqrt(n / (n - 1) * sum(residual^2)) / sum(y).

    Args:
        pairs: For each document, log-likelihood in nats and length in bytes, as lm-eval returns them.

    Source: Cochran 1977, Sampling Techniques, section 6.4.
    """
    count = len(pairs)
    if count < 2:
        return None
    total = sum(length for _, length in pairs)
    ratio = sum(value for value, _ in pairs) / total
    squares = sum((value - ratio * length) ** 2 for value, length in pairs)
    return math.sqrt(count / (count - 1) * squares) / total / math.log(2)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
