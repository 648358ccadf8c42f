"""What is wrong with a task's definition, or would make a part of its results depend on what no lock can pin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from herdbook.humanize import did_you_mean
from herdbook.lock.evaluation import FUNCTION, data_set_of
from herdbook.sources.data_set import reading_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The metrics of a task that lists none, by its output, as lm-eval has them.
DEFAULT_METRICS = {
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
}
NO_FILTER = "none"
# Arguments of `datasets.load_dataset` that read the same data in another way, or state what is pinned already.
ARGUMENTS = frozenset({"data_files", "data_dir", "revision", "trust_remote_code", "features", "column_names", "header",
                       "delimiter", "sep", "field", "encoding", "keep_default_na", "verification_mode"})  # fmt: skip


def metrics_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a task's metrics."""
    listed = config.get("metric_list")
    if listed is None:
        return DEFAULT_METRICS.get(str(config.get("output_type", "generate_until")), ())
    return tuple(_named(item["metric"]) for item in listed if isinstance(item, dict) and "metric" in item)


def filters_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a task's filters."""
    listed = config.get("filter_list")
    return tuple(str(item["name"]) for item in listed) if listed else (NO_FILTER,)


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a task's results: ``metric``, or ``metric,filter`` if the task has filters."""
    return tuple(
        metric if name == NO_FILTER else f"{metric},{name}"
        for metric in metrics_of(config)
        for name in filters_of(config)
    )


def data_files(config: Mapping[str, Any]) -> list[str]:
    """Return the local files that a task reads, by their names relative to the task."""
    if data_set_of(config) is not None:
        return []
    files = (config.get("dataset_kwargs") or {}).get("data_files") or []
    listed = files.values() if isinstance(files, dict) else [files]
    return sorted({name for item in listed for name in ([item] if isinstance(item, str) else item)})


def problems_of(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a definition, a line each."""
    if "class" in config:
        yield "is a class of Python, whose data and prompts are in its code; only definitions can be pinned"
    if config.get("custom_dataset"):
        yield "custom_dataset: its data are made by code, and cannot be pinned"
    if config.get("unsafe_code"):
        yield "unsafe_code: runs programs that the model writes, which is not supported"
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        yield "reads images or sounds, and the models here are language models"
    path = config.get("dataset_path")
    if path is not None and not isinstance(path, str):
        yield f"dataset_path: {path!r} is not a name"
    elif (
        isinstance(path, str)
        and data_set_of(config) is not None
        and (path.count("/") != 1 or path.startswith("."))
    ):
        yield f"dataset_path: {path!r} is neither owner/name on the Hub nor a format such as json"
    yield from _kwargs_problems(config)
    yield from _split_problems(config)
    yield from _list_problems(config)
    shots, samples = config.get("num_fewshot"), (config.get("fewshot_config") or {}).get("samples")
    if isinstance(samples, list) and isinstance(shots, int) and shots > len(samples):
        yield f"num_fewshot: {shots} solved examples, and fewshot_config.samples has {len(samples)}"


def _kwargs_problems(config: Mapping[str, Any]) -> Iterator[str]:
    arguments = config.get("dataset_kwargs") or {}
    if not isinstance(arguments, dict):
        yield f"dataset_kwargs: {arguments!r} is not a mapping"
        return
    for name in sorted(set(arguments) - ARGUMENTS):
        yield f"dataset_kwargs.{name}: is not supported, since it is not known what it makes of pinned files"
    files = arguments.get("data_files")
    if data_set_of(config) is None and not files:
        yield "dataset_kwargs.data_files: a task with files of its own has to name them"
    values = files.values() if isinstance(files, dict) else [files] if files else []
    for value in values:
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str):
                yield f"dataset_kwargs.data_files: {name!r} is not the name of a file"
            elif "://" in name:
                yield f"dataset_kwargs.data_files: {name} is not on the Hub, and cannot be pinned; download it beside the task"


def _split_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the splits that a task with files of its own needs, and has no files for."""
    arguments = config.get("dataset_kwargs") or {}
    files = arguments.get("data_files") if isinstance(arguments, dict) else None
    if data_set_of(config) is not None or not files:
        return
    splits = [str(split) for split in files] if isinstance(files, dict) else ["train"]
    for split in reading_of(config).splits:
        if split.partition("[")[0] not in splits:
            yield f"no data_files are named for the split {split!r}{did_you_mean(split, splits)}"


def _list_problems(config: Mapping[str, Any]) -> Iterator[str]:
    listed = config.get("metric_list") or []
    if any(not isinstance(item, dict) or "metric" not in item for item in listed):
        yield "metric_list: an entry names no metric"
        return
    metrics = [_named(item["metric"]) for item in listed]
    for metric in dict.fromkeys(metrics):
        if metrics.count(metric) > 1:
            yield f"metric_list: {metric} is listed twice; lm-eval keeps one of the values"
    if not metrics_of(config):
        yield f"output_type: {config.get('output_type')!r} is not one of {', '.join(DEFAULT_METRICS)}, and no metric is listed"
    filters = config.get("filter_list") or []
    if any(not isinstance(item, dict) or "name" not in item for item in filters):
        yield "filter_list: an entry has no name"
    for index, item in enumerate(listed):
        if any(isinstance(value, float) and not math.isfinite(value) for value in item.values()):
            yield f"metric_list.{index}: a number is not finite"


def _named(metric: Any) -> str:
    """Return a metric's name; that of a function is the function's."""
    return str(metric.get(FUNCTION)).rpartition(".")[2] if isinstance(metric, dict) else str(metric)
