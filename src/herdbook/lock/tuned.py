"""A lock's entry on a search over a model's entry: its tasks, and once `herdbook tune` has run, all trials and what came of them.

Numbers that were found are pinned like a commit: the plan reads them here, and tries nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from herdbook.lock.definition import data_files
from herdbook.lock.evaluation import LockedDataSet, LockedHarness, LockedTask, data_set_of
from herdbook.lock.file import FIRST
from herdbook.recipe import Section
from herdbook.sources.data_set import reading_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.recipe import Point

Finite = Annotated[float, Field(allow_inf_nan=False)]
Place = Annotated[float, Field(ge=0, le=1)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class LockedTrial(Section):
    """A trial.

    Args:
        point: What was tried, as places between 0 and 1 (see ``recipe.Space``).
        score: Its result on the validation split.
        key: The key of that measurement.
    """

    point: tuple[Place, ...]
    score: Finite
    key: Key


class LockedGain(Section):
    """The winner's result on a split, minus the start's, by a paired test over documents.

    Args:
        documents: Number of documents.
        difference: The difference of the results.
        low: Lower end of its 95 % interval.
        high: Upper end of it.
        p: Probability of so large a difference between equal models.
    """

    documents: Annotated[int, Field(ge=1)]
    difference: Finite
    low: Finite
    high: Finite
    p: Annotated[float, Field(ge=0, le=1)]


class LockedResult(Section):
    """What a search found.

    Args:
        key: Digest of all that decides it: the search, the model's entry, the keys of its parents, the tasks.
        optimizer: What proposed the trials, with its version.
        higher_is_better: Of the metric.
        trials: All trials: the start, then those of each generation.
        validation: The winner's gain on the split by which it was chosen; None if the start is the winner.
        test: Its gain on the split that no other trial was measured on; None if the start is the winner.
        kept: Whether the model has the winner's numbers, or the start's, since the test shows no gain.
    """

    key: Key
    optimizer: str
    higher_is_better: bool
    trials: Annotated[tuple[LockedTrial, ...], FIRST]
    validation: LockedGain | None = None
    test: LockedGain | None = None
    kept: Literal["start", "winner"]

    @model_validator(mode="after")
    def _is_whole(self) -> LockedResult:
        if not self.trials:
            raise ValueError("trials: there is none")
        if {self.validation is None, self.test is None} != {self.winner == 0}:
            raise ValueError("a winner has a gain on both splits, and the start has none")
        if self.winner == 0 and self.kept == "winner":
            raise ValueError("kept: the start is the winner")
        return self

    @property
    def winner(self) -> int:
        """The number of the best trial; of equal ones the first."""
        return best_of([trial.score for trial in self.trials], higher_is_better=self.higher_is_better)

    @property
    def point(self) -> Point:
        """The point that the model has."""
        return self.trials[self.winner if self.kept == "winner" else 0].point


def best_of(scores: Sequence[float], *, higher_is_better: bool) -> int:
    """Return the place of the best score; of equal ones the first."""
    sign = -1 if higher_is_better else 1
    return min(range(len(scores)), key=lambda place: (sign * scores[place], place))


class LockedSearch(Section):
    """A search, pinned: the tasks of validation and test with what they read, and what it found, once it has run."""

    tasks: Annotated[dict[str, LockedTask], FIRST]
    data_sets: Annotated[dict[str, LockedDataSet], FIRST] = Field(default_factory=dict)
    harness: LockedHarness
    result: LockedResult | None = None


def splits_of(locked: LockedTask) -> dict[str, str]:
    """Return what a task measures on, by what identifies it: files by their digests, and splits of data sets."""
    files = {file.name: str(file.sha256) for file in locked.data}
    found: dict[str, str] = {}
    for config in locked.definitions.values():
        split = config.get("test_split") or config.get("validation_split")
        if data_set := data_set_of(config):
            how = reading_of(config)
            parts = (data_set, how.name, how.data_dir, *(how.data_files or ()), split)
            name = " ".join(str(part) for part in parts if part)
            found[name] = name
        else:
            given = (config.get("dataset_kwargs") or {}).get("data_files")
            measured = given.get(split, given) if isinstance(given, dict) else given
            own = {"dataset_path": config.get("dataset_path"), "dataset_kwargs": {"data_files": measured}}
            found |= {files[name]: name for name in data_files(own)}
    return found
