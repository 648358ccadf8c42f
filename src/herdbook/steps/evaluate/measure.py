"""Running lm-eval and reading its results."""

from __future__ import annotations

import hashlib
import json
import math
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from herdbook.comparison.samples import MEAN, RATIO, Sample, label, of_results
from herdbook.errors import StepError
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.lock import SEED
from herdbook.steps.evaluate.context import check_context
from herdbook.steps.evaluate.offline import offline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    tasks: Sequence[Any],
    limit: int | None,
    **options: Any,
) -> Measured:
    """Measure a model on tasks.

    Nothing is fetched, and lm-eval's cache is not used: its keys do not include the model.

    Args:
        opened: Returns lm-eval's model to measure.
        tasks: lm-eval's tasks and groups, or configurations of tasks over local data.
        limit: How many documents of each task are read; None for all.
        options: Further arguments of ``simple_evaluate``.

    Raises:
        StepError: If logits contain NaN, a result is not a number, or lm-eval does not return one for every task.
    """
    # Bootstraps are equal without processes of their own, and no process with threads is forked.
    with offline(TOKENIZERS_PARALLELISM="false", DISABLE_MULTIPROC="1"), one_thread_a_matrix():
        import lm_eval
        from lm_eval.tasks import TaskManager

        lm = opened()
        check_context(tasks, lm, limit, options)
        results = lm_eval.simple_evaluate(
            model=lm,
            tasks=[dict(task) if isinstance(task, dict) else task for task in tasks],
            task_manager=TaskManager(include_defaults=False),
            limit=limit,
            log_samples=True,
            bootstrap_iters=BOOTSTRAPS,
            random_seed=SEED,
            numpy_random_seed=SEED,
            torch_random_seed=SEED,
            fewshot_random_seed=SEED,
            **options,
        )
    configs = {config["task"]: config for task in tasks for config in _configs(task)}
    missing = [name for name in configs if not results or name not in results["results"]]
    if missing:
        raise StepError(f"lm-eval returned no result for {', '.join(missing)}")
    measured = {
        name: {**summarize(config, results), "requests": _requests(results["samples"][name])}
        for name, config in configs.items()
    }
    samples = [
        sample
        for name, task in measured.items()
        for sample in of_results(name, results["samples"][name], task["metrics"])
    ]
    return Measured(measured, samples)


def _configs(task: Any) -> list[dict[str, Any]]:
    """Return the configurations of a task of lm-eval, or of all tasks in a group."""
    if isinstance(task, dict):
        return [task]
    leaves = task.get_all_tasks() if hasattr(task, "get_all_tasks") else [task]
    return [
        {name: getattr(leaf.config, name) for name in ("task", "metric_list", "metadata")} for leaf in leaves
    ]


def _requests(samples: list[dict[str, Any]]) -> str:
    """Return the digest of all requests to a model in a task: of the rendered requests of each document, in order."""
    requests = {int(sample["doc_id"]): sample["arguments"] for sample in samples}
    text = json.dumps(
        [[document, requests[document]] for document in sorted(requests)], ensure_ascii=False, default=str
    )
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


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
    """Return the name of what makes a metric from the documents' values: as the task defines it, or lm-eval's default."""
    from lm_eval.api.registry import get_aggregation, get_metric_aggregation

    listed = {
        getattr(item["metric"], "__name__", item["metric"]): item.get("aggregation")
        for item in task.get("metric_list") or []
    }
    if listed and metric not in listed:
        return MEAN  # lm-eval states so in a warning
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
