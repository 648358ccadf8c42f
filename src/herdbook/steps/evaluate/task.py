"""Evaluation tasks: lm-eval's YAML files over local data, checked against the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook import yamlio
from herdbook.lock import check_pinned

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.lock import LockedTask


def load_task(path: Path, locked: LockedTask) -> dict[str, Any]:
    """Return a task's configuration with the paths of its data made absolute.

    Args:
        path: The task file.
        locked: Its entry in the lock, with which the file and its data are compared.

    Raises:
        LockError: If the file or its data changed since they were locked.
    """
    check_pinned(path, locked.file, "evaluate.tasks")
    for data in locked.data:
        check_pinned(path.parent / data.name, data, f"evaluate.tasks: {path.name}")
    spec: dict[str, Any] = yamlio.load(path.read_text(encoding="utf-8"), yamlio.PyYamlLoader)
    files = spec["dataset_kwargs"]["data_files"]
    if isinstance(files, dict):
        absolute: Any = {split: str((path.parent / name).resolve()) for split, name in files.items()}
    else:
        absolute = str((path.parent / files).resolve())
    return {**spec, "dataset_kwargs": {**spec["dataset_kwargs"], "data_files": absolute}}
