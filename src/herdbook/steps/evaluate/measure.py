"""Running lm-eval and reading its results."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from functools import partial
from numbers import Real
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from herdbook.comparison.groups import DOCUMENTS, TASKS
from herdbook.comparison.samples import MEAN, RATIO, Sample, label, of_results
from herdbook.errors import StepError
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.lock import SEED
from herdbook.steps.evaluate.context import check_context
from herdbook.steps.evaluate.offline import offline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

CUSTOM = "of the task"  # an aggregation that is not lm-eval's
BOOTSTRAPS = 100_000  # as the command `lm_eval` makes, for metrics whose standard error has no closed form
DIGITS = 6  # significant digits of a result; beyond them, kernels of other processors differ


class Measured(NamedTuple):
    """What was measured.

    Args:
        tasks: By task name: title, number of documents, and metrics (by ``label``) with value, standard error (None where
            there is no estimate), direction and aggregation.
        groups: By the name of each group of lm-eval that has a result as a whole, the same and the names of its tasks.
        samples: The results of tasks document by document, task by task.
    """

    tasks: dict[str, Any]
    groups: dict[str, Any]
    samples: list[Sample]


def measure(
    opened: Callable[[], Any],
    tasks: Sequence[Any],
    limit: int | None,
    pinned: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> Measured:
    """Measure a model on tasks.

    Nothing is fetched, and lm-eval's cache is not used: its keys do not include the model.

    Args:
        opened: Returns lm-eval's model to measure.
        tasks: lm-eval's tasks and groups, or configurations of tasks over local data.
        limit: How many documents of each task are read; None for all.
        pinned: The digest of the requests of each task whose requests are pinned.
        options: Further arguments of ``simple_evaluate``.

    Raises:
        StepError: If requests are not the pinned ones, logits contain NaN, a result is not a number, or lm-eval does not return one for every task.
    """
    # Bootstraps are equal without processes of their own, and no process with threads is forked.
    with (
        offline(TOKENIZERS_PARALLELISM="false", DISABLE_MULTIPROC="1"),
        one_thread_a_matrix(),
        _without_notes(),
    ):
        import lm_eval
        from lm_eval.tasks import TaskManager

        lm = opened()
        check_context(tasks, lm, limit, options)
        if pinned:
            lm.before = partial(check_requests, tasks, pinned)
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
        name: {**summarize(config, results), "requests": _requests(_asked(results["samples"][name]))}
        for name, config in configs.items()
    }
    samples = [
        sample
        for name, task in measured.items()
        for sample in of_results(name, results["samples"][name], task["metrics"])
    ]
    groups = {
        group.name: _whole(group, results, measured)
        for task in tasks
        for group in _groups(task)
        if group.has_aggregation
    }
    return Measured(measured, groups, samples)


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Leave out what lm-eval notes of the machine and of git, for which it starts programs that take a second."""
    from lm_eval import evaluator

    notes = evaluator.add_env_info, evaluator.get_git_commit_hash
    evaluator.add_env_info, evaluator.get_git_commit_hash = (lambda _: None), (lambda: None)
    try:
        yield
    finally:
        evaluator.add_env_info, evaluator.get_git_commit_hash = notes


def _groups(task: Any) -> list[Any]:
    """Return a group of lm-eval, and the groups in it; nothing of a task."""
    return [task, *task.get_all_groups()] if hasattr(task, "get_all_groups") else []


def _whole(group: Any, results: dict[str, Any], tasks: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a group as a whole: lm-eval's own values and standard errors."""
    leaves = list(dict.fromkeys(task.task_name for task in group.get_all_tasks()))
    by_size = {entry.metric: entry.weight_by_size for entry in group.aggregate_metric_list}
    metrics: dict[str, Any] = {}
    for metric, filter_name, value, error in _values(group.name, results):
        one = label(metric, filter_name)
        scores = [tasks[leaf]["metrics"][one] for leaf in leaves if one in tasks[leaf]["metrics"]]
        metrics[one] = {
            "value": _rounded(value),
            "stderr": None if error is None else _rounded(error),
            "higher_is_better": scores[0]["higher_is_better"],
            "aggregation": DOCUMENTS if by_size[metric] else TASKS,
        }
    return {
        "title": group.alias or group.name,
        "tasks": leaves,
        "documents": sum(tasks[leaf]["documents"] for leaf in leaves),
        "metrics": metrics,
    }


def _values(name: str, results: dict[str, Any]) -> Iterator[tuple[str, str, float, float | None]]:
    """Yield the results of a task or group, each with its metric, its filter and its standard error, if lm-eval has one.

    Raises:
        StepError: If a result is not a finite number.
    """
    values = results["results"][name]
    for key, value in values.items():
        metric, _, filter_name = key.partition(",")
        if not filter_name or metric.endswith("_stderr"):
            continue
        if not isinstance(value, Real) or not math.isfinite(value):
            raise StepError(f"lm-eval gave {value!r} as {metric} of {name}, which is not a number")
        error = values.get(f"{metric}_stderr,{filter_name}")
        known = isinstance(error, Real) and math.isfinite(error)
        yield metric, filter_name, float(value), float(error) if known else None


def _configs(task: Any) -> list[dict[str, Any]]:
    """Return the configurations of a task of lm-eval, or of all tasks in a group."""
    if isinstance(task, dict):
        return [task]
    leaves = task.get_all_tasks() if hasattr(task, "get_all_tasks") else [task]
    return [
        {name: getattr(leaf.config, name) for name in ("task", "metric_list", "metadata")} for leaf in leaves
    ]


def _asked(samples: Iterable[Mapping[str, Any]]) -> dict[int, Any]:
    """Return the arguments of the requests of each document; each filter has samples of all documents."""
    return {int(sample["doc_id"]): sample["arguments"] for sample in samples}


def check_requests(tasks: Iterable[Any], pinned: Mapping[str, str]) -> None:
    """Refuse to ask a model anything else than was asked before.

    Args:
        tasks: lm-eval's tasks and groups, with their requests; configurations of tasks are not looked at.
        pinned: The digest of the requests of each task whose requests are pinned.

    Raises:
        StepError: If the requests of a task are others.
    """
    for task in tasks:
        for leaf in task.get_all_tasks() if hasattr(task, "get_all_tasks") else [task]:
            name = "" if isinstance(leaf, dict) else leaf.config.task
            if name not in pinned:
                continue
            asked: dict[int, list[Any]] = {}
            for request in sorted(leaf.instances, key=lambda one: (one.doc_id, one.idx)):
                asked.setdefault(request.doc_id, []).append(request.args)
            if (found := _requests(asked)) != pinned[name]:
                raise StepError(
                    f"evaluate.tasks: {name}: what models are asked has changed: the lock pins requests with the digest "
                    f"{pinned[name][:12]}, and these have {found[:12]}. A package, lm-eval's code or a setting changed "
                    "them; if that is meant, run `herdbook lock`, which forgets the digests."
                )


def _requests(asked: Mapping[int, Any]) -> str:
    """Return the digest of all that a model is asked in a task.

    Args:
        asked: The arguments of the rendered requests of each document.
    """
    text = json.dumps(
        [[document, asked[document]] for document in sorted(asked)],
        ensure_ascii=False,
        sort_keys=True,
        default=str,
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
    samples = results["samples"][name]
    higher_is_better = results["higher_is_better"].get(name, {})
    metrics: dict[str, Any] = {}
    for metric, filter_name, value, known_error in _values(name, results):
        aggregation, error = _aggregation(task, metric), known_error
        if aggregation == RATIO:
            error = _ratio_error([one[metric] for one in samples if one["filter"] == filter_name])
        metrics[label(metric, filter_name)] = {
            "value": _rounded(value),
            "stderr": None if error is None else _rounded(error),
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
