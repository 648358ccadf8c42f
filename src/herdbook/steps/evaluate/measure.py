"""Running lm-eval and reading its results."""

from __future__ import annotations

import hashlib
import json
import math
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from herdbook.comparison.samples import MEAN, RATIO, Sample, of_results
from herdbook.errors import StepError
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.lock import SEED
from herdbook.steps.evaluate.context import check_context
from herdbook.steps.evaluate.offline import offline

if TYPE_CHECKING:
    from collections.abc import Sequence

DIGITS = 6  # significant digits of a result; beyond them, kernels of other processors differ


class Measured(NamedTuple):
    """What was measured.

    Args:
        tasks: By task name: title, number of documents, and metrics with value, standard error (None where there is no
            estimate), direction and aggregation.
        samples: The same document by document, task by task.
    """

    tasks: dict[str, Any]
    samples: list[Sample]


def measure(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[Any],
    limit: int | None,
    batch_size: int,
    threads: int = 1,
    **options: Any,
) -> Measured:
    """Measure a model on tasks.

    Nothing is fetched, and lm-eval's cache is not used: its keys do not include the model.

    Args:
        model: A causal language model of transformers, in evaluation mode.
        tokenizer: Its tokenizer.
        tasks: lm-eval's tasks and groups, or configurations of tasks over local data.
        limit: How many documents of each task are read; None for all.
        batch_size: How many documents form a batch; it changes the last digits of a result.
        threads: How many batches are read at the same time; it does not affect the result.
        options: Further arguments of ``simple_evaluate``.

    Raises:
        StepError: If lm-eval does not return a result for every task.
    """
    with offline(TOKENIZERS_PARALLELISM="false"), one_thread_a_matrix():
        import lm_eval
        from lm_eval.tasks import TaskManager

        from herdbook.steps.evaluate.parallel import ParallelHFLM

        lm = ParallelHFLM(threads, batch_size, pretrained=model, tokenizer=tokenizer)
        check_context(tasks, lm, limit, options)
        results = lm_eval.simple_evaluate(
            model=lm,
            tasks=[dict(task) if isinstance(task, dict) else task for task in tasks],
            task_manager=TaskManager(include_defaults=False),
            limit=limit,
            log_samples=True,
            bootstrap_iters=0,
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
    """Return the digest of all that a model was asked in a task: of the rendered requests of each document, in order."""
    asked = {int(sample["doc_id"]): sample["arguments"] for sample in samples}
    text = json.dumps(
        [[document, asked[document]] for document in sorted(asked)], ensure_ascii=False, default=str
    )
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def summarize(task: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Return a task's title, number of documents and metrics from lm-eval's results.

    Args:
        task: The task's configuration.
        results: What ``simple_evaluate`` returns for all tasks, with samples.

    Raises:
        StepError: If a metric is not one number: several filters give it several values, or it is of another type.
    """
    name = task["task"]
    values = results["results"][name]
    samples = results["samples"][name]
    higher_is_better = results["higher_is_better"].get(name, {})
    metrics: dict[str, Any] = {}
    for label, value in sorted(values.items()):
        metric, _, filter_name = label.partition(",")
        if not filter_name or metric.endswith("_stderr"):
            continue
        if not isinstance(value, Real):
            raise StepError(f"lm-eval gave {value!r} as {metric} of {name}, which is not a number")
        if metric in metrics:
            raise StepError(
                f"lm-eval gave several values of {metric} of {name}, one for each filter of the task"
            )
        by_document = [sample[metric] for sample in samples if metric in sample]
        aggregation = _aggregation(task, metric)
        metrics[metric] = {
            "value": _rounded(float(value)),
            "stderr": _standard_error(aggregation, by_document),
            "higher_is_better": bool(higher_is_better.get(metric, True)),
            "aggregation": aggregation,
        }
    title = (task.get("metadata") or {}).get("title", name)
    return {
        "title": title,
        "documents": len({sample["doc_id"] for sample in samples}),
        "metrics": metrics,
    }


def _aggregation(task: dict[str, Any], metric: str) -> str:
    """Return the name of what makes a metric from the documents' values: as the task says, or as lm-eval has it."""
    from lm_eval.api.registry import get_aggregation, get_metric_aggregation

    stated = {item["metric"]: item.get("aggregation") for item in task.get("metric_list") or []}.get(metric)
    found = get_aggregation(stated) if stated else get_metric_aggregation(metric)
    return str(getattr(found, "__name__", stated))


def _standard_error(aggregation: str, values: list[Any]) -> float | None:
    """Return the standard error over documents; None where there is no estimate."""
    if aggregation == MEAN:
        return _mean_error(values)
    return _ratio_error(values) if aggregation == RATIO else None


def _mean_error(values: list[float]) -> float | None:
    """Return the standard error of the mean of documents; lm-eval computes it only together with slow bootstraps."""
    count = len(values)
    if count < 2:
        return None
    mean = sum(values) / count
    return _rounded(math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count))


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
    return _rounded(math.sqrt(count / (count - 1) * squares) / total / math.log(2))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
