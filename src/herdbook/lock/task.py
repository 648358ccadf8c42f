"""Pinning an evaluation task: its file, as far as Herdbook reads it, and the local data files that it reads."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from herdbook import yamlio
from herdbook.errors import RecipeError
from herdbook.humanize import first_problem
from herdbook.lock.local import pin_local
from herdbook.lock.model import LockedTask
from herdbook.lock.paths import check_task

if TYPE_CHECKING:
    from collections.abc import Mapping


class Data(BaseModel):
    """The local files that a task reads: one, or that of each split."""

    model_config = ConfigDict(extra="allow", strict=True)

    data_files: str | dict[str, str]

    @property
    def names(self) -> list[str]:
        """The names of the files, sorted."""
        return sorted(
            set(self.data_files.values()) if isinstance(self.data_files, dict) else {self.data_files}
        )


class Task(BaseModel):
    """A task of lm-eval; keys that are not named here are lm-eval's alone."""

    model_config = ConfigDict(extra="allow", strict=True)

    task: Any
    dataset_kwargs: Data
    metadata: dict[str, JsonValue] | None = None
    filter_list: list[Any] | None = None
    metric_list: list[dict[str, Any]] | None = None

    def unread(self) -> list[str]:
        """Return what it contains of which a part would be missing from the lock or from the results, a line each."""
        problems = [
            f"{key}: other files and groups of tasks are not supported; write one task into one file"
            for key in ("include", "group")
            if key in (self.model_extra or {})
        ]
        if not isinstance(self.task, str):
            problems.append(f"task: {self.task!r} is not a name; write one task into one file")
        metrics = [str(item.get("metric")) for item in self.metric_list or []]
        problems += [
            f"metric_list: {metric} is listed twice; lm-eval keeps one of the values"
            for metric in dict.fromkeys(metrics)
            if metrics.count(metric) > 1
        ]
        return problems


def read_task(content: bytes, name: str) -> tuple[Task, str]:
    """Return a task and the text of its file.

    Args:
        content: The content of the file.
        name: Its path, as the recipe names it.

    Raises:
        RecipeError: If it is not a task with local data.
    """
    try:
        text = content.decode()
        return Task.model_validate(yamlio.load(text, yamlio.PyYamlLoader)), text
    except UnicodeDecodeError as error:
        problem = f"it is not UTF-8 ({error})"
    except yamlio.YamlError as error:
        problem = str(error)
    except ValidationError as error:
        problem = first_problem(error)
    raise RecipeError(
        f"evaluate.tasks: {name}: expected an lm-eval task with `task` and local `dataset_kwargs.data_files`: {problem}"
    )


def pin_task(task: str, beside: Path) -> LockedTask:
    """Pin an evaluation task: its file, and the local data files that it reads."""
    file = pin_local(beside, task, "evaluate.tasks")
    spec, text = read_task((beside / task).read_bytes(), task)
    if problems := spec.unread():
        raise RecipeError([f"evaluate.tasks: {task}: {problem}" for problem in problems])
    names = spec.dataset_kwargs.names
    check_task(task, text, names, beside)
    folder = (beside / task).parent
    data = tuple(pin_local(folder, item, f"evaluate.tasks: {task}") for item in names)
    return LockedTask(name=spec.task, file=file, data=data, metadata=spec.metadata or {})


def refuse_equal_names(tasks: Mapping[str, LockedTask]) -> None:
    """Refuse two tasks of one name, by which lm-eval and the results identify a task."""
    files: dict[str, str] = {}
    for file, task in tasks.items():
        if task.name in files:
            raise RecipeError(
                f"evaluate.tasks: {files[task.name]} and {file} are both named {task.name!r} (`task:`). Change one of the names"
            )
        files[task.name] = file
