"""Pinning an evaluation task: its file, and the local data files that it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook import yamlio
from herdbook.errors import RecipeError
from herdbook.lock.local import pin_local
from herdbook.lock.model import LockedTask
from herdbook.lock.paths import check_task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def pin_task(task: str, beside: Path) -> LockedTask:
    """Pin an evaluation task: its file, and the local data files that it reads."""
    file = pin_local(beside, task, "evaluate.tasks")
    text = (beside / task).read_text(encoding="utf-8")
    try:
        spec = yamlio.load(text, yamlio.PyYamlLoader)
        name = spec["task"]
        data_files = spec["dataset_kwargs"]["data_files"]
    except (yamlio.YamlError, KeyError, TypeError) as error:
        raise RecipeError(
            f"evaluate.tasks: {task}: expected an lm-eval task with `task` and local `dataset_kwargs.data_files` ({error!r})"
        ) from error
    problems = _unread(spec)
    if problems:
        raise RecipeError([f"evaluate.tasks: {task}: {problem}" for problem in problems])
    names = sorted(
        {str(item) for item in (data_files.values() if isinstance(data_files, dict) else [data_files])}
    )
    check_task(task, text, names, beside)
    folder = (beside / task).parent
    data = tuple(pin_local(folder, item, f"evaluate.tasks: {task}") for item in names)
    return LockedTask(name=name, file=file, data=data, metadata=spec.get("metadata") or {})


def _unread(spec: dict[str, Any]) -> list[str]:
    """Return what a task contains of which a part would be missing from the lock or from the results, a line each."""
    problems = [
        f"{key}: other files and groups of tasks are not supported; write one task into one file"
        for key in ("include", "group")
        if key in spec
    ]
    if not isinstance(spec["task"], str):
        problems.append(f"task: {spec['task']!r} is not a name; write one task into one file")
    filters = spec.get("filter_list") or []
    if len(filters) > 1:
        problems.append(
            f"filter_list: {len(filters)} filters give each metric {len(filters)} values, and a measurement has one. Write a "
            "task for each filter"
        )
    metrics = [str(item.get("metric")) for item in spec.get("metric_list") or [] if isinstance(item, dict)]
    problems += [
        f"metric_list: {metric} is listed twice; lm-eval keeps one of the values"
        for metric in dict.fromkeys(metrics)
        if metrics.count(metric) > 1
    ]
    return problems


def refuse_equal_names(tasks: Mapping[str, LockedTask]) -> None:
    """Refuse two tasks of one name, by which lm-eval and the results identify a task."""
    files: dict[str, str] = {}
    for file, task in tasks.items():
        if task.name in files:
            raise RecipeError(
                f"evaluate.tasks: {files[task.name]} and {file} are both named {task.name!r} (`task:`). Change one of the names"
            )
        files[task.name] = file
