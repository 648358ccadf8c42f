"""Planning the data of evaluations: one job fetches all data sets, and looks whether the tasks find in them what they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.key import SHORT, digest

if TYPE_CHECKING:
    from herdbook.jsonio import JsonObject
    from herdbook.lock import Lock, LockedDataSet


@dataclass(frozen=True)
class EvaluationData:
    """The data sets on the Hub that the tasks of a recipe read.

    Args:
        key: Digest that identifies them, and how tasks read them.
        data_sets: The data sets, by their keys in the lock.
    """

    key: str
    data_sets: tuple[tuple[str, LockedDataSet], ...]

    @property
    def id(self) -> str:
        """Name of its folder."""
        return f"data-{self.key[:SHORT]}"

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(file.size_bytes for _, data_set in self.data_sets for file in data_set.files)


def plan_data(lock: Lock) -> EvaluationData | None:
    """Return the data of the evaluations; None if no task reads data on the Hub."""
    if not lock.data_sets:
        return None
    about: JsonObject = {
        "operation": "data",
        "data_sets": {name: one.model_dump(mode="json") for name, one in lock.data_sets.items()},
        "tasks": {name: task.definitions for name, task in lock.tasks.items()},
    }
    return EvaluationData(digest(about), tuple(lock.data_sets.items()))
